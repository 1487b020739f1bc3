//! One process takes over from another, and connections wait in between rather than being refused: by SIGUSR2, by systemd's sockets; and
//! what systemd is told.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod rig;

use command_fds::{CommandFdExt as _, FdMapping};
use rig::{Gateway, Running, command, text};
use std::io::{BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);
const CONNECTIONS_PER_SECOND: u32 = 500;

/// A file of this test's own.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("flashlane-handover-{}-{name}", std::process::id())))
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn get(address: &str, path: &str) -> std::io::Result<String> {
    let mut socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.write_all(format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    Ok(answer)
}

/// The processes whose parent is this one.
fn children(pid: u32) -> Vec<u32> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    std::fs::read_to_string(path).unwrap_or_default().split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// A process that is nobody's child here, killed when it is dropped.
struct Orphan(u32);

impl Orphan {
    fn signal(&self, name: &str) {
        let _ = std::process::Command::new("kill").args([&format!("-{name}"), &self.0.to_string()]).status();
    }
}

impl Drop for Orphan {
    fn drop(&mut self) {
        self.signal("KILL");
    }
}

fn config(scratch: &Scratch, more: &str) {
    let printed = text(&rig::run(&["serve", "--check"]).stdout);
    std::fs::write(&scratch.0, printed + more).unwrap();
}

#[test]
fn at_500_connections_a_second_a_successor_takes_over_and_none_is_refused() {
    let file = Scratch::new("steady.toml");
    config(&file, "[server.drain]\nlisten_ms = 0\nidle_ms = 0\n");
    let mut gateway = Gateway::start(&["--config", file.path()]);
    let pid = gateway.running.child.id();
    let count = "count from 1 to 60";
    let arguments = ["chat", "--url", &gateway.websocket(), "--model", "flashlane-demo-gpu", count];
    let mut chat = Running::start(&arguments);
    assert_eq!(chat.line(), "1\n");

    let clients = gateway.clients.clone();
    let total = CONNECTIONS_PER_SECOND * 4;
    let asking = std::thread::spawn(move || {
        let began = Instant::now();
        let asked: Vec<_> = (0..total)
            .map(|number| {
                let due = Duration::from_secs(1) * number / CONNECTIONS_PER_SECOND;
                std::thread::sleep(due.saturating_sub(began.elapsed()));
                let clients = clients.clone();
                std::thread::spawn(move || match get(&clients, "/v1/models") {
                    Ok(answer) if answer.starts_with("HTTP/1.1 200 ") => None,
                    other => Some(format!("{other:?}")),
                })
            })
            .collect();
        let lasted = began.elapsed();
        let refused: Vec<_> = asked.into_iter().filter_map(|asked| asked.join().unwrap()).collect();
        (lasted, refused)
    });
    std::thread::sleep(Duration::from_millis(1_000));
    gateway.running.signal("USR2");
    let successor = successor_of(pid);
    let (lasted, refused) = asking.join().unwrap();
    println!("{total} connections in {lasted:?} across a hand-over: {} refused or cut", refused.len());
    assert!(refused.is_empty(), "{} of {total}, the first: {}", refused.len(), refused[0]);

    // What ran on the old one has ended there as it should, and then so has the old one.
    let output = chat.end();
    assert!(text(&output.stdout).ends_with("59\n60\n"), "the running turn was cut: {output:?}");
    // Its output is its successor's, too: only its own end can be waited for.
    assert_eq!(gateway.running.child.wait().unwrap().code(), Some(0));
    assert!(get(&gateway.clients, "/v1/models").unwrap().starts_with("HTTP/1.1 200 "));
    assert!(get(&gateway.admin, "/readyz").unwrap().contains("ready"));
    successor.signal("INT");
    let began = Instant::now();
    while TcpStream::connect(&gateway.clients).is_ok() {
        assert!(began.elapsed() < PATIENCE, "the successor does not end");
        std::thread::yield_now();
    }
}

/// What is there, as JSON.
fn shown(address: &str, path: &str) -> serde_json::Value {
    let answer = get(address, path).unwrap();
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

fn patch(address: &str, path: &str, body: &str) {
    let mut socket = TcpStream::connect(address).unwrap();
    let head = format!(
        "PATCH {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    socket.write_all((head + body).as_bytes()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[test]
fn what_operators_ordered_a_successor_goes_on_with_and_a_restart_does_not() {
    let file = Scratch::new("ordered.toml");
    config(&file, "[server.drain]\nlisten_ms = 0\nidle_ms = 0\n");
    let mut gateway = Gateway::start(&["--config", file.path()]);
    let admin = gateway.admin.clone();
    patch(&admin, "/endpoints/gpu-simulated", "{\"state\": \"cordoned\", \"weight\": 3}");
    patch(&admin, "/limits/latency", "{\"queue\": {\"concurrency_max\": 9, \"wait_ms_max\": 77}}");
    // The next config has a word in one of the two fields: that one is its own.
    config(&file, "[server.drain]\nlisten_ms = 0\nidle_ms = 0\n[queue.latency]\nwait_ms_max = 55\n");
    let pid = gateway.running.child.id();
    gateway.running.signal("USR2");
    let began = Instant::now();
    let successor = loop {
        if let [successor] = children(pid)[..] {
            break Orphan(successor);
        }
        assert!(began.elapsed() < PATIENCE, "no successor");
        std::thread::yield_now();
    };
    assert_eq!(gateway.running.child.wait().unwrap().code(), Some(0));
    let endpoints = shown(&admin, "/endpoints");
    let gpu = endpoints.as_array().unwrap().iter().find(|endpoint| endpoint["name"] == "gpu-simulated").unwrap();
    assert_eq!((&gpu["state"], &gpu["weight"]), (&"cordoned".into(), &3.into()), "{gpu}");
    let queue = &shown(&admin, "/limits")["latency"]["queue"];
    assert_eq!((&queue["concurrency_max"], &queue["wait_ms_max"]), (&9.into(), &55.into()), "{queue}");
    successor.signal("TERM");
    let said = gateway.running.end();
    let log = text(&said.stderr);
    let ends = "orders that end with this process";
    assert!(
        log.contains(ends)
            && log.contains("endpoint gpu-simulated: cordoned, weight 3; latency: queue.concurrency_max none -> 9"),
        "{log}"
    );
    assert_eq!(log.matches(ends).count(), 1, "the first one passed them on: {log}");
}

#[test]
fn a_successor_that_cannot_serve_changes_nothing() {
    let file = Scratch::new("broken.toml");
    config(&file, "");
    let mut gateway = Gateway::start(&["--config", file.path()]);
    std::fs::write(&file.0, "[server]\ncolour = \"red\"\n").unwrap();
    gateway.running.signal("USR2");
    let began = Instant::now();
    let mut was_started = false;
    while !was_started || !children(gateway.running.child.id()).is_empty() {
        was_started |= !children(gateway.running.child.id()).is_empty();
        assert!(began.elapsed() < PATIENCE, "no successor was tried and given up");
        std::thread::yield_now();
    }
    assert!(get(&gateway.clients, "/v1/models").unwrap().starts_with("HTTP/1.1 200 "));
    assert!(get(&gateway.admin, "/readyz").unwrap().contains("ready"));
    gateway.running.signal("INT");
    let ended = gateway.running.end();
    assert_eq!(ended.status.code(), Some(0));
    assert!(text(&ended.stderr).contains("nothing was handed over"), "{}", text(&ended.stderr));
}

/// The only child of this process, once it has one.
fn successor_of(pid: u32) -> Orphan {
    let began = Instant::now();
    loop {
        if let [successor] = children(pid)[..] {
            return Orphan(successor);
        }
        assert!(began.elapsed() < PATIENCE, "no successor is started");
        std::thread::yield_now();
    }
}

#[test]
fn a_stop_ends_a_successor_that_does_not_serve_yet() {
    let file = Scratch::new("stopped.toml");
    config(&file, "[server.drain]\nlisten_ms = 0\nidle_ms = 0\n");
    let mut gateway = Gateway::start(&["--config", file.path()]);
    // A successor comes no further than to its config: nobody writes into the pipe.
    std::fs::remove_file(&file.0).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&file.0).status().unwrap().success());
    gateway.running.signal("USR2");
    let successor = successor_of(gateway.running.child.id());
    gateway.running.signal("TERM");
    assert_eq!(gateway.running.child.wait().unwrap().code(), Some(0));
    assert!(!Path::new(&format!("/proc/{}", successor.0)).exists(), "the successor is left behind");
    assert!(TcpStream::connect(&gateway.clients).is_err());
}

#[test]
fn where_there_is_a_data_folder_nobody_takes_over() {
    let (file, folder) = (Scratch::new("folder.toml"), Scratch::new("folder"));
    config(&file, &format!("[store]\nfolder = {:?}\n", folder.path()));
    let mut gateway = Gateway::start(&["--config", file.path()]);
    gateway.running.signal("USR2");
    assert!(get(&gateway.clients, "/v1/models").unwrap().starts_with("HTTP/1.1 200 "));
    std::thread::sleep(Duration::from_millis(200));
    assert!(children(gateway.running.child.id()).is_empty());
    gateway.running.signal("INT");
    let ended = gateway.running.end();
    assert!(text(&ended.stderr).contains("one process alone has the data folder"), "{}", text(&ended.stderr));
    let _ = std::fs::remove_dir_all(&folder.0);
}

/// A gateway on these sockets, as systemd starts it.
fn activated(sockets: &[(&str, &TcpListener)]) -> Running {
    let mut command = command(&["serve"]);
    let names: Vec<_> = sockets.iter().map(|(name, _)| *name).collect();
    let copies = sockets.iter().map(|(_, socket)| socket.try_clone().unwrap().into());
    let mappings = (3..).zip(copies).map(|(child_fd, parent_fd)| FdMapping { parent_fd, child_fd });
    command.fd_mappings(mappings.collect()).unwrap();
    command.env("LISTEN_FDS", names.len().to_string()).env("LISTEN_FDNAMES", names.join(":"));
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    Running { child, out }
}

#[test]
fn on_sockets_that_a_supervisor_holds_a_killed_server_is_waited_for() {
    let bound = || TcpListener::bind("127.0.0.1:0").unwrap();
    let (clients, admin) = (bound(), bound());
    let address = |socket: &TcpListener| socket.local_addr().unwrap().to_string();
    // In any order: they have names.
    let sockets = [("admin", &admin), ("clients", &clients)];
    let mut first = activated(&sockets);
    while !first.line().starts_with("ready ") {}
    assert!(get(&address(&admin), "/readyz").unwrap().contains("ready"));
    first.child.kill().unwrap();
    first.child.wait().unwrap();
    // Nobody serves, and nobody is refused.
    let waiting = {
        let clients = address(&clients);
        std::thread::spawn(move || get(&clients, "/v1/models"))
    };
    let mut second = activated(&sockets);
    assert!(waiting.join().unwrap().unwrap().starts_with("HTTP/1.1 200 "));
    second.signal("INT");
    assert_eq!(second.end().status.code(), Some(0));
}

#[test]
fn sockets_that_are_passed_in_are_held_to_the_rules_of_addresses() {
    let everywhere = TcpListener::bind("0.0.0.0:0").unwrap();
    let refused = activated(&[("clients", &everywhere)]).end();
    assert_eq!(refused.status.code(), Some(64), "{refused:?}");
    assert!(text(&refused.stderr).contains("no key is configured"), "{}", text(&refused.stderr));
}

#[test]
fn systemd_hears_what_came_of_a_reload() {
    let (name, file) = (Scratch::new("notify-reload"), Scratch::new("notify-reload.toml"));
    let heard = UnixDatagram::bind(&name.0).unwrap();
    heard.set_read_timeout(Some(PATIENCE)).unwrap();
    let next = || {
        let mut said = [0; 1024];
        let count = heard.recv(&mut said).unwrap();
        text(&said[..count])
    };
    config(&file, "");
    let mut gateway = Gateway::start_with(&["--config", file.path()], &[("NOTIFY_SOCKET", name.path())]);
    assert!(next().starts_with("READY=1\n"));
    let us_of = |said: &str| {
        let line =
            said.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")).unwrap_or_else(|| panic!("{said}"));
        line.parse::<u64>().unwrap()
    };
    gateway.running.signal("HUP");
    let (first, adopted) = (next(), next());
    assert!(first.starts_with("RELOADING=1\n"), "{first}");
    assert!(adopted.starts_with("READY=1\n") && adopted.ends_with("STATUS=serves, config generation 2"), "{adopted}");
    // As systemd 253 and later want it: this process is the main one already.
    assert!(!adopted.contains("MAINPID"), "{adopted}");

    std::fs::write(&file.0, "nonsense = 1\n").unwrap();
    gateway.running.signal("HUP");
    let (second, refused) = (next(), next());
    assert!(us_of(&second) > us_of(&first), "{first} {second}");
    assert!(
        refused.contains("STATUS=serves, with the config of before: ") && refused.contains("nonsense"),
        "{refused}"
    );
    assert_eq!(refused.lines().count(), 2, "{refused}");
    gateway.running.signal("INT");
    assert_eq!(gateway.running.end().status.code(), Some(0));
}

#[test]
fn systemd_hears_when_it_serves_that_it_lives_and_when_it_stops() {
    let name = Scratch::new("notify");
    let heard = UnixDatagram::bind(&name.0).unwrap();
    heard.set_read_timeout(Some(PATIENCE)).unwrap();
    let next = || {
        let mut said = [0; 256];
        let count = heard.recv(&mut said).unwrap();
        text(&said[..count])
    };
    let variables = [("NOTIFY_SOCKET", name.path()), ("WATCHDOG_USEC", "200000")];
    let mut gateway = Gateway::start_with(&[], &variables);
    let ready = next();
    assert!(ready.starts_with("READY=1\n"), "{ready}");
    assert!(ready.contains(&format!("MAINPID={}\n", gateway.running.child.id())), "{ready}");
    assert_eq!([next(), next()], ["WATCHDOG=1", "WATCHDOG=1"]);
    gateway.running.signal("INT");
    loop {
        let said = next();
        if said != "WATCHDOG=1" {
            assert!(said.starts_with("STOPPING=1\n"), "{said}");
            break;
        }
    }
    assert_eq!(gateway.running.end().status.code(), Some(0));
}
