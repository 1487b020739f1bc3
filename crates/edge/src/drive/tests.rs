//! What a session in motion holds, and gives back however it ends.

use super::*;
use crate::state::Parts;
use flashlane_backend::{Backends, EndpointConfig, Kind, Tier as TierOf};
use flashlane_engine::admission::{self, Ending};
use flashlane_engine::router::{Duty, Order, Verdict};
use flashlane_engine::seal::Keyring;
use flashlane_engine::tokens::Counted;
use flashlane_engine::{EndpointId, Fleet, Model, Settings};
use flashlane_store::{Limits, MemoryStore};
use flashlane_telemetry::{Metrics, Turns};
use flashlane_wire::websocket::Encoder;
use std::future::poll_fn;
use std::num::NonZeroU32;

const ENDPOINT: EndpointId = EndpointId(0);
const SECOND: EndpointId = EndpointId(1);
const SILENT_MS: u32 = 60_000;

/// One endpoint that begins and does not go on, for so many turns at once.
fn state(turns_max: u32) -> Arc<State> {
    state_of(turns_max, &[(TierOf::Latency, SILENT_MS)])
}

/// The same with one of each of these tiers, and when it has a token; with two, the model hedges.
fn state_of(turns_max: u32, tiers: &[(TierOf, u32)]) -> Arc<State> {
    let slow = |(tier, first_token_ms): &(TierOf, u32)| EndpointConfig {
        first_token_ms: Some(*first_token_ms),
        tokens_per_second: Some(1),
        ..EndpointConfig::new(format!("slow-{tier:?}"), *tier, Kind::Simulator)
    };
    let backends = Backends::new(&tiers.iter().map(slow).collect::<Vec<_>>()).unwrap();
    let mut model = Model::named("demo");
    model.routing.hedges = tiers.len() > 1;
    let fleet = Fleet {
        endpoints: backends.endpoints().cloned().collect(),
        models: vec![model],
        created_unix_s: 1_700_000_000,
        rules: Arc::default(),
    };
    let ring = Keyring::new(&[7; 32], &[], 1 << 20).unwrap();
    let mut admission = admission::Settings::default();
    admission.limits.latency.turns_max = NonZeroU32::new(turns_max);
    Arc::new(State::new(Parts {
        config: EdgeConfig::default(),
        tls: None,
        admin_tls: None,
        shared: Arc::new(Shared::new(Settings::default(), Arc::new(fleet), Arc::new(ring))),
        keys: Vec::new(),
        backends: Arc::new(backends),
        shown: <_>::default(),
        admission,
        store: Arc::new(MemoryStore::new(Limits::default())),
        metrics: Arc::new(Metrics::new().unwrap()),
        turns: Arc::new(Turns::new(10)),
        trace_sample_percent: None,
    }))
}

fn websocket(shared: Arc<Shared>, ids: IdSource, owner: Owner) -> Session {
    Session::websocket(shared, ids, owner, Encoder::new(None), false)
}

fn drive(state: &Arc<State>) -> Drive {
    let current = state.current.load_full();
    let shared = Arc::clone(&current.shared);
    let caller = Caller { owner: Owner::default(), key: None, secret: None, generation: 1, only: None, shared };
    Drive::new(Arc::clone(state), (current, &caller), "req_1".into(), websocket).unwrap()
}

