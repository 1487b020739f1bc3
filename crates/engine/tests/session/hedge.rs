//! Turns whose first token is late, and their second endpoints: who has the turn, what the client sees of it, what is given back, and that
//! nothing is left behind.

use crate::peer::{Peers, STEPS, Step};
use crate::scripts::{SEEDS, seeded};
use flashlane_engine::admission::limit::Limits;
use flashlane_engine::admission::{PerTier, Queueing, Settings};
use flashlane_engine::guard::{Guard, Otherwise, Ruling};
use flashlane_engine::router::{Attempt, Verdict};
use flashlane_engine::{Ended, Endpoint, HedgeEnd, Outcome, Tier, UpstreamEvent, UpstreamFailure};
use serde_json::Value;
use std::num::NonZeroU32;
use std::sync::Arc;

const ROLE: &[u8] =
    b"data: {\"id\":\"h\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n";
const TOKEN: &[u8] = b"data: {\"id\":\"h\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"from the gpu\"}}]}\n\n";
const END: &[u8] = b"data: {\"id\":\"h\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}],\
\"usage\":{\"prompt_tokens\":40,\"completion_tokens\":3}}\n\ndata: [DONE]\n\n";

fn hedging() -> Peers {
    Peers::hedging(&Settings::default())
}

/// A turn whose first token is late: its second endpoint was asked.
fn late() -> Peers {
    let mut peers = hedging();
    peers.apply(Step::Create);
    assert_eq!(peers.sent.len(), 1);
    peers.apply(Step::Pass300Ms);
    assert_eq!((peers.sent.len(), peers.beside.len()), (2, 1));
    peers
}

fn last(peers: &Peers) -> &Outcome {
    peers.outcomes.last().unwrap()
}

fn end(peers: &Peers) -> Option<HedgeEnd> {
    last(peers).hedge.map(|hedge| hedge.end)
}

fn text(peers: &Peers) -> String {
    peers.watch.events.last().unwrap()["response"]["output"][0]["content"][0]["text"].as_str().unwrap().to_owned()
}

fn fed(event: &[u8]) -> UpstreamEvent<'_> {
    UpstreamEvent::Bytes(event)
}

fn cut() -> UpstreamEvent<'static> {
    UpstreamEvent::Ended(Ended::Failed(UpstreamFailure::Cut { reason: "gone".to_owned() }))
}

#[test]
fn a_first_token_that_is_late_has_a_second_endpoint_asked_the_same() {
    let mut peers = hedging();
    peers.apply(Step::Create);
    let due_ns = peers.session.poll_timeout().unwrap();
    peers.apply(Step::Opened);
    peers.apply(Step::Pass300Ms);
    assert!((1_100_000_000..1_113_000_000).contains(&due_ns), "after the 95th percentile: {due_ns}");
    let [first, second] = [0, 1].map(|index| {
        let mut body: Value = serde_json::from_str(&peers.sent[index].1).unwrap();
        (body["model"].take(), body)
    });
    assert_eq!((first.0, second.0), (Value::from("m-wafer"), Value::from("m")));
    assert_eq!(first.1, second.1);
    peers.finish_and_check();
}

#[test]
fn a_model_that_does_not_hedge_and_one_that_is_in_time_have_one_endpoint() {
    let mut peers = Peers::new();
    peers.apply(Step::Create);
    peers.apply(Step::Pass6S);
    assert_eq!(peers.sent.len(), 1);
    peers.finish_and_check();
    let mut peers = hedging();
    for step in [Step::Create, Step::Opened, Step::Text, Step::Pass300Ms, Step::Finish] {
        peers.apply(step);
    }
    assert_eq!((peers.sent.len(), last(&peers).hedge), (1, None));
    peers.finish_and_check();
}

