//! What is known of children, by owner and id. Pure: time is passed in. Knows nothing of who runs them.

use flashlane_engine::{ChildEnded, Fate, Standing};
use flashlane_store::OwnerId;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// What an entry takes beside its texts, in bytes: this bounds their number.
const ENTRY_BYTES: usize = 1024;

/// A child as it begins.
#[derive(Debug, Clone)]
pub(crate) struct Born {
    pub(crate) id: Arc<str>,
    pub(crate) name: Arc<str>,
    pub(crate) model: Arc<str>,
    pub(crate) parent: Arc<str>,
}

/// A child as it stands.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) born: Born,
    pub(crate) created_unix_ms: u64,
    pub(crate) place: Place,
    /// None: it runs.
    pub(crate) ended: Option<(Fate, Arc<str>)>,
}

/// Where its response is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Not yet, or never.
    Nowhere,
    Memory,
    Store,
}

type Key = (OwnerId, Arc<str>);

#[derive(Debug, Clone)]
enum Entry {
    Child(Key),
    Heirs(Key),
}

/// Children that wait for what goes on from one response or conversation.
#[derive(Debug)]
struct Heirs {
    ids: Arc<[Arc<str>]>,
    since_unix_ms: u64,
}

#[derive(Debug)]
pub(super) struct Table {
    bytes_max: usize,
    age_ms_max: u64,
    children: BTreeMap<Key, Known>,
    families: BTreeMap<Key, Vec<Arc<str>>>,
    heirs: BTreeMap<Key, Heirs>,
    running: BTreeMap<OwnerId, usize>,
    /// By age, with when each came; what is gone from its map is passed over.
    order: VecDeque<(u64, Entry)>,
    bytes: usize,
}

impl Table {
    pub(super) fn new(bytes_max: usize, age_ms_max: u64) -> Self {
        Self {
            bytes_max,
            age_ms_max,
            children: BTreeMap::new(),
            families: BTreeMap::new(),
            heirs: BTreeMap::new(),
            running: BTreeMap::new(),
            order: VecDeque::new(),
            bytes: 0,
        }
    }

    /// It is there from here on; where it may not run, as one that has failed.
    pub(super) fn begin(&mut self, owner: OwnerId, born: Born, children_max: usize, now_unix_ms: u64) -> bool {
        self.sweep(now_unix_ms);
        let running = self.running.get(&owner).copied().unwrap_or_default();
        let refusal = if running >= children_max {
            Some(format!("{running} children run for this key already, and it may have no more. Try again later."))
        } else if self.bytes + ENTRY_BYTES > self.bytes_max {
            Some("This server has no room for more children. Try again later.".to_owned())
        } else {
            None
        };
        let may_run = refusal.is_none();
        if may_run {
            *self.running.entry(owner).or_default() += 1;
        }
        let ended = refusal.map(|message| (Fate::Failed(message.into()), "".into()));
        let (key, family) = ((owner, Arc::clone(&born.id)), (owner, Arc::clone(&born.parent)));
        self.families.entry(family).or_default().push(Arc::clone(&born.id));
        let known = Known { born, created_unix_ms: now_unix_ms, place: Place::Nowhere, ended };
        self.children.insert(key.clone(), known);
        self.order.push_back((now_unix_ms, Entry::Child(key)));
        self.bytes += ENTRY_BYTES;
        may_run
    }

    pub(super) fn kept(&mut self, owner: OwnerId, id: &str, is_stored: bool) {
        if let Some(known) = self.children.get_mut(&(owner, id.into())) {
            known.place = if is_stored { Place::Store } else { Place::Memory };
        }
    }

    /// Whether it ran until now.
    pub(super) fn end(&mut self, owner: OwnerId, id: &str, fate: Fate, text: &str) -> bool {
        let Some(known) = self.children.get_mut(&(owner, id.into())).filter(|known| known.ended.is_none()) else {
            return false;
        };
        let now_unix_ms = known.created_unix_ms;
        known.ended = Some((fate, text.into()));
        self.bytes += text.len();
        self.rests(owner);
        self.sweep(now_unix_ms);
        true
    }

