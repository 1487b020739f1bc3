//! Recognition: what a client sends again, byte for byte, is neither read nor rendered again.
//!
//! Clients that keep their own history send all of it with every turn. Here it lies as items, each behind the items before it,
//! and at its end what all of them came to. A request's input is compared with it from the front; what is equal is taken as it
//! was, and only the rest is read. So a long history costs one pass over its bytes.
//!
//! An item's message depends on the items before it (calls join the message that they follow), never on what follows: a place
//! to go on from is one where no message is open, and then what stands behind it renders the same as ever.
//!
//! Nothing is ever found of another owner's. All of it is bounded, and forgotten from the least recently used on.

mod history;
mod tree;

pub use history::History;

use crate::chain::{Chain, Reading, Rendered, raw_item};
use crate::seal::Opener;
use crate::session::Owner;
use crate::tools::Tools;
use bytes::Bytes;
use flashlane_wire::json;
use flashlane_wire::responses::{Known, ParseError};
use serde_json::value::RawValue;
use std::sync::{Arc, PoisonError, RwLock};
use tree::{Kept, NODE_BYTES, NodeId, Tree};
use xxhash_rust::xxh3::xxh3_64;

/// An input below this is as soon read as recognised.
const INPUT_BYTES_MIN: usize = 4096;
const TOOLS_BYTES_MIN: usize = 1024;

/// What all of it may hold, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub bytes_max: usize,
    /// Of one owner.
    pub owner_bytes_max: usize,
}

/// What clients sent; one for all sessions.
pub struct Recognition {
    limits: Limits,
    hash: fn(&[u8]) -> u64,
    tree: RwLock<Tree>,
}

/// How much of an input is known.
#[derive(Default)]
pub struct Found {
    /// The last item that is known.
    at: Option<NodeId>,
    /// Items that came where another was expected.
    turned: Vec<NodeId>,
    known: Known,
    /// What the first of the known items came to.
    history: Option<Arc<History>>,
    /// Those of the known items that are not in it.
    unread: Vec<Bytes>,
}

/// An input that is read.
#[derive(Debug, Default)]
pub struct Input {
    /// Its first items, shared with what is known.
    pub history: Option<Arc<History>>,
    /// The others. Outputs, images and files are those of all.
    pub rendered: Rendered,
}

impl Input {
    fn of(history: Option<Arc<History>>, mut rendered: Rendered) -> Self {
        if let Some(history) = &history {
            rendered.outputs.splice(..0, history.outputs.iter().cloned());
            rendered.media = history.media.or(&rendered.media);
        }
        Self { history, rendered }
    }
}

/// The items of an input that are not known, and whether all of it is worth knowing.
pub struct Fresh<'a> {
    pub items: &'a [&'a RawValue],
    /// How many items were known, and so were not read.
    pub known_items: usize,
    /// It is a whole history, that may be sent again.
    pub is_whole: bool,
}

impl Default for Recognition {
    /// Knows nothing, ever.
    fn default() -> Self {
        Self::new(Limits { bytes_max: 0, owner_bytes_max: 0 })
    }
}

