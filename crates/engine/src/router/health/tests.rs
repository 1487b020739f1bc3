//! The breaker and the outliers: each rule of the diagram, and every short script of it. Knows no clock but the one it tells.

use super::super::fixture::{at, fleet};
use super::*;
use crate::fleet::Tier;

const E: EndpointId = EndpointId(0);
const SERVED: Verdict = Verdict::Served { ttft_ns: Some(50_000_000) };
const FULL: Verdict = Verdict::Refused { wait_ms: None };

fn routing() -> Routing {
    Routing {
        breaker_failures_max: 3,
        breaker_pause_ms_min: 1000,
        breaker_pause_ms_max: 5000,
        outlier_factor: 4,
        ..Routing::default()
    }
}

struct Endpoints {
    health: Health,
    fleet: Fleet,
}

impl Endpoints {
    fn new(count: usize) -> Self {
        Self { health: Health::new(&routing()), fleet: fleet(&vec![Tier::Throughput; count]) }
    }

    fn end(&mut self, endpoint: u16, verdict: Verdict, ms: u64) -> Option<Change> {
        self.health.observe(&self.fleet, (EndpointId(endpoint), false), verdict, at(ms))
    }

    /// A turn that finds the endpoint due, and how it ends.
    fn trial(&mut self, verdict: Verdict, begun_ms: u64, ended_ms: u64) -> Option<Change> {
        assert_eq!(self.health.standing(E, at(begun_ms)), Standing::Due);
        self.health.try_out(E, at(begun_ms));
        self.health.observe(&self.fleet, (E, true), verdict, at(ended_ms))
    }

    fn is_out_until(&self, ms: u64) -> bool {
        let before = self.health.standing(E, at(ms - 1));
        before == Standing::Out { until_ns: at(ms).mono_ns } && self.health.standing(E, at(ms)) == Standing::Due
    }
}

fn out(cause: Cause, pause_ms: u64) -> Option<Change> {
    Some(Change::Out { endpoint: E, cause, pause_ms })
}

#[test]
fn failures_in_a_row_put_an_endpoint_out() {
    let mut one = Endpoints::new(1);
    assert_eq!((one.end(0, Verdict::Failed, 0), one.end(0, Verdict::Failed, 1)), (None, None));
    assert_eq!(one.end(0, SERVED, 2), None);
    assert_eq!((one.end(0, Verdict::Failed, 3), one.end(0, Verdict::Failed, 4)), (None, None));
    // Neither ends the row.
    assert_eq!((one.end(0, FULL, 5), one.end(0, Verdict::Nothing, 6)), (None, None));
    assert_eq!(one.health.standing(E, at(6)), Standing::In);
    assert_eq!(one.end(0, Verdict::Failed, 7), out(Cause::Failures, 1000));
    assert!(one.is_out_until(1007));
}

#[test]
fn a_trial_that_is_served_brings_it_in() {
    let mut one = Endpoints::new(1);
    (0..3).for_each(|ms| _ = one.end(0, Verdict::Failed, ms));
    assert!(!one.health.is_all_in());
    assert_eq!(one.trial(SERVED, 1002, 1010), Some(Change::In { endpoint: E }));
    assert!(one.health.is_all_in());
    assert_eq!(one.health.standing(E, at(1010)), Standing::In);
    assert_eq!(one.end(0, Verdict::Failed, 1011), None);
}

#[test]
fn each_trial_that_fails_doubles_the_pause_up_to_its_maximum() {
    let mut one = Endpoints::new(1);
    (0..3).for_each(|_| _ = one.end(0, Verdict::Failed, 0));
    let mut now = 1000;
    for pause_ms in [2000, 4000, 5000, 5000] {
        assert_eq!(one.trial(Verdict::Failed, now, now + 10), out(Cause::Again, pause_ms));
        now += 10 + pause_ms;
        assert!(one.is_out_until(now));
    }
}

#[test]
fn one_turn_a_pause_tries_it_however_long_that_takes() {
    let mut one = Endpoints::new(1);
    (0..3).for_each(|_| _ = one.end(0, Verdict::Failed, 0));
    one.health.try_out(E, at(1000));
    assert!(one.is_out_until(2000));
    one.health.try_out(E, at(2000));
    assert!(one.is_out_until(3000));
    assert_eq!(one.health.observe(&one.fleet, (E, true), SERVED, at(2500)), Some(Change::In { endpoint: E }));
}