#[test]
fn the_second_endpoints_token_is_the_first() {
    let mut peers = late();
    peers.apply(Step::Opened);
    peers.beside(UpstreamEvent::Opened);
    peers.beside(fed(ROLE));
    assert_eq!(peers.beside.len(), 1, "a role is no token");
    peers.effects.clear();
    peers.beside(fed(TOKEN));
    // In this order, and in one call: whoever lost is not read any more.
    assert_eq!(peers.effects, ["Abort", "Release", "Adopt", "Answering"]);
    let Verdict::Outrun { waited_ns } = peers.endings.last().unwrap().verdict else { panic!("{:?}", peers.endings) };
    assert!((300_000_000..310_000_000).contains(&waited_ns), "{waited_ns}");
    peers.upstream(fed(END));
    assert_eq!(text(&peers), "from the gpu");
    let response = &peers.watch.events.last().unwrap()["response"];
    assert_eq!((&response["service_tier"], &response["usage"]["input_tokens"]), (&"default".into(), &40.into()));
    let outcome = last(&peers);
    assert_eq!((outcome.tier, outcome.decision.unwrap().attempt), (Some(Tier::Throughput), Attempt::Hedge));
    assert_eq!(outcome.hedge.map(|hedge| (hedge.end, hedge.tokens)), Some((HedgeEnd::Won, 40)));
    let attempts: Vec<_> =
        outcome.attempts.iter().map(|one| (&*one.endpoint, one.is_outrun, one.failure.is_some())).collect();
    assert_eq!(attempts, [("wafer", true, false), ("gpu", false, false)]);
    assert!(outcome.attempts.iter().all(|attempt| attempt.ended_ns.is_some()));
    assert!(
        matches!(peers.endings.last().unwrap().verdict, Verdict::Served { ttft_ns: Some(ns) } if ns < 10_000_000),
        "from its own request on"
    );
    peers.finish_and_check();
}

#[test]
fn the_first_endpoints_token_leaves_the_second_before_it_has_any() {
    let mut peers = late();
    peers.beside(fed(ROLE));
    peers.effects.clear();
    peers.apply(Step::Text);
    assert!(peers.effects.is_empty(), "it was not opened: {:?}", peers.effects);
    peers.apply(Step::Opened);
    peers.effects.clear();
    peers.apply(Step::Text);
    assert_eq!(peers.effects, ["Answering", "Abort", "Release"]);
    assert!(peers.beside.is_empty());
    peers.apply(Step::Finish);
    assert_eq!((text(&peers).as_str(), end(&peers)), ("a\n", Some(HedgeEnd::Lost)));
    let attempts: Vec<_> = last(&peers).attempts.iter().map(|one| (&*one.endpoint, one.is_outrun)).collect();
    assert_eq!(attempts, [("wafer", false), ("gpu", true)]);
    assert_eq!(last(&peers).decision.unwrap().attempt, Attempt::First);
    assert_eq!(last(&peers).usage.input, 7, "the winner's alone");
    peers.finish_and_check();
}

#[test]
fn all_that_a_poll_brings_of_the_winner_is_read() {
    let mut peers = late();
    let (stream, _) = peers.beside[0];
    let ended = UpstreamEvent::Ended(Ended::Complete);
    peers.burst(stream, vec![UpstreamEvent::Opened, fed(TOKEN), fed(TOKEN), fed(END), ended]);
    assert_eq!((text(&peers).as_str(), end(&peers)), ("from the gpufrom the gpu", Some(HedgeEnd::Won)));
    peers.finish_and_check();
}

#[test]
fn whatever_way_its_bytes_are_split_the_answer_is_the_same() {
    let whole = [ROLE, TOKEN, TOKEN, END].concat();
    for at in 0..=whole.len() {
        let mut peers = late();
        let (stream, _) = peers.beside[0];
        let (head, tail) = whole.split_at(at);
        peers.burst(stream, vec![UpstreamEvent::Opened, fed(head)]);
        peers.burst(stream, vec![fed(tail)]);
        assert_eq!((text(&peers).as_str(), end(&peers)), ("from the gpufrom the gpu", Some(HedgeEnd::Won)), "at {at}");
        peers.finish_and_check();
    }
}

