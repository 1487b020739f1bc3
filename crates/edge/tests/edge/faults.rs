//! Our own mistakes and the machine's: a panic, a full or slow disk, a clock that jumps. Each ends what it is about, and nothing else.

use crate::double::{Double, Fault};
use crate::support::{Gateway, Socket, begun, simulated, soon, text, upstream};
use flashlane_engine::admission;
use flashlane_store::{Options, SqliteStore, Store};
use flashlane_testkit::upstream::Upstream;
use serde_json::{Value, json};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const PANIC: [Fault; 2] = [Fault::Panic, Fault::LatePanic];
const HOUR_MS: i64 = 60 * 60 * 1000;

fn create(lane: &str, store: bool) -> Value {
    json!({"type": "response.create", "model": "demo", "input": "count from 1 to 3", "store": store, "stream_id": lane})
}

async fn on(store: &Arc<Double>) -> Gateway {
    let store: Arc<dyn Store> = Arc::clone(store) as Arc<dyn Store>;
    Gateway::start_on(simulated(), store, |config, _| config.limits.store_ms_max = 150).await
}

async fn counted(gateway: &Gateway, line: &str) -> bool {
    gateway.metrics().await.lines().any(|told| told == line)
}

/// The last event of each of two turns that run beside each other, by lane.
async fn ends(socket: &mut Socket) -> [Value; 2] {
    let mut ends = [Value::Null, Value::Null];
    while ends.iter().any(Value::is_null) {
        let event = socket.event().await;
        let is_end = ["response.completed", "response.failed", "error"].iter().any(|kind| event["type"] == **kind);
        if is_end {
            let lane = usize::from(event["stream_id"] == "kept");
            ends[lane] = event;
        }
    }
    ends
}

#[tokio::test]
async fn a_panic_fails_its_turn_alone_and_the_socket_goes_on() {
    for fault in PANIC {
        let store = Double::new();
        let gateway = on(&store).await;
        let (mut socket, mut other) = (gateway.websocket().await, gateway.websocket().await);
        store.set(fault);
        socket.send(&create("kept", true)).await;
        socket.send(&create("not-kept", false)).await;
        let [not_kept, kept] = ends(&mut socket).await;
        assert_eq!(not_kept["type"], "response.completed");
        assert_eq!(kept["type"], "response.failed", "{fault:?}: {kept}");
        assert_eq!(kept["response"]["error"]["code"], "server_error");
        other.turn(&create("a", false)).await;
        store.set(Fault::None);
        socket.turn(&create("kept", true)).await;
        assert!(counted(&gateway, "flashlane_panics_total 1").await);
        assert!(counted(&gateway, "flashlane_upstream_turns_in_flight{endpoint=\"sim\"} 0").await);
    }
}

#[tokio::test]
async fn a_panic_in_an_http_turn_or_handler_is_a_500_with_its_request_id() {
    for fault in PANIC {
        let store = Double::new();
        let gateway = on(&store).await;
        store.set(fault);
        let body = json!({"model": "demo", "input": "hi"});
        for reply in [gateway.post("/v1/responses", &body).await, gateway.get("/v1/responses/resp_x").await] {
            assert_eq!(reply.status, 500, "{fault:?}: {reply:?}");
            assert!(reply.header("x-request-id").is_some());
            assert_eq!(reply.json()["error"]["code"], "server_error");
        }
        let streamed = gateway.post("/v1/responses", &json!({"model": "demo", "input": "hi", "stream": true})).await;
        let events = streamed.events();
        assert_eq!(events[events.len() - 2]["type"], "response.failed", "{events:?}");
        assert_eq!(events.last().unwrap(), "[DONE]");
        store.set(Fault::None);
        assert_eq!(gateway.post("/v1/responses", &body).await.status, 200);
        assert!(counted(&gateway, "flashlane_panics_total 3").await);
    }
}

#[tokio::test]
async fn a_store_that_is_full_or_slow_refuses_what_it_is_to_keep_by_a_503_and_recovers() {
    for fault in [Fault::Full, Fault::Slow(Duration::from_secs(30))] {
        let store = Double::new();
        let gateway = on(&store).await;
        let kept = gateway.post("/v1/responses", &json!({"model": "demo", "input": "hi"})).await.json();
        store.set(fault);
        let on_disk = [
            json!({"model": "demo", "input": "hi"}),
            json!({"model": "demo", "input": "hi", "background": true}),
            json!({"model": "demo", "input": "hi", "previous_response_id": kept["id"], "store": false}),
        ];
        for body in on_disk {
            let reply = gateway.post("/v1/responses", &body).await;
            assert_eq!(reply.status, 503, "{fault:?} {body}: {reply:?}");
            assert_eq!(reply.json()["error"]["code"], "store_unavailable");
            assert_eq!(reply.header("retry-after"), Some("1"));
        }
        let mut socket = gateway.websocket().await;
        socket.turn(&json!({"type": "response.create", "model": "demo", "input": "hi", "store": false})).await;
        socket.send(&json!({"type": "response.create", "model": "demo", "input": "hi"})).await;
        let failed = socket.until("response.failed").await;
        assert_eq!(failed.last().unwrap()["response"]["error"]["code"], "server_error");
        store.set(Fault::None);
        socket.turn(&json!({"type": "response.create", "model": "demo", "input": "hi"})).await;
        assert_eq!(gateway.get(&format!("/v1/responses/{}", kept["id"].as_str().unwrap())).await.status, 200);
    }
}

