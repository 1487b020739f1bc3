//! How many connections and TLS handshakes each client address has, and all together. A pure machine: `now` is passed in. An address
//! of IPv6 is known by its first 64 bits, since whoever has one has all that begin so. Knows nothing of sockets, and of no proxy.
//!
//! Its size is bounded without a limit of its own: an address stays while it has connections, of which there are no more than
//! `connections_max`, and a second longer while its rate is remembered, of which there are no more than handshakes in a second.

use flashlane_telemetry::label::Excess;
use std::collections::BTreeMap;
use std::net::IpAddr;

const SECOND_NS: u64 = 1_000_000_000;

/// Most of each; None: any number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Most {
    pub(super) connections: Option<u32>,
    pub(super) handshakes: Handshakes,
    pub(super) address_handshakes: Handshakes,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Handshakes {
    /// Begun and not over.
    pub(super) waiting: Option<u32>,
    /// As many may come at once after a second's rest.
    pub(super) per_second: Option<u32>,
}

#[derive(Debug)]
pub(super) struct Addresses {
    most: Most,
    all: Handshaking,
    of_each: BTreeMap<Network, Row>,
    swept_ns: u64,
}

/// An address of IPv4, or the first 64 bits of one of IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Network(u128);

impl Network {
    pub(crate) fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self(v4.to_ipv6_mapped().to_bits()),
            IpAddr::V6(v6) => Self(v6.to_bits() >> 64 << 64),
        }
    }
}

#[derive(Debug, Default)]
struct Row {
    connections: u32,
    handshaking: Handshaking,
}

/// What it is called where one of [`Handshakes`] is reached.
#[derive(Clone, Copy)]
struct Over {
    waiting: Excess,
    per_second: Excess,
}

#[derive(Debug, Default)]
struct Handshaking {
    waiting: u32,
    /// When all that was allowed is allowed again: at most a second ahead.
    rested_ns: u64,
}

impl Addresses {
    pub(super) fn new(most: Most) -> Self {
        Self { most, all: Handshaking::default(), of_each: BTreeMap::new(), swept_ns: 0 }
    }

    /// Other limits from here on. Who has more by now keeps it.
    pub(super) fn adopt(&mut self, most: Most) {
        self.most = most;
    }

    /// One more connection, until [`Self::close`].
    pub(super) fn open(&mut self, address: IpAddr, now_ns: u64) -> Result<(), Excess> {
        self.sweep(now_ns);
        let most = self.most.connections;
        let row = self.of_each.entry(Network::of(address)).or_default();
        if most.is_some_and(|most| row.connections >= most) {
            return Err(Excess::AddressConnections);
        }
        row.connections = row.connections.saturating_add(1);
        Ok(())
    }

    pub(super) fn close(&mut self, address: IpAddr, now_ns: u64) {
        let key = Network::of(address);
        let Some(row) = self.of_each.get_mut(&key) else { return };
        row.connections = row.connections.saturating_sub(1);
        if row.is_at_rest(now_ns) {
            self.of_each.remove(&key);
        }
    }

    /// One more handshake, until [`Self::end_handshake`]. None: of an address that is not counted by itself.
    pub(super) fn begin_handshake(&mut self, address: Option<IpAddr>, now_ns: u64) -> Result<(), Excess> {
        let Most { handshakes: of_all, address_handshakes: of_one, .. } = self.most;
        // All are asked first: who is refused by them leaves no trace.
        let of_all_excess = Over { waiting: Excess::HandshakesWaiting, per_second: Excess::HandshakesPerSecond };
        self.all.may_begin(of_all, now_ns, of_all_excess)?;
        if let Some(address) = address {
            let row = self.of_each.entry(Network::of(address)).or_default();
            let of_one_excess =
                Over { waiting: Excess::AddressHandshakesWaiting, per_second: Excess::AddressHandshakesPerSecond };
            row.handshaking.may_begin(of_one, now_ns, of_one_excess)?;
            row.handshaking.begin(of_one, now_ns);
        }
        self.all.begin(of_all, now_ns);
        Ok(())
    }

    pub(super) fn end_handshake(&mut self, address: Option<IpAddr>) {
        self.all.end();
        if let Some(row) = address.and_then(|address| self.of_each.get_mut(&Network::of(address))) {
            row.handshaking.end();
        }
    }

    /// Once a second: addresses that have nothing any more.
    fn sweep(&mut self, now_ns: u64) {
        if now_ns.saturating_sub(self.swept_ns) >= SECOND_NS {
            self.swept_ns = now_ns;
            self.of_each.retain(|_, row| !row.is_at_rest(now_ns));
        }
    }
}

impl Row {
    fn is_at_rest(&self, now_ns: u64) -> bool {
        self.connections == 0 && self.handshaking.waiting == 0 && self.handshaking.rested_ns <= now_ns
    }
}