#[test]
fn where_the_first_endpoint_fails_the_second_is_the_turns() {
    for has_opened in [false, true] {
        let mut peers = late();
        if has_opened {
            peers.beside(UpstreamEvent::Opened);
            peers.beside(fed(ROLE));
        }
        peers.effects.clear();
        peers.upstream(cut());
        assert!(!peers.effects.contains(&"Ask".to_owned()), "no other retry: {:?}", peers.effects);
        assert_eq!(peers.endings.last().unwrap().verdict, Verdict::Failed);
        for event in [UpstreamEvent::Opened, fed(TOKEN), fed(END)] {
            peers.upstream(event);
        }
        assert_eq!((text(&peers).as_str(), end(&peers)), ("from the gpu", Some(HedgeEnd::TookOver)));
        assert_eq!(last(&peers).failed().count(), 1);
        peers.finish_and_check();
    }
}

#[test]
fn where_both_fail_the_turn_asks_for_no_third_of_them() {
    let mut peers = late();
    peers.upstream(cut());
    peers.upstream(cut());
    assert_eq!(peers.watch.events.last().unwrap()["type"], "response.failed");
    assert_eq!((last(&peers).failed().count(), peers.sent.len()), (2, 2));
    peers.finish_and_check();
}

#[test]
fn where_the_second_fails_the_first_goes_on() {
    let failures: [fn() -> UpstreamEvent<'static>; 5] = [
        cut,
        || UpstreamEvent::Ended(Ended::Complete),
        || UpstreamEvent::Bytes(b"data: {\"error\":{\"message\":\"no\",\"code\":500}}\n\n"),
        || UpstreamEvent::Bytes(b"data: nonsense\n\n"),
        || UpstreamEvent::Bytes(b"data: [DONE]\n\n"),
    ];
    for failure in failures {
        let mut peers = late();
        peers.beside(failure());
        assert!(peers.beside.is_empty());
        for step in [Step::Opened, Step::Pass300Ms, Step::Text, Step::Finish] {
            peers.apply(step);
        }
        assert_eq!((text(&peers).as_str(), end(&peers)), ("a\n", Some(HedgeEnd::Failed)));
        assert_eq!(peers.sent.len(), 2, "once a turn");
        assert_eq!(last(&peers).failed().count(), 1);
        peers.finish_and_check();
    }
}

#[test]
fn where_the_second_fails_and_then_the_first_neither_is_asked_again() {
    let mut peers = late();
    peers.beside(cut());
    peers.upstream(cut());
    assert_eq!(peers.watch.events.last().unwrap()["type"], "response.failed");
    assert_eq!((last(&peers).failed().count(), peers.sent.len()), (2, 2));
    peers.finish_and_check();
}

#[test]
fn a_second_endpoint_has_its_time_as_well() {
    let queue = |ms| Queueing { first_token_ms_max: ms, ..Queueing::default() };
    let queue = PerTier { latency: queue(None), throughput: queue(Some(1_000)) };
    let mut peers = Peers::hedging(&Settings { queue, ..Settings::default() });
    for step in [Step::Create, Step::Opened, Step::Pass300Ms, Step::Pass6S] {
        peers.apply(step);
    }
    assert!(peers.beside.is_empty());
    assert_eq!(peers.endings.last().unwrap().verdict, Verdict::Failed);
    for step in [Step::Text, Step::Finish] {
        peers.apply(step);
    }
    assert_eq!((text(&peers).as_str(), end(&peers)), ("a\n", Some(HedgeEnd::Failed)));
    peers.finish_and_check();
}

#[test]
fn where_the_tier_has_no_slot_over_nobody_is_asked() {
    let slots = NonZeroU32::new(1);
    let queue = Queueing { concurrency_max: slots, ..Queueing::default() };
    let queue = PerTier { throughput: queue, ..PerTier::default() };
    let mut peers = Peers::hedging(&Settings { queue, ..Settings::default() });
    for step in [Step::Create, Step::Opened, Step::Pass300Ms, Step::Pass300Ms, Step::Text, Step::Finish] {
        peers.apply(step);
    }
    assert_eq!((peers.sent.len(), end(&peers)), (1, Some(HedgeEnd::Unstarted)));
    assert_eq!(last(&peers).hedge.unwrap().tokens, 0);
    peers.finish_and_check();
}

