//! What is known of children, by owner and id. Pure: time is passed in. Knows nothing of who runs them.

use flashlane_engine::{ChildEnded, Fate, Standing};
use flashlane_store::OwnerId;
use std::collections::{BTreeMap, BTreeSet};
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
    /// Among what may go to make room, since it has ended.
    number: Option<u64>,
}

impl Known {
    fn bytes(&self) -> usize {
        ENTRY_BYTES + self.ended.as_ref().map_or(0, |(_, text)| text.len())
    }
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

/// Ids that wait for one conversation: what turns of it have not heard of, the newest ones.
const HEIRS_MAX: usize = 256;
/// What a model is told of a child that has gone from here before it could join.
const NOT_KEPT: &str = "Its result is not kept any more.";

/// What may go to make room.
#[derive(Debug, Clone)]
enum Entry {
    /// It has ended.
    Child(Key),
    Heirs(Key),
    Dismissed(Key),
}

/// Children that wait for what goes on from one response or conversation.
#[derive(Debug)]
struct Heirs {
    ids: Arc<[Arc<str>]>,
    number: u64,
}

#[derive(Debug, Default)]
struct Holding {
    running: usize,
    /// Of what may go.
    bytes: usize,
    /// The numbers of that, the oldest first.
    order: BTreeSet<u64>,
}

#[derive(Debug)]
pub(super) struct Table {
    bytes_max: usize,
    age_ms_max: u64,
    children: BTreeMap<Key, Known>,
    families: BTreeMap<Key, Vec<Arc<str>>>,
    heirs: BTreeMap<Key, Heirs>,
    /// Children that nobody is to hear of, with their numbers.
    dismissed: BTreeMap<Key, u64>,
    owners: BTreeMap<OwnerId, Holding>,
    /// Owners by how much of theirs may go.
    heaviest: BTreeSet<(usize, OwnerId)>,
    /// What may go by its number, with since when: a child's age begins with its end.
    order: BTreeMap<u64, (u64, Entry)>,
    numbered: u64,
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
            dismissed: BTreeMap::new(),
            owners: BTreeMap::new(),
            heaviest: BTreeSet::new(),
            order: BTreeMap::new(),
            numbered: 0,
            bytes: 0,
        }
    }

    /// It is there from here on; where it may not run, as one that has failed.
    pub(super) fn begin(&mut self, owner: OwnerId, born: Born, children_max: usize, now_unix_ms: u64) -> bool {
        self.sweep(ENTRY_BYTES, now_unix_ms);
        let running = self.owners.get(&owner).map_or(0, |holding| holding.running);
        let refusal = if running >= children_max {
            Some(format!("{running} children run for this key already, and it may have no more. Try again later."))
        } else if self.bytes + ENTRY_BYTES > self.bytes_max {
            Some("This server has no room for more children. Try again later.".to_owned())
        } else {
            None
        };
        let may_run = refusal.is_none();
        let (key, family) = ((owner, Arc::clone(&born.id)), (owner, Arc::clone(&born.parent)));
        self.families.entry(family).or_default().push(Arc::clone(&born.id));
        let known = Known { born, created_unix_ms: now_unix_ms, place: Place::Nowhere, ended: None, number: None };
        self.children.insert(key.clone(), known);
        self.bytes += ENTRY_BYTES;
        self.owners.entry(owner).or_default().running += 1;
        if let Some(message) = refusal {
            self.rest(&key, Fate::Failed(message.into()), "", now_unix_ms);
        }
        may_run
    }

    pub(super) fn kept(&mut self, owner: OwnerId, id: &str, is_stored: bool) {
        if let Some(known) = self.children.get_mut(&(owner, id.into())) {
            known.place = if is_stored { Place::Store } else { Place::Memory };
        }
    }

    /// Whether it ran until now.
    pub(super) fn end(&mut self, owner: OwnerId, id: &str, (fate, text): (Fate, &str), now_unix_ms: u64) -> bool {
        let has_ended = self.rest(&(owner, id.into()), fate, text, now_unix_ms);
        self.sweep(0, now_unix_ms);
        has_ended
    }

    fn rest(&mut self, key: &Key, fate: Fate, text: &str, now_unix_ms: u64) -> bool {
        let number = self.numbered;
        let Some(known) = self.children.get_mut(key).filter(|known| known.ended.is_none()) else { return false };
        known.ended = Some((fate, text.into()));
        known.number = Some(number);
        let bytes = known.bytes();
        self.bytes += text.len();
        if let Some(holding) = self.owners.get_mut(&key.0) {
            holding.running = holding.running.saturating_sub(1);
        }
        self.keep(key.0, bytes, Entry::Child(key.clone()), now_unix_ms);
        true
    }

    /// It may go from here on: under this number, after all that may by now.
    fn keep(&mut self, owner: OwnerId, bytes: usize, entry: Entry, now_unix_ms: u64) -> u64 {
        let number = self.numbered;
        self.numbered += 1;
        self.order.insert(number, (now_unix_ms, entry));
        self.weigh(owner, |holding| {
            holding.order.insert(number);
            holding.bytes += bytes;
        });
        number
    }

    /// It is gone.
    fn lose(&mut self, owner: OwnerId, bytes: usize, number: u64) {
        self.order.remove(&number);
        self.bytes -= bytes;
        self.weigh(owner, |holding| {
            holding.order.remove(&number);
            holding.bytes = holding.bytes.saturating_sub(bytes);
        });
    }

    fn weigh(&mut self, owner: OwnerId, change: impl FnOnce(&mut Holding)) {
        let holding = self.owners.entry(owner).or_default();
        self.heaviest.remove(&(holding.bytes, owner));
        change(holding);
        if holding.bytes > 0 {
            self.heaviest.insert((holding.bytes, owner));
        } else if holding.running == 0 {
            self.owners.remove(&owner);
        }
    }

    /// One that is not known any more has failed for whoever still waits for it.
    pub(super) fn standing(&self, owner: OwnerId, ids: &[Arc<str>]) -> Standing {
        let mut standing = Standing::default();
        for id in ids {
            let key = (owner, Arc::clone(id));
            let known = self.children.get(&key);
            if self.dismissed.contains_key(&key) {
                continue;
            }
            if known.is_some_and(|known| known.ended.is_none()) {
                standing.running.push(Arc::clone(id));
                continue;
            }
            let ended = known.and_then(|known| Some((&known.born, known.ended.as_ref()?)));
            standing.ended.push(match ended {
                Some((born, (fate, text))) => ChildEnded {
                    id: Arc::clone(id),
                    name: Arc::clone(&born.name),
                    model: Arc::clone(&born.model),
                    fate: fate.clone(),
                    text: Arc::clone(text),
                },
                None => ChildEnded {
                    id: Arc::clone(id),
                    name: "".into(),
                    model: "".into(),
                    fate: Fate::Failed(NOT_KEPT.into()),
                    text: "".into(),
                },
            });
        }
        standing
    }

    pub(super) fn bequeath(&mut self, owner: OwnerId, id: &str, ids: &[Arc<str>], now_unix_ms: u64) {
        let key = (owner, Arc::from(id));
        self.disinherit(&key);
        if !ids.is_empty() {
            let ids = ids.get(ids.len().saturating_sub(HEIRS_MAX)..).unwrap_or_default().into();
            self.bytes += ENTRY_BYTES;
            let number = self.keep(owner, ENTRY_BYTES, Entry::Heirs(key.clone()), now_unix_ms);
            self.heirs.insert(key, Heirs { ids, number });
        }
        self.sweep(0, now_unix_ms);
    }

    /// What waits for a conversation after one of its turns: others may have ended beside that, and left it theirs. `settled` are those that the
    /// turn has nothing to wait for any more.
    pub(super) fn bequeath_to_all(
        &mut self,
        owner: OwnerId,
        conversation: &str,
        (ids, settled): (&[Arc<str>], &[Arc<str>]),
        now_unix_ms: u64,
    ) {
        let mut waiting = self.heirs(owner, conversation);
        waiting.retain(|id| !settled.contains(id) && !ids.contains(id));
        waiting.extend_from_slice(ids);
        self.bequeath(owner, conversation, &waiting, now_unix_ms);
    }

    fn disinherit(&mut self, key: &Key) {
        if let Some(heirs) = self.heirs.remove(key) {
            self.lose(key.0, ENTRY_BYTES, heirs.number);
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

    /// It is not there any more, and joins nobody. Whether it was there.
    pub(super) fn dismiss(&mut self, owner: OwnerId, id: &str, now_unix_ms: u64) -> bool {
        let was_there = self.forget(owner, id);
        if was_there {
            let key = (owner, Arc::from(id));
            self.bytes += ENTRY_BYTES;
            let number = self.keep(owner, ENTRY_BYTES, Entry::Dismissed(Key::clone(&key)), now_unix_ms);
            self.dismissed.insert(key, number);
            self.sweep(0, now_unix_ms);
        }
        was_there
    }

    fn forget(&mut self, owner: OwnerId, id: &str) -> bool {
        let key = (owner, Arc::from(id));
        let Some(known) = self.children.remove(&key) else { return false };
        match known.number {
            Some(number) => self.lose(owner, known.bytes(), number),
            None => {
                self.bytes -= ENTRY_BYTES;
                self.weigh(owner, |holding| holding.running = holding.running.saturating_sub(1));
            }
        }
        let family = (owner, known.born.parent);
        if let Some(ids) = self.families.get_mut(&family) {
            ids.retain(|of| *of != key.1);
            if ids.is_empty() {
                self.families.remove(&family);
            }
        }
        true
    }

    /// Makes room for `more`: what is too old goes; and as long as there is too much, the oldest of the owner that has the most. What runs stays.
    fn sweep(&mut self, more: usize, now_unix_ms: u64) {
        while let Some((&number, (since_unix_ms, _))) = self.order.first_key_value()
            && now_unix_ms.saturating_sub(*since_unix_ms) >= self.age_ms_max
        {
            self.drop_entry(number);
        }
        while self.bytes + more > self.bytes_max
            && let Some((_, owner)) = self.heaviest.last()
            && let Some(&number) = self.owners.get(owner).and_then(|holding| holding.order.first())
        {
            self.drop_entry(number);
        }
    }

    fn drop_entry(&mut self, number: u64) {
        match self.order.remove(&number) {
            Some((_, Entry::Child((owner, id)))) => drop(self.forget(owner, &id)),
            Some((_, Entry::Heirs(key))) => self.disinherit(&key),
            Some((_, Entry::Dismissed(key))) => {
                self.dismissed.remove(&key);
                self.lose(key.0, ENTRY_BYTES, number);
            }
            None => {}
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
        assert!(table.end(ME, "a", (Fate::Completed, "x"), 0));
        assert!(!table.end(ME, "a", (Fate::Cancelled, "y"), 0), "it ends once");
        assert!(table.begin(ME, born("d"), 1, 0));
    }

    #[test]
    fn who_has_ended_joins_and_who_runs_goes_on_waiting() {
        let mut table = Table::new(1 << 20, 1000);
        ["a", "b"].iter().for_each(|id| assert!(table.begin(ME, born(id), 9, 0)));
        table.end(ME, "b", (Fate::Failed("no".into()), ""), 0);
        let standing = table.standing(ME, &ids(&["a", "b", "gone"]));
        assert_eq!((standing.ended.len(), standing.running), (2, ids(&["a"])));
        assert_eq!(standing.ended[1].fate, Fate::Failed(NOT_KEPT.into()), "it joins as one that has failed");
        assert_eq!(table.standing(OwnerId([2; 32]), &ids(&["b"])).ended[0].text, "".into(), "another's is not there");
        assert!(table.dismiss(ME, "b", 0) && !table.dismiss(ME, "b", 0));
        assert_eq!(table.standing(ME, &ids(&["b"])).ended, [], "what its client deletes joins nobody");
    }

    #[test]
    fn the_oldest_that_has_ended_makes_room_and_age_ends_the_rest() {
        let mut table = Table::new(3 * ENTRY_BYTES + 100, 1000);
        ["a", "b", "c"].iter().for_each(|id| assert!(table.begin(ME, born(id), 9, 0)));
        assert!(!table.begin(ME, born("d"), 9, 0), "what runs makes no room");
        assert!(table.forget(ME, "d"));
        table.end(ME, "b", (Fate::Completed, &"x".repeat(60)), 0);
        table.end(ME, "c", (Fate::Completed, &"x".repeat(60)), 0);
        assert_eq!(names(&table.of(ME, "p")), ["a", "c"], "120 bytes are too many");
        table.bequeath(ME, "p", &ids(&["a"]), 500);
        assert_eq!(table.heirs(ME, "p"), ids(&["a"]));
        table.sweep(0, 1_400);
        assert_eq!(names(&table.of(ME, "p")), ["a"], "what is old goes, and what runs stays");
        table.end(ME, "a", (Fate::Completed, ""), 1_400);
        table.sweep(0, 2_399);
        assert_eq!(names(&table.of(ME, "p")), ["a"], "it is as old as its end");
        table.sweep(0, 2_400);
        assert!(table.children.is_empty() && table.families.is_empty() && table.owners.is_empty());
        assert!(table.heirs.is_empty() && table.order.is_empty() && table.heaviest.is_empty());
        assert_eq!(table.bytes, 0);
    }

    #[test]
    fn who_has_the_most_makes_room_first() {
        let other = OwnerId([2; 32]);
        let mut table = Table::new(10 * ENTRY_BYTES, 1000);
        assert!(table.begin(ME, born("mine"), 1, 0));
        table.end(ME, "mine", (Fate::Completed, "x"), 0);
        for n in 0..100 {
            table.begin(other, born(&format!("n{n}")), 1, 1);
        }
        assert_eq!(table.standing(ME, &ids(&["mine"])).ended[0].text, "x".into());
        assert!(table.bytes <= 10 * ENTRY_BYTES && table.order.len() < 10, "{}", table.bytes);
        assert_eq!(table.standing(other, &ids(&["n0"])).running, ids(&["n0"]), "what runs stays");
    }

    #[test]
    fn what_is_deleted_or_left_again_and_again_does_not_pile_up() {
        let mut table = Table::new(10 * ENTRY_BYTES, 1000);
        for n in 0..100 {
            let id = format!("n{n}");
            assert!(table.begin(ME, born(&id), 1, 0) && table.dismiss(ME, &id, 0));
            table.bequeath(ME, "conv", &ids(&["a"]), 0);
        }
        assert!(table.order.len() <= 10 && table.dismissed.len() < 10, "{table:?}");
        assert_eq!(table.heirs(ME, "conv"), ids(&["a"]), "the one that came last is the last to go");
        table.sweep(0, 1000);
        assert!(table.bytes == 0 && table.dismissed.is_empty() && table.owners.is_empty());
    }

    #[test]
    fn turns_of_one_conversation_that_run_at_once_leave_it_each_its_own() {
        let mut table = Table::new(1 << 20, 1000);
        table.bequeath_to_all(ME, "conv", (&ids(&["a", "b"]), &[]), 0);
        table.bequeath_to_all(ME, "conv", (&[], &[]), 0);
        assert_eq!(table.heirs(ME, "conv"), ids(&["a", "b"]), "it began before they were there");
        table.bequeath_to_all(ME, "conv", (&ids(&["b", "c"]), &ids(&["a"])), 0);
        assert_eq!(table.heirs(ME, "conv"), ids(&["b", "c"]));
        table.bequeath_to_all(ME, "conv", (&[], &ids(&["b", "c"])), 0);
        assert!(table.heirs(ME, "conv").is_empty() && table.bytes == 0);
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