#[tokio::test]
async fn whatever_asks_a_slow_store_gets_a_503_in_time_and_is_counted() {
    let store = Double::new();
    let gateway = on(&store).await;
    let kept = gateway.post("/v1/responses", &json!({"model": "demo", "input": "hi"})).await.json();
    let response = format!("/v1/responses/{}", kept["id"].as_str().unwrap());
    let made = gateway.post("/v1/conversations", &json!({})).await.json();
    let conversation = format!("/v1/conversations/{}", made["id"].as_str().unwrap());
    let items = json!({"items": [{"type": "message", "role": "user", "content": "hi"}]}).to_string();
    store.set(Fault::Slow(Duration::from_secs(30)));
    let (reads, writes) = (6, 6);
    for (method, path, body) in [
        ("GET", response.clone(), ""),
        ("GET", format!("{response}/input_items"), ""),
        ("GET", conversation.clone(), ""),
        ("GET", format!("{conversation}/items"), ""),
        ("GET", format!("{conversation}/items/msg_1"), ""),
        ("POST", format!("{response}/cancel"), ""),
        ("DELETE", format!("{conversation}/items/msg_1"), ""),
        ("DELETE", conversation.clone(), ""),
        ("DELETE", response.clone(), ""),
        ("POST", conversation.clone(), r#"{"metadata":{"a":"b"}}"#),
        ("POST", "/v1/conversations".to_owned(), "{}"),
    ] {
        let reply = soon(&path, gateway.send(method, &path, "", body.as_bytes())).await;
        assert_eq!(reply.status, 503, "{method} {path}: {reply:?}");
        assert_eq!(reply.json()["error"]["code"], "store_unavailable", "{method} {path}");
    }
    let added = soon("items", gateway.send("POST", &format!("{conversation}/items"), "", items.as_bytes())).await;
    assert_eq!(added.status, 503, "{added:?}");
    let metrics = gateway.metrics().await;
    for (work, count) in [("read", reads), ("write", writes)] {
        let line = format!("flashlane_store_failures_total{{work=\"{work}\"}} {count}");
        assert!(metrics.contains(&line), "{line}: {metrics}");
    }
}

#[tokio::test]
async fn turns_that_are_not_kept_take_no_longer_while_the_disk_is_slow() {
    let store = Double::new();
    let gateway = on(&store).await;
    let body = json!({"model": "demo", "input": "hi", "store": false});
    let to_keep = json!({"model": "demo", "input": "hi"});
    let mut medians = Vec::new();
    for fault in [Fault::None, Fault::Slow(Duration::from_secs(30))] {
        store.set(fault);
        // What waits for the store waits beside them.
        let waiting = (0..8).map(|_| gateway.post("/v1/responses", &to_keep));
        let quick = async {
            let mut times = Vec::new();
            for _ in 0..60 {
                let began = Instant::now();
                assert_eq!(gateway.post("/v1/responses", &body).await.status, 200);
                times.push(began.elapsed());
            }
            times.sort();
            times[30]
        };
        let (_, median) = tokio::join!(futures_util::future::join_all(waiting), quick);
        medians.push(median);
    }
    println!("p50 of turns that are not kept: {:?} with a quick disk, {:?} with a slow one", medians[0], medians[1]);
    assert!(medians[1] < medians[0] * 3 + Duration::from_millis(20), "{medians:?}");
}

#[tokio::test]
async fn a_file_that_has_reached_its_limit_is_a_503_until_there_is_room() {
    let folder = std::env::temp_dir().join(format!("flashlane-full-{}", std::process::id()));
    let options = Options { file_bytes_max: 1 << 20, ..Options::new(folder.clone()) };
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&options).unwrap());
    let gateway = Gateway::start_on(simulated(), store, |_, _| {}).await;
    let large = json!({"model": "demo", "input": format!("say hi {}", "x".repeat(100_000))});
    let mut kept = Vec::new();
    let refused = loop {
        let reply = gateway.post("/v1/responses", &large).await;
        if reply.status != 200 {
            break reply;
        }
        kept.push(reply.json()["id"].as_str().unwrap().to_owned());
        assert!(kept.len() < 50, "it never is full");
    };
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (503, &json!("store_unavailable")));
    let not_kept = json!({"model": "demo", "input": "say hi", "store": false});
    assert_eq!(gateway.post("/v1/responses", &not_kept).await.status, 200);
    for id in &kept {
        assert_eq!(gateway.send("DELETE", &format!("/v1/responses/{id}"), "", b"").await.status, 200);
    }
    assert_eq!(gateway.post("/v1/responses", &large).await.status, 200);
    drop(gateway);
    let _ = std::fs::remove_dir_all(folder);
}