#[test]
fn a_key_that_has_not_as_much_again_left_is_not_hedged() {
    for (tokens_per_minute, hedges) in [(2_000, true), (900, false)] {
        let limits = Limits { tokens_per_minute: NonZeroU32::new(tokens_per_minute), ..Limits::default() };
        let limits = PerTier { throughput: limits, ..PerTier::default() };
        let mut peers = Peers::hedging(&Settings { limits, ..Settings::default() });
        for step in [Step::Create, Step::Opened, Step::Pass300Ms] {
            peers.apply(step);
        }
        assert_eq!(peers.beside.len() == 1, hedges, "{tokens_per_minute}");
        peers.finish_and_check();
    }
}

#[test]
fn what_ends_the_turn_ends_both() {
    for step in [Step::ClientGone, Step::Interrupt, Step::Cancel, Step::Revoke] {
        let mut peers = late();
        peers.apply(Step::Opened);
        peers.apply(step);
        if step == Step::Revoke {
            peers.apply(Step::PassAnHour);
        }
        assert!(peers.beside.is_empty(), "{step:?}");
        assert_eq!(end(&peers), Some(HedgeEnd::Left), "{step:?}");
        peers.finish_and_check();
    }
}

#[test]
fn before_its_guard_has_spoken_a_turn_has_one_endpoint() {
    for (opened, held) in [(false, false), (true, false), (true, true)] {
        let mut fleet = crate::peer::fleet();
        let mark = Guard::mark_of("policy", "http://guard");
        let guard = Guard { name: "policy".into(), mark, deadline_ms: 5_000, otherwise: Otherwise::Pass };
        fleet.models[0].guard = Some(Arc::new(guard));
        let mut peers = Peers::hedging_on(fleet, &Settings::default());
        peers.apply(Step::Create);
        let steps = [(opened, Step::Opened), (held, Step::Text), (true, Step::Pass300Ms)];
        steps.into_iter().filter(|(is_so, _)| *is_so).for_each(|(_, step)| peers.apply(step));
        assert_eq!(peers.sent.len(), 1);
        peers.rule(Ruling::Pass);
        peers.apply(Step::Pass300Ms);
        assert_eq!(peers.sent.len(), if held { 1 } else { 2 }, "it is late still, unless its token was held");
        peers.finish_and_check();
    }
}

/// Two wafers and two GPUs of the same model, whose turns migrate.
fn migrating() -> Peers {
    let mut fleet = crate::migrate::fleet(1);
    let second = Endpoint { name: "wafer-2".into(), ..fleet.endpoints[0].clone() };
    fleet.endpoints.push(second);
    Peers::hedging_on(fleet, &Settings::default())
}

#[test]
fn a_turn_that_goes_on_elsewhere_already_is_not_hedged() {
    let mut peers = migrating();
    for step in [Step::Create, Step::Opened, Step::Text, Step::Cut, Step::Pass300Ms, Step::Opened, Step::Pass300Ms] {
        peers.apply(step);
    }
    assert_eq!((peers.sent.len(), peers.beside.len()), (2, 0));
    for step in [Step::Text, Step::Finish] {
        peers.apply(step);
    }
    assert_eq!((last(&peers).splices.len(), last(&peers).hedge), (1, None));
    peers.finish_and_check();
}

#[test]
fn a_second_endpoint_that_has_won_and_fails_is_gone_on_from() {
    let mut peers = migrating();
    for step in [Step::Create, Step::Opened, Step::Pass300Ms] {
        peers.apply(step);
    }
    peers.beside(fed(TOKEN));
    for step in [Step::Cut, Step::Opened, Step::Text, Step::Finish] {
        peers.apply(step);
    }
    assert_eq!((text(&peers).as_str(), end(&peers)), ("from the gpua\n", Some(HedgeEnd::Won)));
    assert_eq!(last(&peers).splices.len(), 1);
    peers.finish_and_check();
}