impl Handshaking {
    fn may_begin(&self, most: Handshakes, now_ns: u64, over: Over) -> Result<(), Excess> {
        if most.waiting.is_some_and(|waiting| self.waiting >= waiting) {
            return Err(over.waiting);
        }
        if self.rested_after(most, now_ns) > now_ns.saturating_add(SECOND_NS) {
            return Err(over.per_second);
        }
        Ok(())
    }

    fn begin(&mut self, most: Handshakes, now_ns: u64) {
        self.waiting = self.waiting.saturating_add(1);
        self.rested_ns = self.rested_after(most, now_ns);
    }

    fn end(&mut self) {
        self.waiting = self.waiting.saturating_sub(1);
    }

    /// With one more.
    fn rested_after(&self, most: Handshakes, now_ns: u64) -> u64 {
        let Some(per_second) = most.per_second else { return 0 };
        let cost_ns = SECOND_NS.checked_div(u64::from(per_second)).unwrap_or(SECOND_NS);
        self.rested_ns.max(now_ns).saturating_add(cost_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn most(connections: u32, waiting: u32, per_second: u32) -> Most {
        let of_one = Handshakes { waiting: Some(waiting), per_second: Some(per_second) };
        Most { connections: Some(connections), address_handshakes: of_one, ..Most::default() }
    }

    #[test]
    fn an_address_has_so_many_connections_and_another_its_own() {
        let mut addresses = Addresses::new(most(2, 9, 9));
        let (one, other) = (ip("192.0.2.1"), ip("192.0.2.2"));
        assert!(addresses.open(one, 0).is_ok() && addresses.open(ip("::ffff:192.0.2.1"), 0).is_ok());
        assert_eq!(addresses.open(one, 0), Err(Excess::AddressConnections));
        assert!(addresses.open(other, 0).is_ok());
        addresses.close(one, 0);
        assert!(addresses.open(one, 0).is_ok());
    }

    #[test]
    fn ipv6_is_counted_by_its_first_64_bits() {
        let mut addresses = Addresses::new(most(1, 9, 9));
        assert!(addresses.open(ip("2001:db8:0:1::1"), 0).is_ok());
        assert_eq!(addresses.open(ip("2001:db8:0:1:ffff::2"), 0), Err(Excess::AddressConnections));
        assert!(addresses.open(ip("2001:db8:0:2::1"), 0).is_ok());
    }

    #[test]
    fn handshakes_are_bounded_in_flight_and_in_a_second() {
        let mut addresses = Addresses::new(most(9, 2, 4));
        let one = Some(ip("192.0.2.1"));
        assert!(addresses.begin_handshake(one, 0).is_ok() && addresses.begin_handshake(one, 0).is_ok());
        assert_eq!(addresses.begin_handshake(one, 0), Err(Excess::AddressHandshakesWaiting));
        for _ in 0..2 {
            addresses.end_handshake(one);
            assert!(addresses.begin_handshake(one, 0).is_ok());
        }
        addresses.end_handshake(one);
        // Four in this second, and the next a quarter of one later.
        assert_eq!(addresses.begin_handshake(one, SECOND_NS / 4 - 1), Err(Excess::AddressHandshakesPerSecond));
        assert!(addresses.begin_handshake(one, SECOND_NS / 4).is_ok());
        assert!(addresses.begin_handshake(Some(ip("192.0.2.2")), 0).is_ok());
    }

    #[test]
    fn all_handshakes_together_are_bounded_and_who_is_refused_by_that_leaves_no_trace() {
        let handshakes = Handshakes { waiting: None, per_second: Some(10) };
        let mut addresses = Addresses::new(Most { handshakes, ..Most::default() });
        let mut begun = 0;
        for n in 0..1000u32 {
            let address = IpAddr::from(n.to_be_bytes());
            begun += u32::from(addresses.begin_handshake(Some(address), 0).is_ok());
        }
        assert_eq!((begun, addresses.of_each.len()), (10, 10));
        assert_eq!(addresses.begin_handshake(None, 0), Err(Excess::HandshakesPerSecond));
        assert!(addresses.begin_handshake(None, SECOND_NS).is_ok());
    }

    #[test]
    fn an_address_with_nothing_left_is_forgotten() {
        let mut addresses = Addresses::new(most(9, 9, 100));
        for n in 0..100u32 {
            let address = IpAddr::from(n.to_be_bytes());
            addresses.open(address, 0).unwrap();
            addresses.begin_handshake(Some(address), 0).unwrap();
            addresses.end_handshake(Some(address));
            addresses.close(address, 0);
        }
        // Their rates are remembered for as long as they matter.
        assert_eq!(addresses.of_each.len(), 100);
        addresses.open(ip("192.0.2.1"), SECOND_NS).unwrap();
        assert_eq!(addresses.of_each.len(), 1);
        addresses.close(ip("192.0.2.1"), SECOND_NS);
        assert!(addresses.of_each.is_empty());
    }
}