    fn rests(&mut self, owner: OwnerId) {
        if let Some(running) = self.running.get_mut(&owner) {
            *running = running.saturating_sub(1);
            if *running == 0 {
                self.running.remove(&owner);
            }
        }
    }

    pub(super) fn standing(&self, owner: OwnerId, ids: &[Arc<str>]) -> Standing {
        let mut standing = Standing::default();
        for id in ids {
            match self.children.get(&(owner, Arc::clone(id))) {
                None => {}
                Some(Known { ended: None, .. }) => standing.running.push(Arc::clone(id)),
                Some(Known { born, ended: Some((fate, text)), .. }) => standing.ended.push(ChildEnded {
                    id: Arc::clone(id),
                    name: Arc::clone(&born.name),
                    model: Arc::clone(&born.model),
                    fate: fate.clone(),
                    text: Arc::clone(text),
                }),
            }
        }
        standing
    }

    pub(super) fn bequeath(&mut self, owner: OwnerId, id: &str, ids: &[Arc<str>], now_unix_ms: u64) {
        let key = (owner, id.into());
        if self.heirs.remove(&key).is_some() {
            self.bytes -= ENTRY_BYTES;
        }
        self.sweep(now_unix_ms);
        if !ids.is_empty() {
            self.heirs.insert(key.clone(), Heirs { ids: ids.into(), since_unix_ms: now_unix_ms });
            self.order.push_back((now_unix_ms, Entry::Heirs(key)));
            self.bytes += ENTRY_BYTES;
        }
    }

    pub(super) fn heirs(&self, owner: OwnerId, id: &str) -> Vec<Arc<str>> {
        self.heirs.get(&(owner, id.into())).map(|heirs| heirs.ids.to_vec()).unwrap_or_default()
    }

    pub(super) fn known(&self, owner: OwnerId, id: &str) -> Option<Known> {
        self.children.get(&(owner, id.into())).cloned()
    }

    pub(super) fn of(&self, owner: OwnerId, parent: &str) -> Vec<Known> {
        let ids = self.families.get(&(owner, parent.into())).into_iter().flatten();
        ids.filter_map(|id| self.children.get(&(owner, Arc::clone(id))).cloned()).collect()
    }

    pub(super) fn forget(&mut self, owner: OwnerId, id: &str) -> bool {
        let key = (owner, id.into());
        let Some(Known { born, ended, .. }) = self.children.remove(&key) else { return false };
        self.bytes -= ENTRY_BYTES;
        match ended {
            Some((_, text)) => self.bytes -= text.len(),
            None => self.rests(owner),
        }
        let family = (owner, born.parent);
        if let Some(ids) = self.families.get_mut(&family) {
            ids.retain(|of| *of != key.1);
            if ids.is_empty() {
                self.families.remove(&family);
            }
        }
        true
    }

