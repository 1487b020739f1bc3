//! What another config changes: endpoints, models, limits; and what it leaves as it was.

use super::place::{Place, SERVER, TOKEN, digest, endpoint, model};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

fn turn(model: &str, words: &str) -> Value {
    json!({"model": model, "input": words, "store": false})
}

/// What it says, or why it does not.
fn said((status, body): &(u16, String)) -> String {
    let body: Value = serde_json::from_str(body).unwrap_or_else(|_| panic!("{status}: {body}"));
    match status {
        200 => body["output"][0]["content"][0]["text"].as_str().unwrap().to_owned(),
        _ => body["error"]["code"].as_str().unwrap().to_owned(),
    }
}

fn counted(to: u32) -> String {
    (1..=to).map(|number| number.to_string()).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_change_of_the_file_is_taken_over_and_what_runs_runs_on() {
    let before = format!("{SERVER}{}{}", endpoint("sim", "latency", 30), model("m"));
    let place = Place::start("file", &before);
    std::thread::scope(|scope| {
        let running = scope.spawn(|| place.post("/v1/responses", "", &turn("m", "count from 1 to 120")));
        place.until("it runs", || place.metric("flashlane_upstream_turns_in_flight") == 1.0);
        let gpu = endpoint("gpu", "throughput", 0);
        place.write(&format!("{SERVER}{}{gpu}{}{}", endpoint("wafer", "latency", 0), model("m"), model("n")));
        place.until("it holds", || place.metric("flashlane_config_generation") == 2.0);
        let began = Instant::now();
        for model in ["m", "n"] {
            assert_eq!(said(&place.post("/v1/responses", "", &turn(model, "count from 1 to 90"))), counted(90));
        }
        assert!(began.elapsed() < Duration::from_secs(3), "new turns have the new endpoint");
        let row = "flashlane_upstream_turns_in_flight{endpoint=\"sim\"} 1";
        assert!(place.metrics().contains(row), "it runs on");
        assert_eq!(said(&running.join().unwrap()), counted(120));
    });
    place.until("nobody is left there", || !place.metrics().contains("endpoint=\"sim\""));
    let log = place.log();
    for told in [
        "generation=2",
        "changed=\"models n is new, ",
        "endpoint gpu is new",
        "endpoint wafer is new",
        "endpoint sim is gone",
    ] {
        assert!(log.contains(told), "{told} is not in {log}");
    }
    assert!(place.metrics().contains("flashlane_config_reloads_total{outcome=\"adopted\"} 1"));
}

#[test]
fn a_bad_file_changes_nothing_and_says_where_it_is_at_fault() {
    let good = format!("{SERVER}{}{}", endpoint("sim", "latency", 0), model("m"));
    let place = Place::start("bad", &good);
    place.write(&good.replace("tokens_per_second = 0", "tokens_per_second = -7"));
    place.until("it is refused", || place.metrics().contains("flashlane_config_reloads_total{outcome=\"refused\"} 1"));
    let log = place.log();
    assert!(
        log.contains("flashlane.toml:9: endpoints[0].tokens_per_second") && log.contains("the config of before holds"),
        "{log}"
    );
    assert_eq!(place.metric("flashlane_config_generation"), 1.0);
    assert_eq!(said(&place.post("/v1/responses", "", &turn("m", "count from 1 to 3"))), counted(3));
    // It is not told again and again, but whenever it is asked for.
    place.running.signal("HUP");
    place.until("it is refused again", || place.metrics().contains("{outcome=\"refused\"} 2"));
    place.reload(&good.replace("\"m\"", "\"other\""));
    assert_eq!(said(&place.post("/v1/responses", "", &turn("other", "count from 1 to 3"))), counted(3));
    assert_eq!(said(&place.post("/v1/responses", "", &turn("m", "hi"))), "model_not_found");
}

#[test]
fn a_file_that_is_not_there_yet_is_waited_for_and_nothing_is_read_twice() {
    let before = format!("{SERVER}{}{}", endpoint("sim", "latency", 0), model("m"));
    let place = Place::start("late", &before);
    let key = place.folder.join("late.key");
    let engine = format!(
        "[[endpoints]]\nname = \"engine\"\ntier = \"throughput\"\nbackend = \"openai\"\nbase_url = \"http://127.0.0.1:9/v1\"\napi_key_file = {key:?}\n"
    );
    place.write(&format!("{before}{engine}"));
    place.until("it is refused", || place.metric("flashlane_config_refused") == 1.0);
    std::fs::write(&key, "a-key").unwrap();
    place.until("it holds", || place.metric("flashlane_config_generation") == 2.0);
    assert_eq!(place.metric("flashlane_config_refused"), 0.0);
    place.write(&format!("{before}{engine}{}", model("n")));
    let body = turn("n", "count from 1 to 3");
    place.until("the next one holds", || place.post("/v1/responses", "", &body).0 == 200);
    assert_eq!(place.metric("flashlane_config_generation"), 3.0, "{}", place.log());
}

#[test]
fn what_only_a_restart_changes_is_named_and_stays() {
    let before = format!("{SERVER}{}{}", endpoint("sim", "latency", 0), model("m"));
    let place = Place::start("fixed", &before);
    let other = before.replace("listen = \"127.0.0.1:0\"\nadmin", "listen = \"127.0.0.1:1\"\nadmin");
    place.reload(&format!(
        "{other}{}[runtime]\nworker_threads = 1\n[store]\nrecords_max = 5\n\
         [server.limits]\nconnections_max = 100\nping_ms = 9000\n[telemetry]\nturns_kept_max = 7\n",
        model("n")
    ));
    let log = place.log();
    for field in [
        "server.listen",
        "runtime.worker_threads",
        "store.records_max",
        "server.limits.connections_max",
        "telemetry.turns_kept_max",
    ] {
        let told = format!("needs a restart: what it was at the start holds field=\"{field}\"");
        assert!(log.contains(&told), "{told} is not in {log}");
    }
    assert!(log.contains("changed=\"models n is new, server.limits.ping_ms\""), "{log}");
    assert_eq!(said(&place.post("/v1/responses", "", &turn("n", "count from 1 to 3"))), counted(3), "all else holds");
}

#[test]
fn a_limit_that_an_operator_set_holds_until_the_file_changes_that_one() {
    let limits = |requests: u32, slots: u32| {
        let limits =
            format!("[limits.latency]\nrequests_per_minute = {requests}\n[queue.latency]\nconcurrency_max = {slots}\n");
        format!("{SERVER}{limits}{}{}", endpoint("sim", "latency", 0), model("m"))
    };
    let place = Place::start("limits", &limits(100, 4));
    let (status, _) =
        place.ask("PATCH", "/limits/latency", "", r#"{"queue": {"concurrency_max": 9, "wait_ms_max": 77}}"#);
    assert_eq!(status, 200);
    place.reload(&limits(200, 4));
    let shown = || serde_json::from_str::<Value>(&place.ask("GET", "/limits", "", "").1).unwrap()["latency"].clone();
    let now = shown();
    assert_eq!(now["limits"]["requests_per_minute"], 200);
    assert_eq!((&now["queue"]["concurrency_max"], &now["queue"]["wait_ms_max"]), (&json!(9), &json!(77)));
    place.reload(&limits(200, 5));
    assert_eq!((&shown()["queue"]["concurrency_max"], &shown()["queue"]["wait_ms_max"]), (&json!(5), &json!(77)));
}

#[test]
fn the_config_that_holds_is_shown_without_what_it_names() {
    let canary = "canary-7f3a-upstream-key";
    let config = |folder: &std::path::Path, more: &str| {
        let file = folder.join("upstream.key");
        std::fs::write(&file, canary).unwrap();
        let engine = format!(
            "[[endpoints]]\nname = \"engine\"\ntier = \"throughput\"\nbackend = \"openai\"\nbase_url = \"http://127.0.0.1:9/v1\"\napi_key_file = {file:?}\n"
        );
        let admin = format!("[server.admin]\ntoken_sha256 = [\"{}\"]\n", digest(TOKEN));
        format!("{SERVER}{admin}{}{engine}{}{more}", endpoint("sim", "latency", 0), model("m"))
    };
    let place = Place::start_with("shown", |folder| config(folder, ""));
    assert_eq!(place.ask("GET", "/config", "", "").0, 401);
    let shown = |generation: u64| {
        let (status, body) = place.ask("GET", "/config", &format!("authorization: Bearer {TOKEN}\r\n"), "");
        let value: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status, &value["generation"]), (200, &json!(generation)), "{body}");
        assert!(!body.contains(canary) && !body.contains(&digest(TOKEN)), "{body}");
        value
    };
    let first = shown(1);
    assert!(first["source"].as_str().unwrap().ends_with("flashlane.toml"));
    let config_shown = &first["config"];
    assert_eq!(config_shown["session"]["keepalive_ms"], 5_000, "what nobody wrote down too");
    assert!(config_shown["endpoints"][1]["api_key_file"].as_str().unwrap().ends_with("upstream.key"));
    place.reload(&config(&place.folder, "[session]\nkeepalive_ms = 4000\n"));
    let second = shown(2);
    assert_eq!(second["config"]["session"]["keepalive_ms"], 4_000);
    assert!(second["read_unix_ms"].as_u64() >= first["read_unix_ms"].as_u64());
    assert!(!place.log().contains(canary) && !place.metrics().contains(canary));
}

#[test]
fn another_key_in_a_file_that_the_config_names_makes_another_endpoint() {
    let config = |folder: &std::path::Path| {
        let file = folder.join("upstream.key");
        std::fs::write(&file, "first-key").unwrap();
        let engine = "[[endpoints]]\nname = \"engine\"\ntier = \"throughput\"\nbackend = \"openai\"\nbase_url = \"http://127.0.0.1:9/v1\"";
        format!("{SERVER}{engine}\napi_key_file = {file:?}\n{}", model("m"))
    };
    let place = Place::start_with("secret", |folder| config(folder));
    std::fs::write(place.folder.join("upstream.key"), "second-key").unwrap();
    place.until("it is seen", || place.metric("flashlane_config_generation") == 2.0);
    assert!(place.log().contains("upstream.key, endpoint engine is another\""), "{}", place.log());
}
