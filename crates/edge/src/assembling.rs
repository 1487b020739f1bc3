//! The bytes of WebSocket messages and request bodies that have begun to come and are not whole, of all connections together: each alone is
//! bounded by its own limit, and there are many of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What bodies may be together while memory runs short: this part of all. Those of open connections are small, mostly, and go on.
const SCARCE_SHARE: usize = 16;

#[derive(Debug)]
pub(crate) struct Assembling {
    bytes: AtomicUsize,
    bytes_max: usize,
}

impl Assembling {
    pub(crate) fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { bytes: AtomicUsize::new(0), bytes_max })
    }

    /// One connection's part, of nothing yet.
    pub(crate) fn part(self: &Arc<Self>) -> Part {
        self.part_of(self.bytes_max)
    }

    /// The same while memory runs short.
    pub(crate) fn scarce_part(self: &Arc<Self>) -> Part {
        self.part_of(self.bytes_max / SCARCE_SHARE)
    }

    fn part_of(self: &Arc<Self>, bytes_max: usize) -> Part {
        Part { all: Arc::clone(self), bytes: 0, bytes_max }
    }
}

/// What one connection holds; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Part {
    all: Arc<Assembling>,
    bytes: usize,
    /// All of them together may be as many when this one grows.
    bytes_max: usize,
}

impl Part {
    /// Tells how much it is now, and whether all of them together may be that much.
    pub(crate) fn set(&mut self, bytes: usize) -> bool {
        let before = std::mem::replace(&mut self.bytes, bytes);
        if bytes <= before {
            self.all.bytes.fetch_sub(before - bytes, Ordering::Relaxed);
            return true;
        }
        let more = bytes - before;
        self.all.bytes.fetch_add(more, Ordering::Relaxed) + more <= self.bytes_max
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.all.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_together_are_bounded_and_what_one_gives_back_another_may_have() {
        let all = Assembling::new(100);
        let (mut one, mut other) = (all.part(), all.part());
        assert!(one.set(60) && other.set(40));
        assert!(!other.set(41));
        assert!(one.set(0) && other.set(100));
        drop(other);
        assert!(one.set(100));
        assert!(!one.set(101));
    }

    #[test]
    fn while_memory_runs_short_a_sixteenth_may_begin_to_come() {
        let all = Assembling::new(160);
        let (mut scarce, mut other) = (all.scarce_part(), all.part());
        assert!(scarce.set(10));
        assert!(!scarce.set(11) && scarce.set(5));
        assert!(other.set(155) && !scarce.set(6));
    }
}
