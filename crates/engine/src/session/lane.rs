//! The lanes of a connection: each runs one turn at a time and remembers its own chains; lanes run beside each other. A child of a response
//! has a lane of its own, for as long as it runs.
//!
//! Knows which request is next; not what a request is.

use super::TurnId;
use super::fan_out::{Fork, Kinship};
use super::handover::Readings;
use super::steer::Steer;
use crate::chain::Chain;
use crate::draft::Draft;
use crate::error::{ErrorKind, Refusal};
use crate::fleet::EndpointId;
use crate::stages::Arrival;
use crate::turn::Turn;
use std::collections::VecDeque;
use std::sync::Arc;

/// Longest name of a lane, in bytes.
const NAME_BYTES_MAX: usize = 256;

/// A lane of one connection. The default lane has no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(super) struct LaneId(u8);

/// One lane: FIFO, one turn at a time.
#[derive(Debug, Default)]
pub(super) struct Lane {
    name: Option<Arc<str>>,
    pub running: Option<Box<Turn>>,
    queued: VecDeque<Queued>,
    memory: VecDeque<Remembered>,
    /// Accepted, and not yet part of a turn.
    pub steers: Vec<Steer>,
    /// It runs a child of another lane's response, and nothing else.
    pub kinship: Option<Box<Kinship>>,
    /// Where chains may be read ahead: who has read what of the last response's.
    pub readings: Option<Box<Readings>>,
}

/// A request that waits for its turn.
#[derive(Debug)]
pub(super) struct Queued {
    /// In the order of arrival, over all lanes.
    number: u64,
    weight: usize,
    /// None: nobody sent it.
    pub arrival: Option<Arrival>,
    /// A wrong request is told of at its place.
    pub draft: Result<Draft, Refusal>,
    /// What a wrong one would have gone on from.
    pub previous: Option<String>,
    /// It was made by steers, and not by a client's request.
    pub succession: Option<Succession>,
    /// It is a child's.
    pub fork: Option<Box<Fork>>,
}

/// How a response goes on that was steered.
#[derive(Debug)]
pub(super) struct Succession {
    pub steers: Vec<Steer>,
    /// Where its parent was served.
    pub prefer: Option<EndpointId>,
    /// The next number of its parent's events.
    pub sequence: u64,
}

/// A successor that its client has not heard of: more steers may join it.
pub(super) struct Unannounced<'a> {
    pub steers: &'a mut Vec<Steer>,
    pub sequence: &'a mut u64,
    pub model: &'a Arc<str>,
}

/// A response that can be gone on from.
#[derive(Debug)]
pub(super) struct Remembered {
    pub id: String,
    pub chain: Chain,
    pub warm_up: bool,
}

impl Lane {
    /// The latest response, and the last few warm-ups, can be gone on from.
    pub fn remember(&mut self, response: Remembered, warm_ups_max: usize) {
        if !response.warm_up {
            self.memory.retain(|known| known.warm_up);
        }
        self.memory.push_back(response);
        while self.memory.len() > warm_ups_max + 1 {
            let oldest_warm_up = self.memory.iter().position(|known| known.warm_up);
            self.memory.remove(oldest_warm_up.unwrap_or(0));
        }
    }

    /// A turn of this lane that went on from `id` has failed.
    pub fn forget(&mut self, id: &str) {
        self.memory.retain(|known| known.id != id);
    }

    /// Takes what waits in it.
    pub fn drain(&mut self) -> impl Iterator<Item = Queued> {
        std::mem::take(&mut self.queued).into_iter()
    }

    /// Whether a turn runs in it, or will.
    pub fn is_at_work(&self) -> bool {
        self.running.is_some() || !self.queued.is_empty()
    }

    pub fn knows(&self, id: &str) -> bool {
        self.memory.iter().any(|known| known.id == id)
    }

    /// The successor of that response. It begins as soon as that has ended, so it is running.
    pub fn successor_of(&mut self, parent: &str) -> Option<Unannounced<'_>> {
        let turn = self.running.as_deref_mut().filter(|turn| turn.is_unannounced())?;
        let is_of_parent = turn.previous() == Some(parent);
        let sequence = turn.parent_sequence.as_mut().filter(|_| is_of_parent)?;
        Some(Unannounced { steers: &mut turn.steers, sequence, model: &turn.draft.model })
    }

    /// Whether nothing runs in it, and nothing waits.
    pub fn is_free(&self) -> bool {
        self.running.is_none() && self.queued.is_empty()
    }

    fn may_start(&self) -> Option<u64> {
        if self.running.is_some() {
            return None;
        }
        self.queued.front().map(|queued| queued.number)
    }
}

/// All lanes of one connection; the first is the default lane.
#[derive(Debug)]
pub(super) struct Lanes {
    lanes: Vec<Lane>,
    arrived: u64,
    queued_bytes: usize,
}

impl Default for Lanes {
    fn default() -> Self {
        Self { lanes: vec![Lane::default()], arrived: 0, queued_bytes: 0 }
    }
}