fn create(drive: &mut Drive, lane: &str, more: &str) {
    let event =
        format!(r#"{{"type":"response.create","model":"demo","input":"hi","store":false,"stream_id":"{lane}"{more}}}"#);
    let now = drive.now();
    drive.handle(now, |session, now| session.handle_message(event.as_bytes(), now));
}

async fn poll(drive: &mut Drive) {
    poll_fn(|cx| {
        let now = drive.now();
        drive.poll(cx, now, None);
        Poll::Ready(())
    })
    .await;
}

fn in_flight(state: &State) -> u32 {
    at(state, ENDPOINT)
}

fn at(state: &State, endpoint: EndpointId) -> u32 {
    state.desk.seen(endpoint, state.clock.now()).0.in_flight
}

fn told(drive: &mut Drive) -> String {
    String::from_utf8_lossy(drive.outgoing().ready()).into_owned()
}

/// As a panic in the middle of its states might leave it.
fn lose(drive: &mut Drive) {
    let now = drive.now();
    let fresh = websocket(Arc::clone(&drive.shared), IdSource::new([1; 32]), Owner::default());
    drive.handle(now, |session, _| {
        *session = fresh;
        panic!("a mistake in a state");
    });
}

#[tokio::test]
async fn what_a_session_loses_by_a_panic_is_free_at_once() {
    let state = state(1);
    let (mut first, mut second) = (drive(&state), drive(&state));
    create(&mut first, "a", "");
    create(&mut second, "a", "");
    poll(&mut first).await;
    assert_eq!((in_flight(&state), first.claims.grants().len(), second.queued.len()), (1, 1, 1));
    lose(&mut first);
    poll(&mut second).await;
    assert_eq!((in_flight(&state), second.claims.grants().len()), (1, 1), "the place is the next one's");
    assert!(state.live.first(9).iter().all(|(number, _)| *number == second.number), "it is seen to run no more");
    // And one that waits, too: whoever comes next is the first.
    let mut third = drive(&state);
    create(&mut third, "a", "");
    lose(&mut third);
    drop(second);
    let mut last = drive(&state);
    create(&mut last, "a", "");
    assert_eq!((in_flight(&state), last.claims.grants().len()), (1, 1));
}

/// A turn whose first token is late, and its second endpoint.
async fn hedged(state: &Arc<State>) -> Drive {
    let ticket = || {
        let (model, tried) = ("demo".into(), Vec::new());
        Ticket { model, traits: <_>::default(), tried, prefer: None, planned: None, goes_on: None }
    };
    for _ in 0..100 {
        let now = state.clock.now();
        let Asked::Granted(grant, _) = state.desk.ask(ticket(), std::iter::empty(), now).0 else { panic!("a place") };
        let verdict = Verdict::Served { ttft_ns: Some(1_000_000) };
        state.desk.release(grant, &Ending { verdict, tokens_input: 1_000, tokens_output: 0 }, now);
    }
    let mut drive = drive(state);
    create(&mut drive, "a", "");
    let until_ns = drive.now().after_ms(20_000);
    while drive.streams.len() < 2 && drive.now().mono_ns < until_ns {
        poll(&mut drive).await;
        tokio::task::yield_now().await;
    }
    assert_eq!((in_flight(state), at(state, SECOND), drive.claims.grants().len()), (1, 1, 2));
    drive
}

#[tokio::test]
async fn a_second_endpoints_place_is_free_however_the_session_ends() {
    let state = state_of(9, &[(TierOf::Latency, SILENT_MS), (TierOf::Throughput, SILENT_MS)]);
    let mut lost = hedged(&state).await;
    lose(&mut lost);
    assert_eq!((in_flight(&state), at(&state, SECOND)), (0, 0), "by a panic");
    let dropped = hedged(&state).await;
    drop(dropped);
    assert_eq!((in_flight(&state), at(&state, SECOND)), (0, 0));
    let mut mended = hedged(&state).await;
    let (stream, now) = (mended.streams[1].0, mended.now());
    mended.at = Some(stream);
    mended.panicked(now, |_, _| unreachable!("it is known whose mistake it was"));
    assert_eq!((in_flight(&state), at(&state, SECOND), mended.streams.len()), (0, 0, 0), "by one in its stream");
    assert!(told(&mut mended).contains("server_error"), "{}", told(&mut mended));
}

#[tokio::test]
async fn a_second_stream_that_has_won_is_the_turns_and_ends_with_it() {
    let state = state_of(9, &[(TierOf::Latency, SILENT_MS), (TierOf::Throughput, 200)]);
    let mut drive = hedged(&state).await;
    let turn = drive.streams[0].0;
    let until_ns = drive.now().after_ms(20_000);
    while in_flight(&state) > 0 && drive.now().mono_ns < until_ns {
        poll(&mut drive).await;
        tokio::task::yield_now().await;
    }
    assert_eq!((in_flight(&state), at(&state, SECOND), drive.claims.grants().len()), (0, 1, 1));
    assert_eq!(drive.streams.iter().map(|(of, _)| *of).collect::<Vec<_>>(), [turn]);
    let (_, live) = state.live.first(9).pop().unwrap();
    assert_eq!(live.turns.values().map(|turn| turn.phase.endpoint()).collect::<Vec<_>>(), [Some(SECOND)]);
    let said = told(&mut drive);
    let (_, id) = said.split_once("resp_").unwrap();
    let cancel = format!(r#"{{"type":"response.cancel","response_id":"resp_{}"}}"#, &id[..32]);
    let now = drive.now();
    drive.handle(now, |session, now| session.handle_message(cancel.as_bytes(), now));
    assert_eq!((at(&state, SECOND), drive.streams.len()), (0, 0));
}

/// Work that is a mistake, and one more when it is thrown away.
struct Broken;

impl Future for Broken {
    type Output = Counted;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Counted> {
        panic!("a mistake in a turn's work")
    }
}

impl Drop for Broken {
    fn drop(&mut self) {
        assert!(std::thread::panicking(), "a mistake in the middle of mending the first");
    }
}

/// The leave of three of four turns is taken from them as well: where assertions are compiled in, giving it back is the next mistakes.
#[tokio::test]
async fn a_panic_while_another_is_mended_loses_no_place() {
    let state = state(4);
    let mut drive = drive(&state);
    for lane in ["a", "b", "c", "d"] {
        create(&mut drive, lane, "");
    }
    let (grants, turns) = (drive.claims.grants(), drive.streams.iter().map(|(turn, _)| *turn).collect::<Vec<_>>());
    assert_eq!((in_flight(&state), grants.len(), turns.len()), (4, 4, 4));
    let now = drive.now();
    for grant in grants.iter().take(3) {
        state.desk.release(*grant, &Ending::NOTHING, now);
    }
    assert_eq!(in_flight(&state), 1);
    drive.work.push((turns[0], Work::Count(Box::pin(Broken))));
    poll(&mut drive).await;
    assert!(drive.is_broken() && drive.is_drained());
    assert_eq!(drive.take_close().map(|(code, _)| code), Some(1011));
    drop(drive);
    assert_eq!(in_flight(&state), 0);
}

#[tokio::test]
async fn what_begins_while_those_that_wait_are_looked_at_is_polled_in_the_same_poll() {
    let state = state(1);
    let (mut runs, mut waits) = (drive(&state), drive(&state));
    create(&mut runs, "a", "");
    create(&mut waits, "a", "");
    // The store is asked for what this one goes on from, once the turn before it has ended.
    create(&mut waits, "a", r#","previous_response_id":"resp_none""#);
    poll(&mut waits).await;
    assert!(!told(&mut waits).contains("error"), "{}", told(&mut waits));
    let cordoned = |order| Ok::<_, ()>(Order { duty: Duty::Cordoned, ..order });
    state.desk.obey(ENDPOINT, cordoned, waits.now()).unwrap();
    poll(&mut waits).await;
    let told = told(&mut waits);
    assert!(told.contains("server_is_overloaded") && told.contains("previous_response_not_found"), "{told}");
}
