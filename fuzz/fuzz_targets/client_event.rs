//! Any bytes as a client's message or body: the session answers each with an event or an error, and never panics; what it would
//! send upstream is JSON.

#![no_main]

use flashlane_engine::admission::{self, Admission};
use flashlane_engine::seal::Keyring;
use flashlane_engine::tokens::Counted;
use flashlane_engine::{
    Answer, Delegated, Effect, Endpoint, Fleet, IdSource, Modality, Model, Now, Owner, Session, Settings, Shared,
    Standing, Tier, UpstreamEvent,
};
use flashlane_wire::websocket::Encoder;
use libfuzzer_sys::fuzz_target;
use std::sync::Arc;

fn shared() -> Arc<Shared> {
    let model = Model { modalities: vec![Modality::Text, Modality::Image, Modality::File], ..Model::named("m") };
    let endpoint = Endpoint { simulated: true, ..Endpoint::named("e", Tier::Latency) };
    let ring = Keyring::new(&[7; 32], &[], 1 << 20).expect("one key");
    let fleet = Fleet { endpoints: vec![endpoint], models: vec![model], ..Fleet::default() };
    let settings = Settings { children_max: 4, ..Settings::default() };
    Arc::new(Shared::new(settings, Arc::new(fleet), Arc::new(ring)))
}

/// Runs what the session wants, with an upstream that says one word.
fn settle(session: &mut Session, shared: &Arc<Shared>) {
    let now = Now::default();
    let mut admission = Admission::new(&admission::Settings::default(), Arc::clone(&shared.fleet), [0; 32]);
    while let Some(effect) = session.poll_effect() {
        match effect {
            Effect::Ask(turn, ticket) => session.handle_asked(turn, admission.ask(*ticket, now), now),
            Effect::Open(turn, request) => {
                let body = flashlane_wire::chat::body(&request.model, &request.fields, &request.messages);
                let body: Vec<u8> = body.into_iter().flatten().collect();
                serde_json::from_slice::<serde_json::Value>(&body).expect("the upstream's body is JSON");
                session.handle_upstream(turn, UpstreamEvent::Opened, now);
                let stream = b"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
                session.handle_upstream(turn, UpstreamEvent::Bytes(stream), now);
            }
            Effect::Load(turn, _) => session.handle_loaded(turn, Ok(None), now),
            Effect::Find(turn, ids) => session.handle_found(turn, Ok(vec![None; ids.len()]), now),
            Effect::Join(turn, _) => session.handle_joined(turn, Standing::default(), now),
            Effect::Delegate(_, delegation) => {
                delegation.children.into_iter().for_each(|child| run_child(child, shared));
            }
            Effect::Commit(turn, _) => session.handle_committed(turn, Ok(()), now),
            Effect::Count(turn, _) => session.handle_counted(turn, &Counted::Beyond, now),
            Effect::Release(grant, ending) => drop(admission.release(grant, &ending, now)),
            Effect::Prepare(turn, _) => session.handle_prepared(turn, None, now),
            Effect::Inquire(..) => unreachable!("no model has a guard"),
            Effect::Prefilled(_) => unreachable!("no prompt is read ahead where none may be"),
            Effect::Hedge(..) | Effect::Adopt(..) => unreachable!("no model hedges"),
            Effect::Look(..) | Effect::Forget(_) => unreachable!("nobody waits where nothing is limited"),
            Effect::Park(_)
            | Effect::Abort(_)
            | Effect::Answering(_)
            | Effect::Warm(_)
            | Effect::EndJob(..)
            | Effect::Finish(..)
            | Effect::Close { .. } => {}
        }
    }
}

fn run_child(child: Delegated, shared: &Arc<Shared>) {
    let now = Now::default();
    let mut session = Session::http(Arc::clone(shared), IdSource::new([0; 32]), Owner::default());
    session.handle_child(child.draft, now);
    settle(&mut session, shared);
    match session.answer() {
        Some(Answer::Background(enlisting)) => session.handle_enlisted(enlisting.turn, Ok(()), now),
        Some(Answer::Refused(_)) => {}
        other => unreachable!("a child is kept, or refused: {other:?}"),
    }
    settle(&mut session, shared);
}

fuzz_target!(|bytes: &[u8]| {
    let shared = shared();
    let now = Now::default();
    let ids = || IdSource::new([0; 32]);
    let mut session = Session::websocket(Arc::clone(&shared), ids(), Owner::default(), Encoder::new(None), false);
    session.handle_message(bytes, now);
    settle(&mut session, &shared);
    assert!(!session.outgoing().is_empty(), "a message is answered");
    let bodies: [fn(&mut Session, &[u8], Now); 4] = [
        Session::handle_responses_body,
        Session::handle_compact_body,
        Session::handle_input_tokens_body,
        Session::handle_chat_body,
    ];
    for handle_body in bodies {
        let mut session = Session::http(Arc::clone(&shared), ids(), Owner::default());
        handle_body(&mut session, bytes, now);
        settle(&mut session, &shared);
        assert!(session.answer().is_some(), "a request is answered");
    }
});
