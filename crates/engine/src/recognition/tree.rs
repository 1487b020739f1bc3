//! The items of histories as a tree: each stands behind the items that came before it, so that one path is one history, and
//! histories that begin alike share their beginning. Knows nothing of what items mean.
//!
//! A node is found by its parent and the hash of its bytes, and is it only if the bytes are equal. The child that was seen last
//! is tried before any hash is made: a history that only grows is compared, and not even scanned.
//!
//! What makes room are ends, the least recently used first: a history is forgotten from its end.

use super::history::History;
use crate::session::Owner;
use crate::tools::Tools;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What a node costs beside its bytes: itself, its row of the index, and what points at its bytes.
pub const NODE_BYTES: usize = 384;

/// Most items with one hash behind one parent. Nobody but their owner can make them, and nobody needs more.
const COLLISIONS_MAX: usize = 4;

/// A node that is there as long as its place was not given to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeId {
    slot: u32,
    serial: u64,
}

struct Node {
    serial: u64,
    owner: Owner,
    /// A root is its own.
    parent: u32,
    bytes: Bytes,
    hash: u64,
    children: u32,
    latest: Option<u32>,
    kept: Kept,
    used: u64,
}

/// What is known of the path up to a node.
#[derive(Clone)]
pub enum Kept {
    Nothing,
    /// What the items up to here came to.
    History(Arc<History>),
    /// The node is no item: it is an array of tools.
    Tools(Arc<Tools>),
}

/// What one owner has.
struct Room {
    root: u32,
    bytes: usize,
    ends: BTreeSet<(u64, u32)>,
}

/// All owners' histories. No node of one is ever found from another's.
#[derive(Default)]
pub struct Tree {
    slots: Vec<Option<Node>>,
    free: Vec<u32>,
    /// Parent, hash, node.
    by_hash: BTreeSet<(u32, u64, u32)>,
    rooms: BTreeMap<Owner, Room>,
    /// Nodes that nothing stands behind, by last use.
    ends: BTreeSet<(u64, u32)>,
    bytes: usize,
    serials: u64,
    uses: u64,
}

impl Tree {
    #[must_use]
    pub fn root(&self, owner: Owner) -> Option<NodeId> {
        self.id(self.rooms.get(&owner)?.root)
    }

    /// The owner's root, made where there is none.
    pub fn root_for(&mut self, owner: Owner) -> Option<NodeId> {
        if let Some(root) = self.root(owner) {
            return Some(root);
        }
        let root = self.put(|slot, serial| Node {
            serial,
            owner,
            parent: slot,
            bytes: Bytes::new(),
            hash: 0,
            children: 0,
            latest: None,
            kept: Kept::Nothing,
            used: 0,
        })?;
        self.rooms.insert(owner, Room { root: root.slot, bytes: NODE_BYTES, ends: BTreeSet::new() });
        self.bytes += NODE_BYTES;
        Some(root)
    }

    /// The child that was seen last, if `bytes` begin with it.
    #[must_use]
    pub fn latest(&self, parent: NodeId, bytes: &[u8]) -> Option<(NodeId, usize)> {
        let latest = self.node(parent)?.latest?;
        let node = self.slots.get(latest as usize)?.as_ref()?;
        let id = NodeId { slot: latest, serial: node.serial };
        bytes.starts_with(&node.bytes).then(|| (id, node.bytes.len()))
    }

    /// The child that is `bytes`.
    #[must_use]
    pub fn child(&self, parent: NodeId, hash: u64, bytes: &[u8]) -> Option<NodeId> {
        let mut same_hash = self.by_hash.range((parent.slot, hash, 0)..=(parent.slot, hash, u32::MAX));
        let (.., slot) = same_hash.find(|(.., slot)| {
            let node = self.slots.get(*slot as usize).and_then(Option::as_ref);
            node.is_some_and(|node| node.bytes == bytes)
        })?;
        self.id(*slot)
    }

    #[must_use]
    pub fn parent(&self, id: NodeId) -> Option<NodeId> {
        let parent = self.node(id)?.parent;
        (parent != id.slot).then(|| self.id(parent)).flatten()
    }

    #[must_use]
    pub fn kept(&self, id: NodeId) -> Option<&Kept> {
        Some(&self.node(id)?.kept)
    }

    #[must_use]
    pub fn bytes_of(&self, id: NodeId) -> Option<&Bytes> {
        Some(&self.node(id)?.bytes)
    }

    #[must_use]
    pub fn is_there(&self, id: NodeId) -> bool {
        self.node(id).is_some()
    }