impl Lanes {
    /// The lane of that name, which is opened where it is new.
    pub fn named(&mut self, name: Option<&str>, lanes_max: usize) -> Result<LaneId, Refusal> {
        let Some(name) = name else { return Ok(LaneId::default()) };
        if let Some((lane, id)) = self.lanes.iter().zip(0u8..).find(|(lane, _)| lane.name.as_deref() == Some(name)) {
            return match lane.kinship {
                None => Ok(LaneId(id)),
                Some(_) => {
                    let message = format!("The lane '{name}' is that of a child that runs: it takes no requests.");
                    Err(Refusal::new(ErrorKind::InvalidStreamId, message).with_param("stream_id"))
                }
            };
        }
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(is_plain) {
            let message = format!(
                "Invalid 'stream_id': it has 1 to {NAME_BYTES_MAX} characters, of letters, digits, '_', '.' and '-'."
            );
            return Err(Refusal::new(ErrorKind::InvalidStreamId, message).with_param("stream_id"));
        }
        // Neither the default lane counts, nor do those of children.
        let used = self.lanes.iter().filter(|lane| lane.name.is_some() && lane.kinship.is_none()).count();
        let opened = if used < lanes_max { self.open(name.into(), None) } else { None };
        opened.ok_or_else(|| {
            let message = format!(
                "This connection has used {lanes_max} named lanes, and it may have no more. Use one of them, or another connection."
            );
            Refusal::new(ErrorKind::TooManyLanes, message).with_param("stream_id")
        })
    }

    pub fn is_used(&self, name: &str) -> bool {
        self.lanes.iter().any(|lane| lane.name.as_deref() == Some(name))
    }

    /// Opens a lane, in the place of one that was given back where there is such. None: there are as many as can be.
    pub fn open(&mut self, name: Arc<str>, kinship: Option<Box<Kinship>>) -> Option<LaneId> {
        let is_free = |(lane, _): &(&Lane, u8)| lane.name.is_none();
        let free = self.lanes.iter().zip(0u8..).skip(1).find(is_free).map(|(_, id)| id);
        let id = free.or_else(|| {
            let id = u8::try_from(self.lanes.len()).ok()?;
            self.lanes.push(Lane::default());
            Some(id)
        })?;
        let lane = self.lanes.get_mut(usize::from(id))?;
        *lane = Lane { name: Some(name), kinship, ..Lane::default() };
        Some(LaneId(id))
    }

    /// The lane's child has ended: it has no name any more, and remembers nothing.
    pub fn give_back(&mut self, id: LaneId) {
        if let Some(lane) = self.lane(id) {
            *lane = Lane::default();
        }
    }

    /// The child that a lane runs.
    pub fn kinship(&self, id: LaneId) -> Option<(&Arc<str>, &Kinship)> {
        let lane = self.lanes.get(usize::from(id.0))?;
        Some((lane.name.as_ref()?, lane.kinship.as_deref()?))
    }

    /// How many run children.
    pub fn children(&self) -> usize {
        self.lanes.iter().filter(|lane| lane.kinship.is_some()).count()
    }

    pub fn count(&self) -> usize {
        self.lanes.len()
    }

    pub fn name(&self, id: LaneId) -> Option<&str> {
        self.lanes.get(usize::from(id.0))?.name.as_deref()
    }

    pub fn lane(&mut self, id: LaneId) -> Option<&mut Lane> {
        self.lanes.get_mut(usize::from(id.0))
    }

    /// The running turn of that id.
    ///
    /// hot: per token
    pub fn turn(&mut self, id: TurnId) -> Option<&mut Turn> {
        let running = self.lanes.get_mut(usize::from(id.lane.0))?.running.as_deref_mut();
        running.filter(|turn| turn.id == id)
    }

    pub fn running(&self) -> impl Iterator<Item = &Turn> {
        self.lanes.iter().filter_map(|lane| lane.running.as_deref())
    }

    pub fn running_mut(&mut self) -> impl Iterator<Item = &mut Turn> {
        self.lanes.iter_mut().filter_map(|lane| lane.running.as_deref_mut())
    }

    /// Whether nothing runs and nothing waits.
    pub fn is_quiet(&self) -> bool {
        self.lanes.iter().all(Lane::is_free)
    }

    /// What a client can go on from: its own lane's memory first, then that of another, which makes a fork.
    pub fn chain(&self, lane: LaneId, id: &str) -> Option<&Chain> {
        let own = self.lanes.get(usize::from(lane.0));
        let known = own.into_iter().chain(&self.lanes).flat_map(|lane| &lane.memory).find(|known| known.id == id)?;
        Some(&known.chain)
    }

    pub fn knows(&self, id: &str) -> bool {
        self.lanes.iter().any(|lane| lane.knows(id))
    }

    /// The lane in which that response is about to have a successor.
    pub fn succeeding(&mut self, parent: &str) -> Option<LaneId> {
        let mut lanes = self.lanes.iter_mut().zip(0u8..);
        lanes.find_map(|(lane, id)| lane.successor_of(parent).is_some().then_some(LaneId(id)))
    }

