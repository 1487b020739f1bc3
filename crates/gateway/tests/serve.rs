//! The built binary from its first line to its exit code: a gateway on free ports, and `flashlane chat` as its client.

#![allow(clippy::unwrap_used, reason = "a test may fail this way")]

mod rig;

use rig::{Gateway, Running, run, run_with_input, text};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Output;
use std::time::{Duration, Instant};
use std::{env, fs};

/// At the simulated GPU's pace this takes half a minute.
const COUNT_LONG: &str = "count from 1 to 1000";

/// A file that is gone after the test.
struct TempFile(PathBuf);

impl TempFile {
    fn new(name: &str, text: &str) -> Self {
        let path = env::temp_dir().join(format!("flashlane-gateway-{name}-{}.toml", std::process::id()));
        fs::write(&path, text).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn chat(gateway: &Gateway, arguments: &[&str]) -> Output {
    run(&[&["chat", "--url", &gateway.websocket()], arguments].concat())
}

#[track_caller]
fn assert_said(output: &Output, code: i32, stderr: &str) {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.contains(stderr), "{said}");
}

#[test]
fn the_embedded_default_is_ready_within_a_second_and_says_what_is_simulated() {
    let began = Instant::now();
    let gateway = Gateway::start(&[]);
    assert!(began.elapsed() < Duration::from_secs(1));
    for part in
        ["flashlane-demo ", "flashlane-demo-gpu", "gpt-5.3-codex-spark", "latency (simulated)", &gateway.websocket()]
    {
        assert!(gateway.said.contains(part), "{part} is missing in\n{}", gateway.said);
    }
}

#[test]
fn a_chat_turn_answers_on_stdout_and_tells_its_tier_beside() {
    let gateway = Gateway::start(&[]);
    let output = chat(&gateway, &["count", "from", "1", "to", "5"]);
    assert_said(&output, 0, "latency tier (simulated) | TTFT ");
    assert_said(&output, 0, " ms in all, ");
    assert_eq!(text(&output.stdout), "1\n2\n3\n4\n5\n");
    let output = chat(&gateway, &["--model", "flashlane-demo-gpu", "hello"]);
    assert_said(&output, 0, "throughput tier (simulated) | TTFT ");
}

#[test]
fn each_line_of_a_pipe_is_a_turn_of_one_conversation() {
    let gateway = Gateway::start(&[]);
    let arguments = ["chat", "--url", &gateway.clients];
    let output = run_with_input(&arguments, "My name is Ada.\n\nWhat is my name?\n");
    assert_said(&output, 0, "latency tier");
    assert!(text(&output.stdout).ends_with("Your name is Ada.\n"), "{}", text(&output.stdout));
    let output = run_with_input(&arguments, "My name is Ada.\n/new\nWhat is my name?\n");
    assert!(!text(&output.stdout).contains("Your name is Ada."), "{}", text(&output.stdout));
}

#[test]
fn a_model_that_is_not_listed_is_told_and_the_conversation_goes_on() {
    let gateway = Gateway::start(&[]);
    let input = "/model nobody\ncount from 1 to 2\n/model flashlane-demo-gpu\ncount from 1 to 3\n";
    let output = run_with_input(&["chat", "--url", &gateway.clients], input);
    assert_said(&output, 1, "there is no model nobody here, but flashlane-demo, flashlane-demo-gpu");
    assert_eq!(text(&output.stdout), "1\n2\n1\n2\n3\n");
    assert_said(&output, 1, "throughput tier");
}

#[test]
fn which_models_there_are_can_be_asked() {
    let gateway = Gateway::start(&[]);
    let output = run_with_input(&["chat", "--url", &gateway.clients], "/model\n");
    assert_said(&output, 0, "flashlane-demo\nflashlane-demo-gpu\ngpt-5.3-codex-spark\n");
}

#[test]
fn a_refused_turn_is_told_and_the_next_one_is_asked() {
    let gateway = Gateway::start(&[]);
    let input = "hello\n/model flashlane-demo\ncount from 1 to 2\n";
    let output = run_with_input(&["chat", "--url", &gateway.clients, "--model", "nobody"], input);
    assert_said(&output, 1, "model_not_found");
    assert_eq!(text(&output.stdout), "1\n2\n");
}

#[test]
fn ctrl_c_during_an_answer_interrupts_it() {
    let gateway = Gateway::start(&[]);
    let mut chat =
        Running::start(&["chat", "--url", &gateway.websocket(), "--model", "flashlane-demo-gpu", COUNT_LONG]);
    assert_eq!(chat.line(), "1\n");
    let began = Instant::now();
    chat.signal("INT");
    let output = chat.end();
    assert_said(&output, 130, "interrupted");
    assert!(!text(&output.stdout).contains("\n1000"), "it was not interrupted");
    assert!(began.elapsed() < Duration::from_secs(2));
    let metrics = admin(&gateway, "/metrics");
    assert!(metrics.contains("outcome=\"interrupted\""), "{metrics}");
}

/// The body of an admin page.
fn admin(gateway: &Gateway, path: &str) -> String {
    let mut socket = TcpStream::connect(&gateway.admin).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", gateway.admin);
    socket.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn nothing_that_listens_is_a_sentence_not_a_riddle() {
    let nobody = rig::closed_address();
    let output = run(&["chat", "--url", &nobody, "hello"]);
    assert_said(&output, 1, "Start it with `flashlane serve`");
    let output = run(&["chat", "--url", &nobody, "--model", "m", "hello"]);
    assert_said(&output, 1, "Start it with `flashlane serve`");
}

#[test]
fn a_termination_drains_and_ends_with_zero() {
    let drain = "[server.drain]\nlisten_ms = 200\nidle_ms = 0\n";
    let file = TempFile::new("drain", &(text(&run(&["serve", "--check"]).stdout) + drain));
    let mut gateway = Gateway::start(&["--config", file.path()]);
    let arguments = ["chat", "--url", &gateway.websocket(), "--model", "flashlane-demo-gpu", "count from 1 to 20"];
    let mut chat = Running::start(&arguments);
    assert_eq!(chat.line(), "1\n");
    gateway.running.signal("TERM");
    let output = chat.end();
    assert_said(&output, 0, "throughput tier");
    assert!(text(&output.stdout).ends_with("19\n20\n"), "the running turn was cut");
    assert_said(&gateway.running.end(), 0, "SIGTERM");
}

#[test]
fn a_second_signal_does_not_wait_for_the_drain() {
    let mut gateway = Gateway::start(&[]);
    let mut chat =
        Running::start(&["chat", "--url", &gateway.websocket(), "--model", "flashlane-demo-gpu", COUNT_LONG]);
    assert_eq!(chat.line(), "1\n");
    gateway.running.signal("INT");
    while TcpStream::connect(&gateway.clients).is_ok() {
        std::thread::yield_now(); // until the first was taken: two at once may count as one
    }
    let began = Instant::now();
    gateway.running.signal("INT");
    assert_said(&gateway.running.end(), 130, "SIGINT");
    assert!(began.elapsed() < Duration::from_secs(2));
}

#[test]
fn a_bad_config_ends_with_64_and_names_file_line_and_field() {
    let file = TempFile::new("bad", "[server]\nlisten = \"127.0.0.1:0\"\ncolour = \"red\"\n");
    for arguments in [&["serve", "--config", file.path()][..], &["serve", "--config", file.path(), "--check"]] {
        let output = run(arguments);
        assert_said(&output, 64, &format!("{}:3: server.colour: unknown field", file.path()));
    }
    assert_said(&run(&["serve", "--config", "/nowhere/flashlane.toml"]), 64, "/nowhere/flashlane.toml");
    assert_said(&run(&["serve", "--listen", "0.0.0.0:8700"]), 64, "--listen: 0.0.0.0:8700 is reachable from elsewhere");
}

#[test]
fn the_environment_may_name_the_config() {
    let file = TempFile::new("env", "[server]\ncolour = \"red\"\n");
    let output = rig::command(&["serve", "--check"]).env("FLASHLANE_CONFIG", file.path()).output().unwrap();
    assert_said(&output, 64, "server.colour");
    let flag = ["serve", "--check", "--config", concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/flashlane.toml")];
    assert_said(&rig::command(&flag).env("FLASHLANE_CONFIG", file.path()).output().unwrap(), 0, "good");
    let empty = rig::command(&["serve", "--check"]).env("FLASHLANE_CONFIG", "").output().unwrap();
    assert_said(&empty, 0, "the embedded default: good");
}

#[test]
fn a_config_and_flags_that_make_one_are_too_many() {
    let flags = ["serve", "--throughput", "http://127.0.0.1:1/v1"];
    let output = rig::command(&flags).env("FLASHLANE_CONFIG", "mine.toml").output().unwrap();
    assert_said(&output, 64, "FLASHLANE_CONFIG: names the config mine.toml, and --throughput makes one of its own");
    let output = run(&["serve", "--config", "mine.toml", "--latency", "simulator"]);
    assert_said(&output, 64, "--config: names the config mine.toml, and --latency makes one of its own");
}

#[test]
fn a_name_is_no_address_to_listen_on_and_the_error_says_what_is() {
    assert_said(&run(&["serve", "--listen", "localhost:8700"]), 2, "such as 127.0.0.1:8700");
}

#[test]
fn what_check_prints_is_a_config_that_passes_the_check() {
    let printed = run(&["serve", "--check"]);
    assert_said(&printed, 0, "good");
    let file = TempFile::new("printed", &text(&printed.stdout));
    let checked = run(&["serve", "--config", file.path(), "--check"]);
    assert_said(&checked, 0, "good");
    assert!(checked.stdout.is_empty());
}

#[test]
fn the_example_config_passes_the_check() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/flashlane.toml");
    assert_said(&run(&["serve", "--config", example, "--check"]), 0, "good");
}

#[test]
fn a_taken_port_names_the_setting_that_changes_it() {
    let gateway = Gateway::start(&[]);
    let output = run(&["serve", "--listen", &gateway.clients, "--admin-listen", "127.0.0.1:0"]);
    assert_said(&output, 1, &format!("{} is taken", gateway.clients));
    assert_said(&output, 1, "--listen");
    let output = run(&["serve", "--listen", "127.0.0.1:0", "--admin-listen", &gateway.admin]);
    assert_said(&output, 1, "--admin-listen");
}

#[test]
fn an_engine_named_by_a_flag_is_asked_and_served() {
    let mut engine = Running::start(&["simulate", "--listen", "127.0.0.1:0", "--model", "played-model"]);
    let said = engine.line();
    let url = said.split_whitespace().find_map(|word| word.strip_suffix("/v1:")).unwrap();
    let gateway = Gateway::start(&["--throughput", url, "--latency", "simulator"]);
    let output = chat(&gateway, &["--model", "played-model", "count from 1 to 3"]);
    assert!(gateway.said.contains(&format!("base_url = \"{url}/v1\"")), "{}", gateway.said);
    assert!(gateway.said.contains("flashlane's own simulator: it plays a model"), "{}", gateway.said);
    assert!(gateway.said.contains("[server]\nlisten = \"127.0.0.1:0\"\nadmin_listen = "), "{}", gateway.said);
    assert!(gateway.said.contains("  played-model    throughput"), "{}", gateway.said);
    assert!(gateway.said.contains("  flashlane-demo  latency (simulated)\n"), "{}", gateway.said);
    assert_said(&output, 0, "throughput tier");
    assert_eq!(text(&output.stdout), "1\n2\n3\n");
}

#[test]
fn an_engine_that_does_not_answer_is_named() {
    let url = format!("http://{}/v1", rig::closed_address());
    let output = run(&["serve", "--throughput", &url]);
    assert_said(&output, 1, &format!("--throughput {url}: "));
    assert_said(&output, 1, "is the engine running");
    let output = run(&["serve", "--latency", &url]);
    assert_said(&output, 1, &format!("--latency {url}: "));
}