    /// Adds a child, which is no end yet: [`Self::used`] makes it one.
    pub fn add(&mut self, parent: NodeId, hash: u64, bytes: Bytes) -> Option<NodeId> {
        let same_hash = self.by_hash.range((parent.slot, hash, 0)..=(parent.slot, hash, u32::MAX));
        if same_hash.count() >= COLLISIONS_MAX {
            return None;
        }
        let (owner, weight) = (self.node(parent)?.owner, NODE_BYTES + bytes.len());
        let child = self.put(|_, serial| Node {
            serial,
            owner,
            parent: parent.slot,
            bytes,
            hash,
            children: 0,
            latest: None,
            kept: Kept::Nothing,
            used: 0,
        })?;
        self.by_hash.insert((parent.slot, hash, child.slot));
        self.weigh(owner, 0, weight);
        let before = self.node_mut(parent)?;
        before.children += 1;
        let used = before.used;
        self.end(owner, used, parent.slot, false);
        Some(child)
    }

    /// The child is likely to come again behind its parent.
    pub fn expect(&mut self, child: NodeId) {
        if let Some(parent) = self.parent(child).and_then(|parent| self.node_mut(parent)) {
            parent.latest = Some(child.slot);
        }
    }

    pub fn keep(&mut self, id: NodeId, kept: Kept) {
        let Some(node) = self.node_mut(id) else { return };
        let (owner, more) = (node.owner, kept.weight());
        let less = std::mem::replace(&mut node.kept, kept).weight();
        self.weigh(owner, less, more);
    }

    /// Forgets what a node kept that is only passed by: what stands behind it keeps more. Where ways part, it is needed.
    pub fn pass(&mut self, id: NodeId) {
        if self.node(id).is_some_and(|node| node.children == 1) {
            self.keep(id, Kept::Nothing);
        }
    }

    /// The node was of use.
    pub fn used(&mut self, id: NodeId) {
        self.uses += 1;
        let uses = self.uses;
        let Some(node) = self.node_mut(id) else { return };
        let (owner, before) = (node.owner, std::mem::replace(&mut node.used, uses));
        if node.children == 0 {
            self.end(owner, before, id.slot, false);
            self.end(owner, uses, id.slot, true);
        }
    }

    /// Makes room, until the owner and all together keep to their limits.
    pub fn shrink(&mut self, owner: Owner, owner_bytes_max: usize, bytes_max: usize) {
        while let Some(room) = self.rooms.get(&owner).filter(|room| room.bytes > owner_bytes_max) {
            let Some(&(_, oldest)) = room.ends.first() else { break };
            self.remove_end(oldest);
        }
        while self.bytes > bytes_max {
            let Some(&(_, oldest)) = self.ends.first() else { break };
            self.remove_end(oldest);
        }
    }

    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn remove_end(&mut self, slot: u32) {
        let Some(node) = self.slots.get_mut(slot as usize).and_then(Option::take) else { return };
        self.free.push(slot);
        self.end(node.owner, node.used, slot, false);
        self.weigh(node.owner, NODE_BYTES + node.bytes.len() + node.kept.weight(), 0);
        if node.parent == slot {
            self.rooms.remove(&node.owner);
            return;
        }
        self.by_hash.remove(&(node.parent, node.hash, slot));
        let Some(parent) = self.slots.get_mut(node.parent as usize).and_then(Option::as_mut) else { return };
        parent.children -= 1;
        if parent.latest == Some(slot) {
            parent.latest = None;
        }
        if parent.children == 0 {
            // What stood behind it was used after it.
            parent.used = parent.used.max(node.used);
            let used = parent.used;
            self.end(node.owner, used, node.parent, true);
        }
    }

    fn end(&mut self, owner: Owner, used: u64, slot: u32, is_end: bool) {
        let room = self.rooms.get_mut(&owner).map(|room| &mut room.ends);
        for ends in std::iter::once(&mut self.ends).chain(room) {
            if is_end {
                ends.insert((used, slot))
            } else {
                ends.remove(&(used, slot))
            };
        }
    }

    fn weigh(&mut self, owner: Owner, less: usize, more: usize) {
        self.bytes = self.bytes + more - less;
        if let Some(room) = self.rooms.get_mut(&owner) {
            room.bytes = room.bytes + more - less;
        }
    }

    fn put(&mut self, node: impl FnOnce(u32, u64) -> Node) -> Option<NodeId> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.slots.push(None);
                u32::try_from(self.slots.len() - 1).ok()?
            }
        };
        self.serials += 1;
        let serial = self.serials;
        *self.slots.get_mut(slot as usize)? = Some(node(slot, serial));
        Some(NodeId { slot, serial })
    }

    fn id(&self, slot: u32) -> Option<NodeId> {
        let node = self.slots.get(slot as usize)?.as_ref()?;
        Some(NodeId { slot, serial: node.serial })
    }

    fn node(&self, id: NodeId) -> Option<&Node> {
        self.slots.get(id.slot as usize)?.as_ref().filter(|node| node.serial == id.serial)
    }

    fn node_mut(&mut self, id: NodeId) -> Option<&mut Node> {
        self.slots.get_mut(id.slot as usize)?.as_mut().filter(|node| node.serial == id.serial)
    }
}

impl Kept {
    fn weight(&self) -> usize {
        match self {
            Self::Nothing => 0,
            Self::History(history) => history.weight(),
            Self::Tools(tools) => 2 * tools.array.as_ref().map_or(0, Bytes::len),
        }
    }
}