    /// Requests that wait. Those of children were let in with their parent's.
    pub fn queued(&self) -> usize {
        self.lanes.iter().filter(|lane| lane.kinship.is_none()).map(|lane| lane.queued.len()).sum()
    }

    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// What steers hold that wait, in bytes.
    pub fn steer_bytes(&self) -> usize {
        let queued = self.lanes.iter().flat_map(|lane| &lane.queued);
        let queued = queued.filter_map(|queued| queued.succession.as_ref()).flat_map(|succession| &succession.steers);
        let running = self.running().flat_map(|turn| &turn.steers);
        let accepted = self.lanes.iter().flat_map(|lane| &lane.steers);
        accepted.chain(queued).chain(running).map(Steer::weight).sum()
    }

    /// Puts a request at the end of its lane.
    pub fn push(&mut self, lane: LaneId, draft: Result<Draft, Refusal>, previous: Option<String>, arrival: Arrival) {
        self.arrived += 1;
        let weight = draft.as_ref().map_or(0, Draft::weight);
        let arrival = Some(arrival);
        let queued = Queued { number: self.arrived, weight, arrival, draft, previous, succession: None, fork: None };
        if let Some(lane) = self.lanes.get_mut(usize::from(lane.0)) {
            self.queued_bytes += weight;
            lane.queued.push_back(queued);
        }
    }

    /// Puts the request that steers made before all that waits in its lane.
    pub fn push_successor(&mut self, lane: LaneId, draft: Draft, succession: Succession) {
        let succession = Some(succession);
        let fork = None;
        let queued = Queued { number: 0, weight: 0, arrival: None, draft: Ok(draft), previous: None, succession, fork };
        if let Some(lane) = self.lanes.get_mut(usize::from(lane.0)) {
            lane.queued.push_front(queued);
        }
    }

    /// Puts a child's request into its lane.
    pub fn push_child(&mut self, lane: LaneId, draft: Draft, fork: Fork, arrival: Arrival) {
        self.arrived += 1;
        let (number, arrival, fork) = (self.arrived, Some(arrival), Some(Box::new(fork)));
        let queued = Queued { number, weight: 0, arrival, draft: Ok(draft), previous: None, succession: None, fork };
        if let Some(lane) = self.lanes.get_mut(usize::from(lane.0)) {
            lane.queued.push_back(queued);
        }
    }

    /// The request that came first of those whose lane is free, unless `running_max` turns run. One that waits for its children does not
    /// count: it would keep them from running.
    pub fn pop(&mut self, running_max: usize) -> Option<(LaneId, Queued)> {
        if self.running().filter(|turn| !turn.is_gathering()).count() >= running_max {
            return None;
        }
        let free = self.lanes.iter_mut().zip(0u8..).filter_map(|(lane, id)| Some((lane.may_start()?, id, lane)));
        let (_, id, lane) = free.min_by_key(|(number, ..)| *number)?;
        let queued = lane.queued.pop_front()?;
        self.queued_bytes -= queued.weight;
        Some((LaneId(id), queued))
    }

    /// Drops all that waits.
    pub fn clear(&mut self) {
        for lane in &mut self.lanes {
            lane.queued.clear();
            lane.steers.clear();
            lane.kinship = None;
        }
        self.queued_bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused() -> Result<Draft, Refusal> {
        Err(Refusal::new(ErrorKind::InvalidJson, "no"))
    }

    #[test]
    fn a_name_is_a_lane_as_long_as_there_is_room() {
        let mut lanes = Lanes::default();
        assert_eq!(lanes.named(None, 2), Ok(LaneId(0)));
        assert_eq!(lanes.named(Some("a"), 2), Ok(LaneId(1)));
        assert_eq!(lanes.named(Some("B.-_9"), 2), Ok(LaneId(2)));
        assert_eq!(lanes.named(Some("a"), 2), Ok(LaneId(1)));
        assert_eq!(lanes.named(Some("c"), 2).map_err(|refusal| refusal.kind), Err(ErrorKind::TooManyLanes));
        for name in ["", "a b", "ä", "a\"", &"x".repeat(257)] {
            assert_eq!(lanes.named(Some(name), 9).map_err(|refusal| refusal.kind), Err(ErrorKind::InvalidStreamId));
        }
        assert!(lanes.named(Some(&"x".repeat(256)), 9).is_ok());
    }

    #[test]
    fn requests_start_in_the_order_they_came_in_where_their_lane_is_free() {
        let mut lanes = Lanes::default();
        let a = lanes.named(Some("a"), 9).unwrap();
        for lane in [a, LaneId(0), a, LaneId(0)] {
            lanes.push(lane, refused(), None, Arrival::default());
        }
        let order: Vec<_> = std::iter::from_fn(|| lanes.pop(16)).map(|(lane, _)| lane).collect();
        assert_eq!(order, [a, LaneId(0), a, LaneId(0)]);
        lanes.push(a, refused(), None, Arrival::default());
        assert!(lanes.pop(0).is_none(), "nothing starts beside as many as may run");
        assert_eq!((lanes.queued(), lanes.is_quiet()), (1, false));
    }
}