#[test]
fn a_turn_that_compacts_is_not_hedged() {
    let mut peers = hedging();
    for step in [Step::CreateCompacting, Step::Counted, Step::Opened, Step::Pass300Ms] {
        peers.apply(step);
    }
    assert_eq!(peers.sent.len(), 1);
    for step in [Step::Text, Step::Finish, Step::Pass300Ms] {
        peers.apply(step);
    }
    assert_eq!((peers.sent.len(), peers.beside.len()), (2, 0), "its client has read the compaction");
    peers.finish_and_check();
}

#[test]
fn a_mistake_in_a_second_stream_ends_its_turn() {
    let mut peers = late();
    let (stream, _) = peers.beside[0];
    peers.stopped(stream);
    assert_eq!((peers.outcomes.len(), end(&peers)), (1, Some(HedgeEnd::Left)));
    peers.finish_and_check();
}

fn check(peers: Peers) -> [usize; HedgeEnd::ALL.len()] {
    let peers = peers.finish_and_check();
    let mut ends = [0; HedgeEnd::ALL.len()];
    for outcome in &peers.outcomes {
        let outrun = outcome.attempts.iter().filter(|attempt| attempt.is_outrun).count();
        let hedges = outcome.attempts.iter().filter(|attempt| attempt.decision.attempt == Attempt::Hedge).count();
        let Some(hedge) = outcome.hedge else {
            assert_eq!((outrun, hedges), (0, 0));
            continue;
        };
        ends[HedgeEnd::ALL.iter().position(|end| *end == hedge.end).unwrap()] += 1;
        let is_decided = matches!(hedge.end, HedgeEnd::Won | HedgeEnd::Lost);
        assert_eq!(outrun, usize::from(is_decided), "{outcome:?}");
        assert_eq!(hedges, usize::from(hedge.end != HedgeEnd::Unstarted), "{outcome:?}");
        let is_served_there = matches!(hedge.end, HedgeEnd::Won | HedgeEnd::TookOver);
        let decision = outcome.decision.unwrap();
        assert!(is_served_there || decision.attempt != Attempt::Hedge, "{outcome:?}");
    }
    ends
}

#[test]
fn every_short_script_of_a_hedged_turn_leaves_nothing_behind() {
    let between = [(false, TOKEN), (true, ROLE), (true, TOKEN)];
    for (number, first) in STEPS.into_iter().enumerate() {
        for (second, (has_opened, event)) in STEPS.into_iter().zip(between.into_iter().cycle().skip(number % 3)) {
            let mut peers = late();
            if has_opened {
                peers.apply(Step::Opened);
            }
            peers.apply(first);
            peers.beside(fed(event));
            peers.apply(second);
            check(peers);
        }
    }
}

#[test]
fn seeded_long_scripts_with_second_endpoints_leave_nothing_behind() {
    let mut ends = [0; HedgeEnd::ALL.len()];
    let seeds = if cfg!(debug_assertions) { SEEDS / 10 } else { SEEDS };
    for seed in 0..seeds {
        let mut peers = if seed % 2 == 0 { hedging() } else { migrating() };
        for (index, step) in seeded(seed).into_iter().enumerate() {
            if matches!(step, Step::Create | Step::Continue | Step::CreateInA | Step::ForkIntoB) {
                peers.apply(step);
                peers.apply(Step::Pass300Ms);
            }
            match (index as u64).wrapping_mul(seed | 1) % 23 {
                0 => peers.beside(UpstreamEvent::Opened),
                1 => peers.beside(fed(ROLE)),
                2 | 3 => peers.beside(fed(TOKEN)),
                4 => peers.beside(fed(END)),
                5 => peers.beside(cut()),
                _ => {}
            }
            peers.apply(step);
        }
        ends.iter_mut().zip(check(peers)).for_each(|(all, of)| *all += of);
    }
    assert!(ends.iter().zip(HedgeEnd::ALL).all(|(count, end)| *count > 0 || end == HedgeEnd::Unstarted), "{ends:?}");
}
