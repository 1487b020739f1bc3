//! Connections of the admin listener, and which of them are still guests: nobody knows who they are. They are never in the way of one that
//! comes: at the bound of one address, or of all, a guest is closed for it, the oldest of the address that has the most. So whoever would
//! keep operators out by holding connections, or by making them, is in the way of their own alone. Knows nothing of what proof is.

use crate::places::Network;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::task::AbortHandle;

/// Guests of one address, of IPv6 one network of 64 bits.
const GUESTS_PER_ADDRESS_MAX: usize = 16;

/// One a listener.
#[derive(Debug)]
pub(super) struct Guests(Mutex<Room<AbortHandle>>);

/// A connection's row, gone with the last task that holds it.
#[derive(Debug)]
pub(crate) struct Stay {
    guests: Arc<Guests>,
    number: u64,
}

/// What became of somebody who came.
#[derive(Debug)]
pub(super) enum Came {
    In(Stay),
    /// A guest was closed for it.
    Instead(Stay),
    /// All that are there have proven who they are.
    NoRoom,
}

impl Guests {
    pub(super) fn new(count_max: usize) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Room { count_max, rows: BTreeMap::new(), next: 0 })))
    }

    /// A connection is accepted from this address.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr) -> Came {
        let Some((number, closed)) = self.room().enter(Network::of(address)) else { return Came::NoRoom };
        let stay = Stay { guests: Arc::clone(self), number };
        let Some(task) = closed else { return Came::In(stay) };
        if let Some(task) = task {
            task.abort();
        }
        Came::Instead(stay)
    }

    fn room(&self) -> MutexGuard<'_, Room<AbortHandle>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stay {
    /// This task is to end where the guest has to leave, unless it has handed the connection on already.
    pub(super) fn begins_by(&self, task: AbortHandle) {
        match self.guests.room().rows.get_mut(&self.number) {
            Some(row) => drop(row.task.get_or_insert(task)),
            None => task.abort(),
        }
    }

    /// The connection was handed on to this task.
    pub(crate) fn goes_on_by(&self, task: AbortHandle) {
        match self.guests.room().rows.get_mut(&self.number) {
            Some(row) => row.task = Some(task),
            None => task.abort(),
        }
    }

    /// Is no guest any more.
    pub(crate) fn prove(&self) {
        if let Some(row) = self.guests.room().rows.get_mut(&self.number) {
            row.is_proven = true;
        }
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        self.guests.room().rows.remove(&self.number);
    }
}

/// By number: the oldest first.
#[derive(Debug)]
struct Room<Task> {
    count_max: usize,
    rows: BTreeMap<u64, Row<Task>>,
    next: u64,
}

#[derive(Debug)]
struct Row<Task> {
    network: Network,
    is_proven: bool,
    task: Option<Task>,
}

impl<Task> Room<Task> {
    /// Its number, and where a guest had to leave, the guest's task. None: there is no room.
    fn enter(&mut self, network: Network) -> Option<(u64, Option<Option<Task>>)> {
        let crowded = if self.guests_of(network) >= GUESTS_PER_ADDRESS_MAX {
            Some(network)
        } else if self.rows.len() >= self.count_max {
            Some(self.most_crowded()?)
        } else {
            None
        };
        let closed = crowded.and_then(|network| self.remove_oldest(network));
        let number = self.next;
        self.next += 1;
        self.rows.insert(number, Row { network, is_proven: false, task: None });
        Some((number, closed.map(|row| row.task)))
    }

    fn guests(&self) -> impl Iterator<Item = (u64, Network)> {
        self.rows.iter().filter(|(_, row)| !row.is_proven).map(|(number, row)| (*number, row.network))
    }

    fn guests_of(&self, network: Network) -> usize {
        self.guests().filter(|(_, other)| *other == network).count()
    }

    /// Where the most guests are from; of several the one with the oldest.
    fn most_crowded(&self) -> Option<Network> {
        let mut crowds = BTreeMap::new();
        for (number, network) in self.guests() {
            crowds.entry(network).or_insert((0_usize, std::cmp::Reverse(number))).0 += 1;
        }
        crowds.into_iter().max_by_key(|(_, crowd)| *crowd).map(|(network, _)| network)
    }

    fn remove_oldest(&mut self, network: Network) -> Option<Row<Task>> {
        let (number, _) = self.guests().find(|(_, other)| *other == network)?;
        self.rows.remove(&number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(last: u8) -> Network {
        Network::of(IpAddr::from([192, 0, 2, last]))
    }

    /// Who comes, by number; which number has to leave for it.
    fn come(room: &mut Room<u64>, from: Network) -> Option<Option<u64>> {
        let (number, closed) = room.enter(from)?;
        room.rows.get_mut(&number).unwrap().task = Some(number);
        Some(closed.flatten())
    }

    fn room(count_max: usize) -> Room<u64> {
        Room { count_max, rows: BTreeMap::new(), next: 0 }
    }

    #[test]
    fn an_address_at_its_bound_closes_its_own_oldest() {
        let mut room = room(64);
        let numbers = GUESTS_PER_ADDRESS_MAX as u64;
        assert_eq!(come(&mut room, network(2)), Some(None));
        assert!((0..numbers).all(|_| come(&mut room, network(1)) == Some(None)));
        assert_eq!([come(&mut room, network(1)), come(&mut room, network(1))], [Some(Some(1)), Some(Some(2))]);
        assert_eq!(room.rows.len(), GUESTS_PER_ADDRESS_MAX + 1);
    }

    #[test]
    fn in_a_full_room_the_address_with_the_most_makes_room() {
        let mut room = room(8);
        let from = [1, 2, 2, 2, 3, 3, 3, 4].map(network);
        assert!(from.into_iter().all(|from| come(&mut room, from) == Some(None)));
        // Two addresses have three; the older one of them goes, then the other.
        assert_eq!([come(&mut room, network(5)), come(&mut room, network(6))], [Some(Some(1)), Some(Some(4))]);
        assert_eq!(room.rows.len(), 8);
    }

    #[test]
    fn who_has_proven_stays_and_a_room_of_such_is_full() {
        let mut room = room(2);
        assert_eq!([come(&mut room, network(1)), come(&mut room, network(1))], [Some(None); 2]);
        room.rows.get_mut(&0).unwrap().is_proven = true;
        assert_eq!(come(&mut room, network(2)), Some(Some(1)));
        room.rows.get_mut(&2).unwrap().is_proven = true;
        assert_eq!(come(&mut room, network(3)), None);
    }
}