    /// Makes room: what is too old goes, and the oldest as long as there is too much. What runs stays.
    fn sweep(&mut self, now_unix_ms: u64) {
        for _ in 0..self.order.len() {
            let Some((since_unix_ms, entry)) = self.order.front() else { return };
            let is_old = now_unix_ms.saturating_sub(*since_unix_ms) >= self.age_ms_max;
            if !is_old && self.bytes <= self.bytes_max {
                return;
            }
            let (since_unix_ms, entry) = (*since_unix_ms, entry.clone());
            self.order.pop_front();
            match entry {
                Entry::Child((owner, id)) => match self.children.get(&(owner, Arc::clone(&id))) {
                    Some(known) if known.ended.is_none() => {
                        self.order.push_back((since_unix_ms, Entry::Child((owner, id))));
                    }
                    Some(_) => drop(self.forget(owner, &id)),
                    None => {}
                },
                Entry::Heirs(key) => {
                    let is_that = self.heirs.get(&key).is_some_and(|heirs| heirs.since_unix_ms == since_unix_ms);
                    if is_that && self.heirs.remove(&key).is_some() {
                        self.bytes -= ENTRY_BYTES;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: OwnerId = OwnerId([1; 32]);

    fn born(id: &str) -> Born {
        Born { id: id.into(), name: id.into(), model: "m".into(), parent: "p".into() }
    }

    fn ids(of: &[&str]) -> Vec<Arc<str>> {
        of.iter().map(|&id| id.into()).collect()
    }

    fn names(of: &[Known]) -> Vec<&str> {
        of.iter().map(|known| &*known.born.name).collect()
    }

    #[test]
    fn as_many_run_for_an_owner_as_may_and_another_owner_has_its_own() {
        let mut table = Table::new(1 << 20, 1000);
        assert!(table.begin(ME, born("a"), 1, 0));
        assert!(!table.begin(ME, born("b"), 1, 0));
        assert!(table.begin(OwnerId([2; 32]), born("c"), 1, 0));
        assert_eq!(names(&table.of(ME, "p")), ["a", "b"], "who was refused is told of as one that failed");
        assert!(table.end(ME, "a", Fate::Completed, "x"));
        assert!(!table.end(ME, "a", Fate::Cancelled, "y"), "it ends once");
        assert!(table.begin(ME, born("d"), 1, 0));
    }

    #[test]
    fn who_has_ended_joins_and_who_runs_goes_on_waiting() {
        let mut table = Table::new(1 << 20, 1000);
        ["a", "b"].iter().for_each(|id| assert!(table.begin(ME, born(id), 9, 0)));
        table.end(ME, "b", Fate::Failed("no".into()), "");
        let standing = table.standing(ME, &ids(&["a", "b", "gone"]));
        assert_eq!((standing.ended.len(), standing.running), (1, ids(&["a"])));
        assert_eq!(table.standing(OwnerId([2; 32]), &ids(&["b"])).ended, [], "another's are not there");
    }

    #[test]
    fn the_oldest_that_has_ended_makes_room_and_age_ends_the_rest() {
        let mut table = Table::new(3 * ENTRY_BYTES + 100, 1000);
        ["a", "b", "c"].iter().for_each(|id| assert!(table.begin(ME, born(id), 9, 0)));
        assert!(!table.begin(ME, born("d"), 9, 0), "what runs makes no room");
        assert!(table.forget(ME, "d"));
        table.end(ME, "b", Fate::Completed, &"x".repeat(60));
        table.end(ME, "c", Fate::Completed, &"x".repeat(60));
        assert_eq!(names(&table.of(ME, "p")), ["a", "c"], "120 bytes are too many");
        table.bequeath(ME, "p", &ids(&["a"]), 500);
        assert_eq!(table.heirs(ME, "p"), ids(&["a"]));
        table.sweep(1_400);
        assert_eq!(names(&table.of(ME, "p")), ["a"], "what is old goes, and what runs stays");
        table.end(ME, "a", Fate::Completed, "");
        table.sweep(2_000);
        assert!(table.children.is_empty() && table.families.is_empty() && table.running.is_empty());
        assert!(table.heirs.is_empty() && table.order.is_empty());
        assert_eq!(table.bytes, 0);
    }

    #[test]
    fn a_conversation_has_the_heirs_that_it_was_given_last() {
        let mut table = Table::new(1 << 20, 1000);
        table.bequeath(ME, "conv", &ids(&["a"]), 0);
        table.bequeath(ME, "conv", &ids(&["b"]), 0);
        assert_eq!(table.heirs(ME, "conv"), ids(&["b"]));
        table.bequeath(ME, "conv", &[], 0);
        assert!(table.heirs(ME, "conv").is_empty());
        assert_eq!(table.bytes, 0);
    }
}
