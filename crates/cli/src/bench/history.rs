//! Turns of 2 KiB on histories of 1 KB to 2 MB, each over one warm WebSocket: what a turn costs the gateway's process, and
//! what is left of that beside the history's own way to the engine. A plain client that writes the same bytes to the engine says
//! what that way costs: no gateway is spared it where the engine speaks Chat Completions.

use super::client::{Offer, WebSocketClient};
use super::conversation::{Conversation, Item, prose};
use super::load::{Aim, quantile_us};
use super::process::{Process, own_thread_ns};
use super::report::{Report, Sample};
use super::seen::Seen;
use super::target::{Place, Protocol};
use super::upstream::{Script, Upstream};
use super::{Bench, Error};
use std::io::{Read, Write};

const HISTORIES: [usize; 6] = [1_000, 10_000, 100_000, 400_000, 1_000_000, 2_000_000];
const MESSAGE_BYTES: usize = 2048;
const TURNS: u32 = 400;
/// So many turns go on from each other, and the next one from the history again: it keeps its length.
const TURNS_ON: u32 = 10;
const WRITES: u32 = 200;
const BUFFER_BYTES: usize = 64 * 1024;

/// Each length, with `store` false and true, by each gateway that has the WebSocket.
///
/// # Errors
/// When a turn fails.
pub fn round(bench: &Bench<'_>, report: &mut Report) -> Result<(), Error> {
    let name = "history: turns of 2 KiB over one WebSocket";
    for (subject, aim) in bench.aims().filter(|(_, aim)| aim.protocol == Protocol::WebSocket) {
        for history_bytes in HISTORIES {
            for stores in [false, true] {
                let way = format!("{} KB{}", history_bytes / 1000, if stores { ", stored" } else { "" });
                bench
                    .step(report, [name, &subject.name, &way], || turns(bench, aim, history_bytes, stores).map(Some))?;
            }
        }
    }
    Ok(())
}

fn turns(bench: &Bench<'_>, aim: &Aim, history_bytes: usize, stores: bool) -> Result<Sample, Error> {
    bench.upstream.play(Script::SHORT);
    let mut conversation = Conversation::new(Protocol::WebSocket, 0).stored(stores);
    let mut client = WebSocketClient::connect(&aim.place, Offer::Nothing)?;
    let mut seen = Seen::new(bench.clock);
    let (mut told, mut chain) = (0, String::new());
    while told < history_bytes {
        // As turns would have made it: a message and its answer at a time.
        for role in ["user", "assistant"] {
            let bytes = MESSAGE_BYTES.min(history_bytes - told);
            if bytes > 0 {
                conversation.say(&Item::Message { role, text: prose(told, bytes) });
            }
            told += bytes;
        }
        client.turn(&conversation.message(&format!(r#","generate":false{chain}"#)), &mut seen)?;
        chain = going_on(&seen);
    }
    let write_us = write_us(&bench.upstream, conversation.upstream_bytes() + MESSAGE_BYTES)?;
    let history = chain.clone();
    let (mut overheads_ns, upstream) = (Vec::new(), &bench.upstream);
    drop(upstream.turns());
    let before_ns = aim.process.cpu_ns();
    for n in 0..TURNS {
        if n.is_multiple_of(TURNS_ON) {
            chain.clone_from(&history);
        }
        conversation.say(&Item::Message { role: "user", text: prose(n as usize, MESSAGE_BYTES) });
        let turn = client.turn(&conversation.message(&chain), &mut seen)?;
        let engine = upstream.turns().pop().ok_or(Error::Turn)?;
        let engine_ns = engine.done_ns.saturating_sub(engine.received_ns);
        overheads_ns.push(turn.ended_ns.saturating_sub(turn.started_ns).saturating_sub(engine_ns));
        chain = going_on(&seen);
    }
    Ok(sample(cpu_us(aim.process, before_ns), write_us, &mut overheads_ns))
}

fn going_on(seen: &Seen) -> String {
    format!(r#","previous_response_id":"{}""#, seen.response_id)
}

/// A turn's.
fn cpu_us(process: Process, before_ns: Option<u64>) -> Option<f64> {
    let cpu_ns = process.cpu_ns()?.saturating_sub(before_ns?);
    Some(cpu_ns as f64 / 1e3 / f64::from(TURNS))
}

fn sample(cpu_us: Option<f64>, write_us: Option<f64>, overheads_ns: &mut [u64]) -> Sample {
    let mut sample = Sample::default();
    sample.push("overhead_p50_us", quantile_us(overheads_ns, 0.5));
    if let Some((cpu_us, write_us)) = cpu_us.zip(write_us) {
        sample.push("cpu_us_per_turn", cpu_us);
        sample.push("write_alone_us", write_us);
        sample.push("rest_us", cpu_us - write_us);
    }
    sample
}

/// The processor time of this thread for a request of so many bytes and its short answer.
fn write_us(upstream: &Upstream, bytes: usize) -> Result<Option<f64>, Error> {
    let url = format!("http://{}", upstream.address);
    let place = Place::of(&url.parse().map_err(|_| Error::Tls { url })?, None)?;
    let mut connection = place.open()?;
    let body = format!(r#"{{"stream":true,"messages":"{}"}}"#, "h".repeat(bytes));
    let head =
        format!("POST /v1/chat/completions HTTP/1.1\r\nhost: {}\r\ncontent-length: {}\r\n\r\n", place.host, body.len());
    let request = head + &body;
    let mut buf = vec![0; BUFFER_BYTES];
    let before_ns = own_thread_ns();
    for _ in 0..WRITES {
        connection.write_all(request.as_bytes()).map_err(Error::Socket)?;
        let mut held = 0;
        while !buf.get(..held).unwrap_or_default().ends_with(b"\r\n0\r\n\r\n") {
            match connection.read(buf.get_mut(held..).unwrap_or_default()).map_err(Error::Socket)? {
                0 => return Err(Error::Turn),
                count => held += count,
            }
        }
    }
    let spent_ns = own_thread_ns().zip(before_ns).map(|(after, before)| after.saturating_sub(before));
    Ok(spent_ns.map(|ns| ns as f64 / 1e3 / f64::from(WRITES)))
}

#[cfg(test)]
mod tests {
    use super::super::clock::Clock;
    use super::*;
    use std::net::SocketAddr;

    #[test]
    fn more_bytes_cost_more_to_write() {
        let upstream = Upstream::start(SocketAddr::from(([127, 0, 0, 1], 0)), Clock::start()).unwrap();
        let [short, long] = [1_000, 2_000_000].map(|bytes| write_us(&upstream, bytes).unwrap().unwrap());
        assert!(short > 0.0 && long > 2.0 * short, "{short} us, {long} us");
    }

    #[test]
    fn what_the_write_takes_is_not_the_gateways() {
        let sample = sample(Some(500.0), Some(320.0), &mut [3_000, 1_000, 2_000]);
        assert_eq!((sample.value("rest_us"), sample.value("overhead_p50_us")), (Some(180.0), Some(2.0)));
    }
}
