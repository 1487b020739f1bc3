//! A model whose turns migrate: an endpoint that fails behind its first token, in each way that the table of faults knows and cut at every byte,
//! is gone on from by another, and its client reads one whole answer.

use crate::client::{End, Transport, ask, exchange};
use crate::rig::Gateway;
use bytes::Bytes;
use flashlane_testkit::upstream::{Options, Step, Upstream, chat_events, stream, wire};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;

/// What the model says, a token each.
const TEXTS: [&str; 4] = ["Grüße ", "an \"alle\"\n", "\u{1f600} und", " mehr"];
const IDLE_MS: u64 = 300;

struct Pair {
    first: Upstream,
    second: Upstream,
    gateway: Gateway,
    config: PathBuf,
}

impl Pair {
    async fn start(name: &str) -> Self {
        let again = || Upstream::start_with(Options::default(), vec![vec![Step::Expect, Step::Reset]]);
        let (first, second) = (again().await.unwrap(), again().await.unwrap());
        let endpoint = |tier: &str, upstream: &Upstream| {
            let url = upstream.base_url();
            format!(
                "[[endpoints]]\nname = \"{tier}\"\ntier = \"{tier}\"\nbackend = \"openai\"\ndialect = \"vllm\"\nbase_url = {url:?}\n\
                 idle_ms_max = {IDLE_MS}\nidentity = \"one\"\n"
            )
        };
        let config = [
            "[routing]\nbreaker_failures_max = 1000000\noutlier_factor = 0\nretries_per_second_max = 1000000\n"
                .to_owned(),
            format!("[queue.latency]\ntoken_idle_ms_max = {}\n", 2 * IDLE_MS),
            endpoint("latency", &first),
            endpoint("throughput", &second),
            "[[models]]\nname = \"m\"\nroute = \"latency-first\"\nmigrations_max = 1\n".to_owned(),
        ];
        let path =
            PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("migrate-{}-{name}.toml", std::process::id()));
        std::fs::write(&path, config.concat()).unwrap();
        let gateway = Gateway::start_with(&["--config", path.to_str().unwrap()], &[("FLASHLANE_LOG", "error")]);
        Self { first, second, gateway, config: path }
    }

    /// The whole answer, where the first endpoint gives so many texts and then fails so.
    async fn survives(&mut self, texts: usize, fault: Vec<Step>, what: &str) {
        for transport in Transport::BOTH {
            self.first.play(fault.clone());
            self.second.play(again(stream(&chat_events(&TEXTS[texts..]))));
            let asked = self.second.seen().requests.len();
            let body = json!({"model": "m", "input": "hello", "temperature": 0, "max_output_tokens": 100});
            let end = ask(&self.gateway.clients, transport, &body).await;
            assert_eq!(end, End::Completed(TEXTS.concat()), "{what}, {transport:?}");
            let told = &self.second.seen().requests[asked..];
            let [request] = told else { panic!("{what}: asked {} times", told.len()) };
            assert_told(&serde_json::from_slice(&request.body).unwrap(), texts, what);
        }
    }

    async fn migrations(&self, labels: &str) -> u64 {
        let (_, text) = exchange(&self.gateway.admin, "GET /metrics", "").await;
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("flashlane_migrations_total{{{labels}}} ")));
        line.unwrap_or_else(|| panic!("no {labels}")).parse().unwrap()
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.config));
    }
}

/// What the endpoint that goes on is asked, behind so many texts.
fn assert_told(body: &Value, texts: usize, what: &str) {
    let begun = (texts > 0).then(|| json!({"role": "assistant", "content": TEXTS[..texts].concat()}));
    let messages: Vec<_> = [json!({"role": "user", "content": "hello"})].into_iter().chain(begun).collect();
    assert_eq!(body["messages"], json!(messages), "{what}");
    assert_eq!(body["continue_final_message"].as_bool().unwrap_or(false), texts > 0, "{what}");
    assert_eq!(body["max_completion_tokens"], 100 - texts, "{what}");
}

fn again(mut steps: Vec<Step>) -> Vec<Step> {
    steps.push(Step::Again);
    steps
}