impl Recognition {
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self::with_hash(limits, xxh3_64)
    }

    fn with_hash(limits: Limits, hash: fn(&[u8]) -> u64) -> Self {
        Self { limits, hash, tree: RwLock::default() }
    }

    fn is_off(&self) -> bool {
        self.limits.bytes_max == 0 || self.limits.owner_bytes_max == 0
    }

    /// Compares an input's items, up to its closing bracket and beyond, with those that are known.
    #[must_use]
    pub fn find(&self, owner: Owner, items: &[u8]) -> Found {
        let mut found = Found::default();
        if items.len() < INPUT_BYTES_MIN || self.is_off() {
            return found;
        }
        let tree = self.tree.read().unwrap_or_else(PoisonError::into_inner);
        let Some(mut node) = tree.root(owner) else { return found };
        let mut at = 0;
        while items.get(at) == Some(&b'{') {
            let rest = items.get(at..).unwrap_or_default();
            let (next, bytes) = match tree.latest(node, rest) {
                Some(expected) => expected,
                None => {
                    let Some(item) = json::value_end(rest, 0).and_then(|end| rest.get(..end)) else { break };
                    let Some(other) = tree.child(node, (self.hash)(item), item) else { break };
                    found.turned.push(other);
                    (other, item.len())
                }
            };
            node = next;
            found.known = Known { items: found.known.items + 1, bytes: at + bytes };
            at = json::skip_space(items, at + bytes);
            if items.get(at) != Some(&b',') {
                break;
            }
            at = json::skip_space(items, at + 1);
        }
        if found.known.items > 0 {
            found.at = Some(node);
            found.go_back(&tree, node);
        }
        found
    }

    /// Reads what is not known, and remembers it.
    ///
    /// # Errors
    /// The first item that is wrong.
    pub fn read(&self, opener: Opener<'_>, found: Found, fresh: &Fresh<'_>) -> Result<Input, ParseError> {
        // Whoever cut the input may have had to read it from its front.
        let mut found = if found.known.items == fresh.known_items { found } else { Found::default() };
        let before = found.catch_up(opener)?;
        let mut reading = Reading::new("input", found.known.items - found.unread.len(), opener);
        for item in &found.unread {
            reading.push(raw_item(item)?, item.clone())?;
        }
        for item in fresh.items {
            reading.push(item, Bytes::copy_from_slice(item.get().as_bytes()))?;
        }
        let rendered = reading.finish();
        let bytes: usize = rendered.piece.items.iter().map(Bytes::len).sum();
        let is_worth_it = found.known.bytes + bytes >= INPUT_BYTES_MIN && !self.is_off();
        let is_tied = rendered.ends_open || rendered.ends_in_trigger || !rendered.references.is_empty();
        if !fresh.is_whole || !is_worth_it || is_tied || !found.is_followed_by(&rendered) {
            return Ok(Input::of(found.history.take(), rendered));
        }
        let items = rendered.piece.items.get(found.unread.len()..).unwrap_or_default().to_vec();
        let history = match found.history.take() {
            Some(known) if rendered.piece.items.is_empty() => known,
            known => Arc::new(known.unwrap_or_default().and(rendered, opener)?),
        };
        self.remember(opener.owner, &found, before, (items, &history));
        Ok(Input::of(Some(history), Rendered::default()))
    }

    /// `before` is what the known items came to, where that was not there.
    fn remember(
        &self,
        owner: Owner,
        found: &Found,
        before: Option<Arc<History>>,
        (items, history): (Vec<Bytes>, &Arc<History>),
    ) {
        let Limits { bytes_max, owner_bytes_max } = self.limits;
        if history.chain.weight() + NODE_BYTES * (found.known.items + items.len()) > owner_bytes_max {
            return;
        }
        let hashed: Vec<_> = items.into_iter().map(|item| ((self.hash)(&item), item)).collect();
        let mut tree = self.tree.write().unwrap_or_else(PoisonError::into_inner);
        let at = if found.known.items == 0 { tree.root_for(owner) } else { found.at.filter(|at| tree.is_there(*at)) };
        let Some(at) = at else { return };
        found.turned.iter().for_each(|node| tree.expect(*node));
        if let Some(before) = before {
            tree.keep(at, Kept::History(before));
        }
        let mut node = at;
        for (hash, item) in hashed {
            let next = tree.child(node, hash, &item).or_else(|| tree.add(node, hash, item));
            let Some(next) = next else {
                tree.used(node);
                return;
            };
            tree.expect(next);
            node = next;
        }
        if node != at {
            tree.pass(at);
        }
        if !matches!(tree.kept(node), Some(Kept::History(_))) {
            tree.keep(node, Kept::History(Arc::clone(history)));
        }
        tree.used(node);
        tree.shrink(owner, owner_bytes_max, bytes_max);
    }

    /// An array of tools, as it was read before.
    #[must_use]
    pub fn find_tools(&self, owner: Owner, raw: &str) -> Option<Arc<Tools>> {
        if raw.len() < TOOLS_BYTES_MIN || self.is_off() {
            return None;
        }
        let hash = (self.hash)(raw.as_bytes());
        let mut tree = self.tree.write().unwrap_or_else(PoisonError::into_inner);
        let node = tree.child(tree.root(owner)?, hash, raw.as_bytes())?;
        tree.used(node);
        match tree.kept(node)? {
            Kept::Tools(tools) => Some(Arc::clone(tools)),
            Kept::Nothing | Kept::History(_) => None,
        }
    }

    pub fn remember_tools(&self, owner: Owner, raw: &str, tools: &Arc<Tools>) {
        let Limits { bytes_max, owner_bytes_max } = self.limits;
        if raw.len() < TOOLS_BYTES_MIN || 3 * raw.len() + 2 * NODE_BYTES > owner_bytes_max.min(bytes_max) {
            return;
        }
        let (hash, bytes) = ((self.hash)(raw.as_bytes()), Bytes::copy_from_slice(raw.as_bytes()));
        let mut tree = self.tree.write().unwrap_or_else(PoisonError::into_inner);
        let Some(root) = tree.root_for(owner) else { return };
        let Some(node) = tree.child(root, hash, &bytes).or_else(|| tree.add(root, hash, bytes)) else { return };
        tree.keep(node, Kept::Tools(Arc::clone(tools)));
        tree.used(node);
        tree.shrink(owner, owner_bytes_max, bytes_max);
    }

    /// What it holds, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.tree.read().unwrap_or_else(PoisonError::into_inner).bytes()
    }
}

impl Found {
    #[must_use]
    pub fn known(&self) -> Known {
        self.known
    }

    /// What was rendered apart from what is known is what it would be together with it.
    fn is_followed_by(&self, rendered: &Rendered) -> bool {
        match &self.history {
            Some(history) => history.chain.is_followed_by(&rendered.piece),
            None => Chain::default().is_followed_by(&rendered.piece),
        }
    }

    /// Looks for the last place that something is kept of.
    fn go_back(&mut self, tree: &Tree, node: NodeId) {
        let mut node = Some(node);
        while let Some(at) = node {
            if let Some(Kept::History(history)) = tree.kept(at) {
                self.history = Some(Arc::clone(history));
                break;
            }
            let parent = tree.parent(at);
            self.unread.extend(parent.and(tree.bytes_of(at)).cloned());
            node = parent;
        }
        self.unread.reverse();
    }

    /// Reads the known items that no history holds, and gives the one that does. None where it was there, or where it would
    /// end within a message.
    fn catch_up(&mut self, opener: Opener<'_>) -> Result<Option<Arc<History>>, ParseError> {
        if self.unread.is_empty() {
            return Ok(None);
        }
        let mut reading = Reading::new("input", self.known.items - self.unread.len(), opener);
        for item in &self.unread {
            reading.push(raw_item(item)?, item.clone())?;
        }
        let rendered = reading.finish();
        if rendered.ends_open || rendered.ends_in_trigger || !self.is_followed_by(&rendered) {
            return Ok(None);
        }
        let history = Arc::new(self.history.take().unwrap_or_default().and(rendered, opener)?);
        self.unread.clear();
        self.history = Some(Arc::clone(&history));
        Ok(Some(history))
    }
}

impl std::fmt::Debug for Recognition {
    /// How much, never what: it is the clients' text.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recognition")
            .field("limits", &self.limits)
            .field("bytes", &self.bytes())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
