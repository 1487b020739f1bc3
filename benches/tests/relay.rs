//! The relay that everything is compared with: it passes bytes both ways and adds none.

#![allow(clippy::unwrap_used, reason = "a test may fail this way")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn what_goes_in_comes_out_both_ways_and_nothing_else() {
    let engine = TcpListener::bind("127.0.0.1:0").unwrap();
    let upstream = engine.local_addr().unwrap().to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_relay"));
    let mut relay = Killed(command.args(["127.0.0.1:0", &upstream]).stdout(Stdio::piped()).spawn().unwrap());
    let mut said = String::new();
    BufReader::new(relay.0.stdout.take().unwrap()).read_line(&mut said).unwrap();

    let mut client = TcpStream::connect(said.trim().strip_prefix("ready ").unwrap()).unwrap();
    let (mut server, _) = engine.accept().unwrap();
    client.write_all(b"asked").unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let mut seen = String::new();
    server.read_to_string(&mut seen).unwrap();
    assert_eq!(seen, "asked");
    server.write_all(b"answered").unwrap();
    drop(server);
    seen.clear();
    client.read_to_string(&mut seen).unwrap();
    assert_eq!(seen, "answered");
}
