//! Background responses: kept before they are told of, numbered from 0, ended by one record.

use flashlane_engine::admission::Grant;
use flashlane_engine::tokens::Counted;
use flashlane_engine::{
    Answer, Effect, EndpointId, Enlisting, ErrorKind, IdSource, Now, Outcome, Owner, Record, Refusal, Session,
    Settings, Shared, Status, Tier, TurnId, UpstreamEvent,
};
use serde_json::{Value, json};
use std::sync::Arc;

/// A session of one background request, and what its driver has seen.
struct Job {
    session: Session,
    turn: TurnId,
    events: Vec<Value>,
    ended: Option<Record>,
    outcome: Option<Outcome>,
    aborted: bool,
    released: u32,
    asked: u32,
}

const BODY: &str = r#"{"model":"m","input":"hi","background":true,"stream":true}"#;

impl Job {
    /// Up to where it waits to be kept.
    fn new(body: &str) -> (Self, Box<Enlisting>) {
        let settings = Settings { children_max: 2, ..Settings::default() };
        let shared = Arc::new(Shared::new(settings, Arc::new(crate::peer::fleet()), crate::peer::ring()));
        let mut session = Session::http(shared, IdSource::new([3; 32]), Owner::default());
        session.handle_responses_body(body.as_bytes(), Now::default());
        if let Some(Effect::Count(turn, job)) = session.poll_effect() {
            let counted = Counted::All(job.texts.iter().map(|_| 500).collect());
            session.handle_counted(turn, &counted, Now::default());
        }
        let Some(Answer::Background(enlisting)) = session.answer() else { panic!("it does not want to be kept") };
        let turn = enlisting.turn;
        let mut job = Self {
            session,
            turn,
            events: Vec::new(),
            ended: None,
            outcome: None,
            aborted: false,
            released: 0,
            asked: 0,
        };
        job.settle();
        assert!(job.events.is_empty(), "nothing is told of what is not kept");
        (job, enlisting)
    }

    fn enlisted() -> Self {
        let (mut job, _) = Self::new(BODY);
        job.session.handle_enlisted(job.turn, Ok(()), Now::default());
        job.settle();
        job
    }

    fn settle(&mut self) {
        while let Some(effect) = self.session.poll_effect() {
            match effect {
                Effect::Ask(turn, ticket) => {
                    assert!(ticket.traits.background, "admission is told that it can wait");
                    self.asked += 1;
                    let grant = Grant::outright(EndpointId(0), Tier::Latency);
                    self.session.handle_asked(turn, grant.into(), Now::default());
                }
                Effect::EndJob(_, record) => assert!(self.ended.replace(*record).is_none(), "it ends once"),
                Effect::Finish(_, outcome) => self.outcome = Some(*outcome),
                Effect::Abort(_) => self.aborted = true,
                Effect::Release(..) => self.released += 1,
                Effect::Look(..) | Effect::Forget(_) | Effect::Inquire(..) => panic!("nobody waits here"),
                Effect::Hedge(..) | Effect::Adopt(..) => panic!("nobody waits for its first token"),
                Effect::Open(..) | Effect::Answering(_) | Effect::Park(_) | Effect::Warm(_) => {}
                Effect::Prepare(..) | Effect::Prefilled(_) => panic!("no WebSocket"),
                Effect::Delegate(..) | Effect::Join(..) => panic!("no children"),
                Effect::Load(..) | Effect::Find(..) | Effect::Count(..) | Effect::Commit(..) | Effect::Close { .. } => {
                    panic!("{effect:?}")
                }
            }
        }
        let events = self.session.outgoing().take_events();
        self.events.extend(events.iter().map(|event| serde_json::from_slice::<Value>(event).unwrap()));
    }

    fn feed(&mut self, line: &str) {
        let bytes = format!("data: {line}\n\n");
        self.session.handle_upstream(self.turn, UpstreamEvent::Bytes(bytes.as_bytes()), Now::default());
        self.settle();
    }

