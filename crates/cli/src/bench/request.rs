//! Requests that are not streamed, on many connections that are kept alive: what one costs a gateway, and how long it takes
//! when all ask at once.

use super::connection::Connection;
use super::load::{Aim, quantile_us};
use super::report::{Report, Sample};
use super::target::{Place, Protocol};
use super::upstream::{MODEL, Script};
use super::{Bench, Error};
use flashlane_wire::http1::{self, ResponseReader};
use std::io::{Read, Write};
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

const CONNECTIONS: u32 = 64;
/// Of each connection.
const REQUESTS: u32 = 200;
/// A short answer.
const ANSWER: Script =
    Script { tokens: 16, first_token: Duration::ZERO, interval: Duration::ZERO, tokens_per_write: 16 };
const BUFFER_BYTES: usize = 16 * 1024;

/// Each gateway, by each HTTP API that it speaks.
///
/// # Errors
/// When a request fails.
pub fn round(bench: &Bench<'_>, report: &mut Report) -> Result<(), Error> {
    let name = format!("request: {CONNECTIONS} connections, not streamed, 16 tokens");
    for (subject, aim) in bench.aims() {
        let Some(body) = body(aim.protocol) else { continue };
        let way = aim.protocol.to_string();
        bench.step(report, [&name, &subject.name, &way], || run(bench, aim, body).map(Some))?;
    }
    Ok(())
}

/// The path and the body; the WebSocket knows nothing but streams.
fn body(protocol: Protocol) -> Option<(&'static str, String)> {
    match protocol {
        Protocol::Chat => Some((
            "/chat/completions",
            format!(r#"{{"model":"{MODEL}","messages":[{{"role":"user","content":"Go on."}}]}}"#),
        )),
        Protocol::Responses => Some(("/responses", format!(r#"{{"model":"{MODEL}","store":false,"input":"Go on."}}"#))),
        Protocol::WebSocket => None,
    }
}

fn run(bench: &Bench<'_>, aim: &Aim, (path, body): (&str, String)) -> Result<Sample, Error> {
    let clock = bench.clock;
    let Place { host, base, .. } = &aim.place;
    let length = body.len();
    let request = format!(
        "POST {base}{path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\naccept: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    let request = request.as_bytes();
    bench.upstream.play(ANSWER);
    let (warm, go) = (Barrier::new(CONNECTIONS as usize + 1), Barrier::new(CONNECTIONS as usize + 1));
    let client = || {
        let opened = aim.place.open().and_then(|mut connection| ask(&mut connection, request).map(|()| connection));
        // Both are passed in any case: the others wait here.
        warm.wait();
        go.wait();
        let mut connection = opened?;
        let mut took_ns = Vec::with_capacity(REQUESTS as usize);
        for _ in 0..REQUESTS {
            let started_ns = clock.ns();
            ask(&mut connection, request)?;
            took_ns.push(clock.ns().saturating_sub(started_ns));
        }
        Ok::<_, Error>(took_ns)
    };
    let (began_ns, cpu_ns, took_ns) = thread::scope(|scope| {
        let threads: Vec<_> = (0..CONNECTIONS).map(|_| scope.spawn(client)).collect();
        warm.wait();
        let (began_ns, cpu_ns) = (clock.ns(), aim.process.cpu_ns());
        go.wait();
        let all = threads.into_iter().map(|thread| thread.join().unwrap_or(Err(Error::Turn)));
        (began_ns, cpu_ns, all.collect::<Result<Vec<_>, _>>())
    });
    let seconds = clock.ns().saturating_sub(began_ns) as f64 / 1e9;
    let cpu_ns = cpu_ns.and_then(|before| Some(aim.process.cpu_ns()?.saturating_sub(before)));
    drop(bench.upstream.turns());
    let mut took_ns = took_ns?.concat();
    let requests = took_ns.len() as f64;
    let mut sample = Sample::default();
    sample.push("p50_us", quantile_us(&mut took_ns, 0.5));
    sample.push("p99_us", quantile_us(&mut took_ns, 0.99));
    sample.push("requests_per_s", requests / seconds);
    if let Some(cpu_ns) = cpu_ns {
        sample.push("cpu_us_per_request", cpu_ns as f64 / 1e3 / requests);
    }
    Ok(sample)
}

/// One request and its whole answer.
fn ask(connection: &mut Connection, request: &[u8]) -> Result<(), Error> {
    connection.write_all(request).and_then(|()| connection.flush()).map_err(Error::Socket)?;
    let mut reader = ResponseReader::new(http1::Limits::default());
    let mut buf = [0; BUFFER_BYTES];
    let (mut status, mut end) = (200, None);
    while end.is_none() {
        let count = connection.read(&mut buf).map_err(Error::Socket)?;
        let input = buf.get(..count).unwrap_or_default();
        let on = |event: http1::Event<'_>| match event {
            http1::Event::Head(head) => status = head.status,
            http1::Event::Body(_) => {}
            http1::Event::End { reusable } => end = Some(reusable),
        };
        if count == 0 {
            return Err(Error::Turn);
        }
        reader.read(input, on).map_err(Error::Http)?;
        if status != 200 {
            return Err(Error::Status { status, body: String::from_utf8_lossy(input).into_owned() });
        }
    }
    // The next one needs it.
    if end == Some(true) { Ok(()) } else { Err(Error::Turn) }
}