#[test]
fn a_trial_that_says_nothing_leaves_the_next_one_due() {
    for verdict in [Verdict::Nothing, Verdict::Absent, FULL] {
        let mut one = Endpoints::new(1);
        (0..3).for_each(|_| _ = one.end(0, Verdict::Failed, 0));
        assert_eq!(one.trial(verdict, 1000, 1001), None);
        assert_eq!(one.health.standing(E, at(1001)), Standing::Due);
    }
}

#[test]
fn turns_that_began_before_say_nothing_of_an_endpoint_that_is_out() {
    let mut one = Endpoints::new(1);
    (0..3).for_each(|_| _ = one.end(0, Verdict::Failed, 0));
    assert_eq!((one.end(0, SERVED, 1), one.end(0, Verdict::Failed, 2)), (None, None));
    assert!(one.is_out_until(1000));
}

#[test]
fn a_relapse_doubles_the_pause_and_a_long_health_forgets_it() {
    let mut one = Endpoints::new(1);
    (0..3).for_each(|_| _ = one.end(0, Verdict::Failed, 0));
    one.trial(SERVED, 1000, 1000);
    let last = |one: &mut Endpoints, ms| (0..3).map(|_| one.end(0, Verdict::Failed, ms)).last().flatten();
    assert_eq!(last(&mut one, 10_000), out(Cause::Failures, 2000));
    one.trial(SERVED, 12_000, 12_000);
    assert_eq!(last(&mut one, 32_000), out(Cause::Failures, 1000));
}

#[test]
fn an_endpoint_that_fails_far_more_than_its_tier_is_put_out() {
    let mut three = Endpoints::new(3);
    let mut change = None;
    for ms in (0..20_000).step_by(100) {
        three.end(1, SERVED, ms);
        three.end(2, SERVED, ms);
        // Every third fails: never three in a row.
        let verdict = if (ms / 100) % 3 == 0 { Verdict::Failed } else { SERVED };
        change = change.or(three.end(0, verdict, ms));
    }
    assert_eq!(change, out(Cause::FailureShare, 1000));
}

#[test]
fn a_tier_that_fails_alike_has_no_outlier() {
    let mut three = Endpoints::new(3);
    for ms in (0..20_000).step_by(100) {
        for endpoint in 0..3 {
            let verdict = if (ms / 100) % 3 == 0 { Verdict::Failed } else { SERVED };
            assert_eq!(three.end(endpoint, verdict, ms), None);
        }
    }
}

#[test]
fn one_whose_slowness_another_tier_spares_its_clients_is_put_out_as_well() {
    let mut three = Endpoints::new(3);
    let served = Verdict::Served { ttft_ns: Some(100_000_000) };
    let change = (0..200).find_map(|turn| {
        three.end(1, served, turn * 100);
        three.end(2, served, turn * 100);
        three.end(0, Verdict::Outrun { waited_ns: 2_000_000_000 }, turn * 100)
    });
    assert_eq!(change, out(Cause::Slowness, 1000));
}

#[test]
fn an_endpoint_far_slower_than_its_tier_is_put_out() {
    let served = |ms: u64| Verdict::Served { ttft_ns: Some(ms * 1_000_000) };
    let first_change = |slow_ms: u64, usual_ms: u64| {
        let mut three = Endpoints::new(3);
        (0..200).find_map(|turn| {
            three.end(1, served(usual_ms), turn * 100);
            three.end(2, served(usual_ms), turn * 100);
            three.end(0, served(slow_ms), turn * 100)
        })
    };
    assert_eq!(first_change(4000, 500), out(Cause::Slowness, 1000));
    assert_eq!(first_change(4000, 1000), None);
    // Four times as slow, and nobody minds.
    assert_eq!(first_change(900, 20), None);
}

#[test]
fn never_more_than_half_of_a_tier_is_left_out_as_outliers() {
    for endpoints in 1..6_u16 {
        let mut tier = Endpoints::new(usize::from(endpoints));
        let mut gone = 0;
        for turn in 0..300 {
            for endpoint in 0..endpoints {
                let is_bad = endpoint > 0 && turn % 3 == 0;
                let verdict = if is_bad { Verdict::Failed } else { SERVED };
                let change = tier.end(endpoint, verdict, turn * 50);
                gone += u16::from(matches!(change, Some(Change::Out { .. })));
            }
        }
        assert!(gone <= endpoints / 2, "{gone} of {endpoints}");
    }
}