    fn opened() -> Self {
        let mut job = Self::enlisted();
        job.session.handle_upstream(job.turn, UpstreamEvent::Opened, Now::default());
        job.feed(r#"{"choices":[{"index":0,"delta":{"content":"Hi"}}]}"#);
        job
    }

    fn types(&self) -> Vec<&str> {
        self.events.iter().map(|event| event["type"].as_str().unwrap()).collect()
    }

    fn record(&self) -> Value {
        serde_json::from_slice(&self.ended.as_ref().unwrap().response).unwrap()
    }
}

#[test]
fn it_is_kept_first_then_queued_in_progress_and_ended_by_its_record() {
    let (job, enlisting) = Job::new(BODY);
    let queued: Value = serde_json::from_slice(&enlisting.record.response).unwrap();
    assert_eq!((&queued["status"], &queued["background"]), (&json!("queued"), &json!(true)));
    assert_eq!(queued["service_tier"], "auto", "what serves it is not known yet");
    assert_eq!((enlisting.record.outputs, enlisting.record.items().count(), enlisting.is_streamed), (0, 1, true));
    assert_eq!(&enlisting.request[..], BODY.as_bytes());
    drop(job);

    let mut job = Job::opened();
    for line in [r#"{"choices":[{"index":0,"delta":{"content":" you"},"finish_reason":"stop"}]}"#, "[DONE]"] {
        job.feed(line);
    }
    let types = job.types();
    assert_eq!(types[..3], ["response.created", "response.queued", "response.in_progress"]);
    assert_eq!(types.last(), Some(&"response.completed"));
    assert_eq!(job.events[1]["response"], queued);
    assert_eq!(job.events[2]["response"]["status"], "in_progress");
    let numbers: Vec<_> = job.events.iter().map(|event| event["sequence_number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (0..numbers.len() as u64).collect::<Vec<_>>());
    let record = job.ended.as_ref().unwrap();
    assert_eq!((record.items().count(), record.outputs), (2, 1));
    assert_eq!(job.record(), job.events.last().unwrap()["response"], "what is retrieved is what was streamed");
    assert_eq!(job.outcome.as_ref().unwrap().status, Status::Completed);
    assert!(job.session.is_drained());
}

#[test]
fn what_cannot_be_kept_is_refused_and_never_begins() {
    let long = json!([{"role": "user", "content": "word ".repeat(200)}, {"role": "assistant", "content": "done"},
        {"role": "user", "content": "and now?"}]);
    let compacting = json!({"model": "m", "background": true, "input": long,
        "context_management": [{"type": "compaction", "compact_threshold": 50}]});
    for body in [BODY.to_owned(), compacting.to_string()] {
        let (mut job, _) = Job::new(&body);
        let refusal = Refusal::new(ErrorKind::Overloaded, "too many");
        job.session.handle_enlisted(job.turn, Err(refusal.clone()), Now::default());
        job.settle();
        let Some(Answer::Refused(refused)) = job.session.answer() else { panic!("not refused") };
        assert_eq!(refused, refusal);
        assert!(job.events.is_empty() && job.ended.is_none() && job.released == 0);
        assert_eq!(job.outcome.as_ref().unwrap().status, Status::Refused);
        assert!(job.session.is_drained());
    }
}

#[test]
fn a_cancel_keeps_what_was_finished_and_says_nothing_more() {
    let mut job = Job::opened();
    let told = job.events.len();
    job.session.handle_cancelled(job.turn, Now::default());
    job.settle();
    assert_eq!(job.record()["status"], "cancelled");
    assert_eq!(job.record()["output"], json!([]), "the message was not finished");
    assert_eq!((job.events.len(), job.aborted, job.released), (told, true, 1));
    assert_eq!(job.outcome.as_ref().unwrap().status, Status::Cancelled);
    job.session.handle_cancelled(job.turn, Now::default());
    job.settle();
    assert!(job.session.is_drained());
}

#[test]
fn what_fails_ends_by_response_failed_and_a_record_of_it() {
    let mut job = Job::opened();
    let refusal = Refusal::new(ErrorKind::Internal, "The server stops.");
    job.session.handle_stopped(job.turn, &refusal, Now::default());
    job.settle();
    assert_eq!(job.types().last(), Some(&"response.failed"));
    assert_eq!(job.record(), job.events.last().unwrap()["response"]);
    assert_eq!(job.record()["error"]["message"], "The server stops.");
    assert_eq!((job.aborted, job.released), (true, 1));
}

#[test]
fn background_wants_to_be_stored() {
    let shared = Arc::new(Shared::new(Settings::default(), Arc::new(crate::peer::fleet()), crate::peer::ring()));
    let mut session = Session::http(shared, IdSource::new([3; 32]), Owner::default());
    let body = br#"{"model":"m","input":"hi","background":true,"store":false}"#;
    session.handle_responses_body(body, Now::default());
    let Some(Answer::Refused(refusal)) = session.answer() else { panic!("not refused") };
    assert_eq!((refusal.kind, refusal.param.as_deref()), (ErrorKind::InvalidValue, Some("store")));
}

#[test]
fn the_children_of_a_response_that_can_wait_can_wait() {
    let body = BODY.replace(
        "\"input\"",
        r#""flashlane":{"fan_out":[{"name":"a","input":"x"},{"name":"b","input":"x","tier":"throughput"}]},"input""#,
    );
    let (mut job, _) = Job::new(&body);
    job.session.handle_enlisted(job.turn, Ok(()), Now::default());
    job.settle();
    assert_eq!(job.asked, 2);
}