/// The system's time, and what is added to it.
fn wall(offset_ms: &Arc<AtomicI64>) -> impl Fn() -> u64 + Send + Sync + 'static {
    let offset_ms = Arc::clone(offset_ms);
    move || {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
        now.saturating_add_signed(offset_ms.load(Ordering::Relaxed))
    }
}

/// Asks until answers are dated so.
async fn until_shown(gateway: &Gateway, created_at: i64) {
    let ask = json!({"model": "demo", "input": "say hi"});
    loop {
        let reply = gateway.post("/v1/responses", &ask).await.json();
        if (reply["created_at"].as_i64().unwrap() - created_at).abs() < 60 {
            return;
        }
    }
}

#[tokio::test]
async fn a_clock_that_jumps_by_an_hour_ends_no_turn_and_no_connection_and_moves_no_deadline() {
    let offset_ms = Arc::new(AtomicI64::new(0));
    let server = Upstream::start(vec![begun()]).await.unwrap();
    let waiting =
        Gateway::start_with_wall(upstream(&server.base_url()), <_>::default(), wall(&offset_ms), |config, session| {
            session.keepalive_ms = 50;
            config.limits.ping_ms = 0;
        })
        .await;
    let storing = Gateway::start_with_wall(simulated(), <_>::default(), wall(&offset_ms), |_, _| {}).await;
    let mut socket = waiting.websocket().await;
    socket.send(&create("a", false)).await;
    socket.until("response.output_text.delta").await;
    let ask = json!({"model": "demo", "input": "say hi"});
    let kept = storing.post("/v1/responses", &ask).await.json();
    let created_at = kept["created_at"].as_i64().unwrap();

    for hours in [1, -1, 0] {
        offset_ms.store(hours * HOUR_MS, Ordering::Relaxed);
        // What clients are shown follows, within a second and a little.
        soon("the jump", until_shown(&storing, created_at + hours * 3600)).await;
        loop {
            // Those that came during the jump are in the socket's buffer.
            let asked = Instant::now();
            socket.until("keepalive").await;
            if asked.elapsed() > Duration::from_millis(20) {
                break;
            }
        }
        let began = Instant::now();
        for _ in 0..4 {
            assert_eq!(socket.until("keepalive").await.len(), 1);
        }
        let pace = Duration::from_millis(150)..Duration::from_secs(5);
        assert!(pace.contains(&began.elapsed()), "{:?}", began.elapsed());
        // What is kept is neither too old nor gone.
        let again = storing.get(&format!("/v1/responses/{}", kept["id"].as_str().unwrap())).await.json();
        assert_eq!((text(&again), &again["created_at"]), (text(&kept), &kept["created_at"]));
        let more = json!({"model": "demo", "input": "and now?", "previous_response_id": kept["id"]});
        assert_eq!(storing.post("/v1/responses", &more).await.status, 200);
    }
}

#[tokio::test]
async fn a_clock_that_jumps_by_an_hour_gives_no_allowance_and_takes_none() {
    let offset_ms = Arc::new(AtomicI64::new(0));
    let mut settings = admission::Settings::default();
    settings.limits.latency.requests_per_minute = NonZeroU32::new(2);
    settings.queue.latency.wait_ms_max = 0;
    let gateway = Gateway::start_with_wall(simulated(), settings, wall(&offset_ms), |_, _| {}).await;
    let ask = json!({"model": "demo", "input": "say hi", "store": false});
    for _ in 0..2 {
        assert_eq!(gateway.post("/v1/responses", &ask).await.status, 200);
    }
    for hours in [1, -1] {
        offset_ms.store(hours * HOUR_MS, Ordering::Relaxed);
        let began = Instant::now();
        // Longer than the clock on the wall goes unread.
        while began.elapsed() < Duration::from_millis(1_300) {
            let refused = gateway.post("/v1/responses", &ask).await;
            assert_eq!(refused.status, 429, "{refused:?}");
            let wait_s: u64 = refused.header("retry-after").unwrap().parse().unwrap();
            assert!((1..=60).contains(&wait_s), "{refused:?}");
        }
    }
}