/// The role, and so many texts.
fn begun(texts: usize) -> Vec<Step> {
    let mut steps = vec![Step::Expect, Step::stream_head()];
    steps.extend(chat_events(&TEXTS).into_iter().take(1 + texts).map(Step::Chunk));
    steps
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_cut_at_any_byte_is_gone_on_with() {
    let mut pair = Pair::start("cut").await;
    let bytes = wire(&stream(&chat_events(&TEXTS)));
    let text = std::str::from_utf8(&bytes).unwrap();
    // Where each text is there: with the empty line behind its event.
    let there: Vec<usize> = chat_events(&TEXTS)[1..=TEXTS.len()]
        .iter()
        .map(|event| {
            let event = std::str::from_utf8(event).unwrap();
            text.find(event).unwrap() + event.len()
        })
        .collect();
    let finished = text.find("\"finish_reason\":\"stop\"").unwrap();
    let finished = finished + text[finished..].find("\n\n").unwrap() + 2;
    let step = if cfg!(debug_assertions) { 3 } else { 1 };
    let mut spliced = 0;
    for at in (0..finished).step_by(step) {
        let texts = there.iter().filter(|end| at >= **end).count();
        pair.survives(texts, vec![Step::Expect, Step::Send(bytes.slice(..at))], &format!("cut at {at}")).await;
        spliced += 2 * u64::from(texts > 0);
    }
    assert_eq!(pair.migrations("outcome=\"spliced\",reason=\"cut\"").await, spliced);
    assert_eq!(pair.migrations("outcome=\"failed\",reason=\"cut\"").await, 0);
    let (_, metrics) = exchange(&pair.gateway.admin, "GET /metrics", "").await;
    for line in metrics.lines().filter(|line| line.starts_with("flashlane_tier_turns_running{")) {
        assert!(line.ends_with(" 0"), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_fault_behind_a_token_is_gone_on_from() {
    const ERROR: &str =
        "data: {\"error\":{\"message\":\"Encountered a server error.\",\"type\":\"server_error\",\"code\":500}}\n\n";
    let mut pair = Pair::start("faults").await;
    for texts in 1..TEXTS.len() {
        let with = |more: Vec<Step>| begun(texts).into_iter().chain(more).collect::<Vec<_>>();
        let chunk = |text: &'static str| Step::Chunk(Bytes::from_static(text.as_bytes()));
        let comment = [Step::Wait(Duration::from_millis(20)), chunk(": alive\n\n")];
        let comments = std::iter::repeat_n(comment, 200).flatten().collect();
        for (fault, steps) in [
            ("a reset", vec![Step::Wait(Duration::from_millis(30)), Step::Reset]),
            ("an end without a reason", vec![Step::Chunk(Bytes::new())]),
            ("what is no JSON", vec![chunk("data: <html>bad gateway</html>\n\n")]),
            ("an error in the stream", vec![chunk(ERROR)]),
            ("silence", vec![Step::Hold]),
            ("signs of life", comments),
        ] {
            pair.survives(texts, with(steps), fault).await;
        }
    }
    let turns = 2 * (TEXTS.len() as u64 - 1);
    assert_eq!(pair.migrations("outcome=\"spliced\",reason=\"silent\"").await, 2 * turns);
    assert_eq!(pair.migrations("outcome=\"spliced\",reason=\"error\"").await, 2 * turns);
    assert_eq!(pair.migrations("outcome=\"spliced\",reason=\"cut\"").await, 2 * turns);
}

fn call(deltas: &[Value]) -> Vec<Bytes> {
    let event = |choice: Value| Bytes::from(format!("data: {}\n\n", json!({"id": "c", "choices": [choice]})));
    let delta = |delta: &Value| event(json!({"index": 0, "delta": delta, "finish_reason": null}));
    let mut events: Vec<_> = deltas.iter().map(delta).collect();
    events.push(event(json!({"index": 0, "delta": {}, "finish_reason": "tool_calls"})));
    events.push(Bytes::from_static(b"data: [DONE]\n\n"));
    events
}

/// A call of one tool whose arguments come piece by piece.
fn called(id: &str, pieces: &[&str]) -> Vec<Value> {
    let begin = json!({"tool_calls": [{"index": 0, "id": id, "type": "function", "function": {"name": "run", "arguments": ""}}]});
    let piece = |piece: &&str| json!({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]});
    [begin].into_iter().chain(pieces.iter().map(piece)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_is_cut_at_any_byte_is_never_spliced_into_another() {
    let pair = Pair::start("calls").await;
    let first = call(&called("c0", &["{\"cmd\":", "\"ls é", " -l\"}"]));
    let bytes = wire(&stream(&first));
    for (pieces, step) in [(["{\"cmd\":\"l", "s é -l\"", "}"], 2), (["{\"cmd\":\"p", "wd", "\"}"], 11)] {
        let whole = pieces.concat();
        for at in (0..bytes.len() - 60).step_by(step) {
            pair.first.play(vec![Step::Expect, Step::Send(bytes.slice(..at))]);
            pair.second.play(again(stream(&call(&called("c9", &pieces)))));
            let tools = json!([{"type": "function", "name": "run", "parameters": {"type": "object"}}]);
            let body = json!({"model": "m", "input": "hello", "tools": tools, "store": false});
            let (status, answer) = exchange(&pair.gateway.clients, "POST /v1/responses", &body.to_string()).await;
            let response: Value = serde_json::from_str(&answer).unwrap();
            assert_eq!((status, &response["status"]), (200, &json!("completed")), "{at}: {answer}");
            let done = response["output"].as_array().unwrap();
            // What was whole before the cut may be the first's.
            let is_whole = [whole.as_str(), "{\"cmd\":\"ls é -l\"}"].contains(&done[0]["arguments"].as_str().unwrap());
            assert!(done.len() == 1 && is_whole, "{at}: {answer}");
            let end =
                ask(&pair.gateway.clients, Transport::Http, &json!({"model": "m", "input": "hello", "tools": tools}))
                    .await;
            assert_eq!(end, End::Completed(String::new()), "{at}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_empties_an_endpoint_of_what_runs_there() {
    let pair = Pair::start("drained").await;
    let order = |body: &'static str| exchange(&pair.gateway.admin, "PATCH /endpoints/latency", body);
    for (number, transport) in Transport::BOTH.into_iter().enumerate() {
        let comment = [Step::Wait(Duration::from_millis(20)), Step::Chunk(Bytes::from_static(b": alive\n\n"))];
        pair.first.play(begun(2).into_iter().chain(std::iter::repeat_n(comment, 500).flatten()).collect());
        pair.second.play(again(stream(&chat_events(&TEXTS[2..]))));
        let body = json!({"model": "m", "input": "hello", "temperature": 0, "max_output_tokens": 100});
        let drain = async {
            pair.first.until(|seen| seen.requests.len() > number).await;
            tokio::time::sleep(Duration::from_millis(150)).await;
            order(r#"{"state": "draining", "migrate": true}"#).await
        };
        let (end, (status, _)) = tokio::join!(ask(&pair.gateway.clients, transport, &body), drain);
        assert_eq!((status, end), (200, End::Completed(TEXTS.concat())), "{transport:?}");
        assert_eq!(pair.migrations("outcome=\"spliced\",reason=\"drained\"").await, number as u64 + 1);
        assert_eq!(order(r#"{"state": null}"#).await.0, 200);
    }
    // A background response as well, which no connection holds.
    let comment = [Step::Wait(Duration::from_millis(20)), Step::Chunk(Bytes::from_static(b": alive\n\n"))];
    pair.first.play(begun(2).into_iter().chain(std::iter::repeat_n(comment, 500).flatten()).collect());
    let body = json!({"model": "m", "input": "hello", "max_output_tokens": 100, "background": true});
    let (_, answer) = exchange(&pair.gateway.clients, "POST /v1/responses", &body.to_string()).await;
    let id = serde_json::from_str::<Value>(&answer).unwrap()["id"].as_str().unwrap().to_owned();
    pair.first.until(|seen| seen.requests.len() > Transport::BOTH.len()).await;
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_eq!(order(r#"{"state": "draining", "migrate": true}"#).await.0, 200);
    for _ in 0..100 {
        let (_, answer) = exchange(&pair.gateway.clients, &format!("GET /v1/responses/{id}"), "").await;
        let response: Value = serde_json::from_str(&answer).unwrap();
        if response["status"] == "completed" {
            assert_eq!(response["output"][0]["content"][0]["text"], TEXTS.concat());
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(pair.migrations("outcome=\"spliced\",reason=\"drained\"").await, 3);
    assert_eq!(order(r#"{"state": null}"#).await.0, 200);
    let (status, answer) = order(r#"{"migrate": true}"#).await;
    assert!(status == 400 && answer.contains("draining"), "{status} {answer}");
}