#[test]
fn a_third_of_four_is_no_outlier_while_two_are_out() {
    let mut four = Endpoints::new(4);
    let mut fails = |from_ms: u64, bad: &[u16]| {
        let mut gone = Vec::new();
        for turn in 0..200 {
            let still_in = [0, 1, 2, 3].map(|id| four.health.standing(EndpointId(id), at(0)) == Standing::In);
            for endpoint in (0..4).filter(|&id| still_in[usize::from(id)]) {
                let is_bad = bad.contains(&endpoint) && turn % 3 == 0;
                let change = four.end(endpoint, if is_bad { Verdict::Failed } else { SERVED }, from_ms + turn * 50);
                gone.extend(change.map(|_| endpoint));
            }
        }
        gone
    };
    assert_eq!(fails(0, &[1, 2]), [1, 2]);
    // By now nothing is known of those any more, and the third has only the first beside it.
    assert!(fails(40_000, &[3]).is_empty());
}

#[test]
fn what_failed_long_ago_counts_no_more() {
    let mut two = Endpoints::new(2);
    let verdict = |turn: u64| if turn.is_multiple_of(3) { Verdict::Failed } else { SERVED };
    for turn in 0..30 {
        assert_eq!((two.end(0, verdict(turn), turn), two.end(1, SERVED, turn)), (None, None));
    }
    for turn in 0..15 {
        let verdict = if turn == 12 { Verdict::Failed } else { SERVED };
        let now = 25_000 + turn * 100;
        assert_eq!((two.end(0, verdict, now), two.end(1, SERVED, now)), (None, None));
    }
}

#[test]
fn nobody_is_compared_with_what_others_did_long_ago() {
    let mut two = Endpoints::new(2);
    (0..30).for_each(|turn| _ = two.end(1, SERVED, turn));
    for turn in 0..90 {
        let verdict = if turn % 3 == 0 { Verdict::Failed } else { SERVED };
        assert_eq!(two.end(0, verdict, 25_000 + turn * 100), None);
    }
}

#[test]
fn an_endpoint_that_is_not_of_the_fleet_is_nothing() {
    let mut one = Endpoints::new(1);
    assert_eq!(one.end(9, Verdict::Failed, 0), None);
    assert_eq!(one.health.standing(EndpointId(9), at(0)), Standing::In);
}

/// Every script of up to seven steps, against a breaker that is told in three words.
#[test]
fn every_short_script_keeps_to_the_diagram() {
    const STEPS: [Verdict; 3] = [SERVED, Verdict::Failed, Verdict::Nothing];
    for script in 0..3_usize.pow(7) {
        let mut one = Endpoints::new(1);
        let (mut row, mut pause, mut is_out) = (0, 0, false);
        for step in 0..7_u32 {
            let verdict = STEPS[script / 3_usize.pow(step) % 3];
            // Far enough apart that every pause is over, and every relapse one.
            let now = 6000 * u64::from(step);
            let standing = one.health.standing(E, at(now));
            assert_eq!(standing == Standing::Due, is_out, "script {script} at {step}");
            let change = if is_out { one.trial(verdict, now, now) } else { one.end(0, verdict, now) };
            match (is_out, verdict) {
                (true, Verdict::Failed) => {
                    pause = (pause * 2).min(5000);
                    assert_eq!(change, out(Cause::Again, pause));
                }
                (true, Verdict::Served { .. }) => {
                    (row, is_out) = (0, false);
                    assert_eq!(change, Some(Change::In { endpoint: E }));
                }
                (false, Verdict::Served { .. }) => row = 0,
                (false, Verdict::Failed) if row + 1 == 3 => {
                    is_out = true;
                    pause = match change {
                        Some(Change::Out { cause: Cause::Failures, pause_ms, .. }) => pause_ms,
                        other => panic!("{other:?} in script {script}"),
                    };
                }
                (false, Verdict::Failed) => row += 1,
                (_, Verdict::Nothing | Verdict::Absent | Verdict::Outrun { .. } | Verdict::Refused { .. }) => {
                    assert_eq!(change, None);
                }
            }
        }
    }
}

#[test]
fn what_a_failure_says_of_an_endpoint() {
    let refused =
        |status| Verdict::of(&UpstreamFailure::Refused { status, retry_after_ms: None, body: bytes::Bytes::new() });
    assert_eq!([400, 413, 422].map(refused), [Verdict::Nothing; 3]);
    assert_eq!([401, 403, 408, 500, 502, 503].map(refused), [Verdict::Failed; 6]);
    assert_eq!((refused(404), refused(429)), (Verdict::Absent, FULL));
    assert_eq!(Verdict::of(&UpstreamFailure::Silent { waited_ms: 1 }), Verdict::Failed);
}
