//! What routing is told of a turn, from what real and simple clients send.

use crate::peer::fleet;
use flashlane_engine::router::{Effort, Media, Origin, RequestKind, ServiceTier, SessionKey, Traits};
use flashlane_engine::{Effect, Fleet, IdSource, Modality, Now, Owner, Session, Settings, Shared, TurnId};
use flashlane_wire::websocket::Encoder;
use serde_json::{Value, json};
use std::sync::Arc;

const OWNER: Owner = Owner([4; 32]);
const RECORDING: &str = include_str!("../../../../proto/codex-0.169.0/ws-ordinary.jsonl");

fn shared() -> Arc<Shared> {
    let mut fleet: Fleet = fleet();
    fleet.models[0].modalities = vec![Modality::Text, Modality::Image, Modality::File];
    Arc::new(Shared::new(Settings::default(), Arc::new(fleet), crate::peer::ring()))
}

fn websocket() -> Session {
    Session::websocket(shared(), IdSource::new([1; 32]), OWNER, Encoder::new(None), false)
}

fn http() -> Session {
    Session::http(shared(), IdSource::new([1; 32]), OWNER)
}

/// What the session's next turn asks with.
fn asked(session: &mut Session) -> (TurnId, Traits) {
    let ticket = |effect| if let Effect::Ask(id, ticket) = effect { Some((id, ticket.traits)) } else { None };
    std::iter::from_fn(|| session.poll_effect()).find_map(ticket).expect("the turn asks for its place")
}

fn traits_of(mut session: Session, create: &Value) -> Traits {
    session.handle_message(create.to_string().as_bytes(), Now::default());
    asked(&mut session).1
}

fn create(fields: &Value) -> Value {
    let mut create = json!({"type": "response.create", "model": "m", "input": "hi"});
    create.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    create
}

fn key(name: &str) -> Option<SessionKey> {
    Some(SessionKey::new(&OWNER, name))
}

#[test]
fn codex_turn_is_told_by_its_own_metadata() {
    let frames = RECORDING.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let mut creates = frames.filter(|line| line["from"] == "client").map(|mut line| line["frame"].take());
    let mut turn = creates.find(|frame| frame["type"] == "response.create" && frame.get("generate").is_none()).unwrap();
    let turn = turn.as_object_mut().unwrap();
    turn.remove("previous_response_id");
    turn.insert("model".to_owned(), json!("m"));
    let session = key("00000000-0000-7000-8000-000000000002");
    // The handshake came with a prewarm, and a sub-agent's session is another's.
    let handshake = Origin { kind: RequestKind::Prewarm, session: key("other"), ..Origin::default() };
    let traits = traits_of(websocket().with_origin(handshake), &json!(turn));
    assert_eq!(traits.origin, Origin { session, thread: session, ..Origin::default() });
    assert_eq!((traits.keys.thread, traits.keys.session), (session, session));
    assert_eq!((traits.owner, traits.effort), (OWNER, Some(Effort::Medium)));
    assert!(traits.tokens_input > 1000, "{}", traits.tokens_input);
}

#[test]
fn what_the_request_says_is_told() {
    let fields = json!({"service_tier": "priority", "reasoning": {"effort": "xhigh"}, "max_output_tokens": 77,
        "prompt_cache_key": "k", "client_metadata": {"x-openai-subagent": "review", "thread_id": "t"}});
    let traits = traits_of(websocket(), &create(&fields));
    assert_eq!((traits.service_tier, traits.effort), (ServiceTier::Priority, Some(Effort::Xhigh)));
    assert_eq!((traits.tokens_output_max, traits.origin.subagent), (Some(77), true));
    assert_eq!((traits.keys.thread, traits.keys.session), (key("t"), key("k")));
    let plain = traits_of(websocket(), &create(&json!({})));
    assert_eq!((plain.service_tier, plain.effort), (ServiceTier::Auto, None));
    assert_eq!((plain.tokens_output_max, plain.origin), (None, Origin::default()));
}

#[test]
fn a_chat_request_is_told_alike() {
    let origin = Origin { subagent: true, ..Origin::default() };
    let mut session = http().with_origin(origin);
    let body = json!({"model": "m", "service_tier": "flex", "reasoning_effort": "low", "max_tokens": 5,
        "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]});
    session.handle_chat_body(body.to_string().as_bytes(), Now::default());
    let (_, traits) = asked(&mut session);
    assert_eq!((traits.service_tier, traits.effort), (ServiceTier::Flex, Some(Effort::Low)));
    assert_eq!((traits.tokens_output_max, traits.origin), (Some(5), origin));
    assert_eq!(traits.media, Media { image: true, file: false });
    assert!(traits.keys.thread.is_some() && traits.keys.session.is_none());
}

#[test]
fn a_picture_of_an_earlier_turn_is_in_the_input_too() {
    let image = json!([{"role": "user", "content": [{"type": "input_image", "image_url": "data:image/png;base64,AA=="}]},
        {"role": "assistant", "content": "A dot."}, {"role": "user", "content": "Sure?"}]);
    let traits = traits_of(websocket(), &create(&json!({"input": image})));
    assert_eq!(traits.media, Media { image: true, file: false });
    assert!(traits_of(websocket(), &create(&json!({}))).media.is_empty());
}

#[test]
fn a_conversation_without_a_name_has_one_key_from_turn_to_turn() {
    let user = |text: &str| json!({"role": "user", "content": text});
    let answer = json!({"role": "assistant", "content": "Hello."});
    let key = |input: Value| traits_of(websocket(), &create(&json!({"input": input}))).keys.thread;
    let first = key(json!([user("hi")]));
    assert_eq!(first, key(json!([user("hi"), answer, user("more")])));
    assert_ne!(first, key(json!([user("ho")])));
    assert!(first.is_some());
}
