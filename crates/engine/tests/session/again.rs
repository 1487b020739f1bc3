//! Histories that are sent again: what goes up and what comes back is what it was when nobody recognised them.

use flashlane_engine::admission::Grant;
use flashlane_engine::{
    Answer, Effect, EndpointId, IdSource, Now, Owner, Record, Session, Settings, Shared, Tier, UpstreamEvent,
};
use flashlane_wire::chat;
use flashlane_wire::websocket::Encoder;
use std::fmt::Write as _;
use std::sync::Arc;

const STREAM: &[u8] = b"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"ok\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";

fn shared(recognised_bytes_max: usize) -> Arc<Shared> {
    let settings = Settings { recognised_bytes_max, ..Settings::default() };
    Arc::new(Shared::new(settings, Arc::new(crate::peer::fleet()), crate::peer::ring()))
}

/// What went up for a body or a message, and what the client got.
fn turn(shared: &Arc<Shared>, input: &str, over_websocket: bool) -> (String, String) {
    let (ids, now) = (IdSource::new([2; 32]), Now::default());
    let mut session = match over_websocket {
        true => Session::websocket(Arc::clone(shared), ids, Owner::default(), Encoder::new(None), false),
        false => Session::http(Arc::clone(shared), ids, Owner::default()),
    };
    match over_websocket {
        true => session.handle_message(format!(r#"{{"type":"response.create",{input}}}"#).as_bytes(), now),
        false => session.handle_responses_body(format!(r#"{{"stream":true,{input}}}"#).as_bytes(), now),
    }
    let (mut up, mut down) = (String::new(), String::new());
    while let Some(effect) = session.poll_effect() {
        if let Effect::Ask(turn, _) = effect {
            session.handle_asked(turn, Grant::outright(EndpointId(0), Tier::Latency).into(), now);
        } else if let Effect::Open(turn, request) = effect {
            for piece in chat::body(&request.model, &request.fields, &request.messages) {
                up.push_str(std::str::from_utf8(&piece).unwrap());
            }
            session.handle_upstream(turn, UpstreamEvent::Opened, now);
            session.handle_upstream(turn, UpstreamEvent::Bytes(STREAM), now);
        } else if let Effect::Commit(_, record) = effect {
            // The same items, in whichever runs.
            let runs = vec![Arc::new(record.items().cloned().collect())];
            write!(down, "{:?}", Record { runs, ..*record }).unwrap();
        } else {
            write!(down, "{effect:?}").unwrap();
        }
    }
    if let Some(Answer::Refused(refusal)) = session.answer() {
        write!(down, "{refusal:?}").unwrap();
    }
    down.push_str(&String::from_utf8_lossy(session.outgoing().ready()));
    (up, down)
}

/// Where two texts part, and what follows there.
fn parting(one: &str, other: &str) -> String {
    let same = one.bytes().zip(other.bytes()).take_while(|(one, other)| one == other).count();
    let from = |text: &str| String::from_utf8_lossy(&text.as_bytes()[same..text.len().min(same + 40)]).into_owned();
    format!("at {same} {:?}, {:?}; ", from(one), from(other))
}

/// A coding agent's items of one turn.
fn step(number: usize) -> Vec<String> {
    let text = format!("line {number}\\n\\t\\\"quoted\\\" é\\u00e9 ").repeat(20);
    vec![
        format!(r#"{{"type":"reasoning","id":"rs_{number}","summary":[]}}"#),
        format!(
            r#"{{"type":"message","role":"assistant","content":[{{"type":"output_text","text":"{text}","annotations":[]}}]}}"#
        ),
        format!(
            r#"{{"type":"function_call","call_id":"call_{number}","name":"run","arguments":"{{\"n\":{number}}}"}}"#
        ),
        format!(r#"{{"type":"function_call_output","call_id":"call_{number}","output":"{text}"}}"#),
    ]
}

fn body(items: &[String]) -> String {
    let tools = format!(r#"[{{"type":"function","name":"run","description":"{}"}}]"#, "d".repeat(2000));
    format!(
        r#""model":"m","store":true,"tools":{tools},"instructions":"Be brief.","input":[{}],"temperature":0"#,
        items.join(",")
    )
}

#[test]
fn an_agents_turns_are_the_same_whether_its_history_is_recognised_or_not() {
    for over_websocket in [false, true] {
        let (knowing, ignorant) = (shared(1 << 26), shared(0));
        let mut items = vec![format!(r#"{{"role":"user","content":"{}"}}"#, "go ".repeat(2000))];
        for number in 0..12 {
            let input = body(&items);
            // Each is sent twice, as after a lost connection.
            let new = turn(&ignorant, &input, over_websocket);
            for _ in 0..2 {
                let known = turn(&knowing, &input, over_websocket);
                assert!(known == new, "turn {number}: {}", parting(&known.0, &new.0) + &parting(&known.1, &new.1));
            }
            assert!(number == 0 || new.0.contains(&format!("\"call_{}\"", number - 1)));
            items.extend(step(number));
        }
        assert!(knowing.recognition.bytes() > 10_000 && ignorant.recognition.bytes() == 0);
    }
}

#[test]
fn what_is_wrong_behind_a_known_history_is_told_in_the_same_words() {
    let (knowing, ignorant) = (shared(1 << 26), shared(0));
    let mut items = vec![format!(r#"{{"role":"user","content":"{}"}}"#, "go ".repeat(2000))];
    items.extend(step(0));
    turn(&knowing, &body(&items), false);
    let orphan = r#"{"type":"function_call_output","call_id":"none","output":""}"#;
    for wrong in ["1", r#"{"role":"nobody","content":""}"#, orphan, r#"{"type":"item_reference"}"#, r#"{"a":}"#, ""] {
        let input = body(&[items.clone(), vec![wrong.to_owned()]].concat());
        let told = turn(&ignorant, &input, false);
        assert!(told.0.is_empty(), "{wrong}");
        assert_eq!(turn(&knowing, &input, false), told);
    }
}
