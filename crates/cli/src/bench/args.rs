//! What `flashlane bench` is asked for. Knows only the shape of it; what a rollout takes stands in `grid.rs`.

use super::grid::Grid;
use super::target::{Gateway, Protocol};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Arguments of `flashlane bench`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Without --url it starts a gateway of its own. Any other must have http://127.0.0.1:8720/v1 as its engine and serve
its models `bench` and `bench-latency`. What a gateway does not speak (Chat Completions, Responses, its WebSocket) is
left out. The engine itself, spoken to directly, is always measured beside. Results go to standard output, progress to
standard error.

Examples:
  flashlane bench
  flashlane bench --scenario one,flat --rounds 7 --json result.json
  flashlane bench --url ours=http://127.0.0.1:8700 --pid 4711 --url theirs=http://127.0.0.1:8800 --pid 4712
  flashlane bench --scenario rollout --rtt-ms 20,80 --mbit-per-s 100 --token-ms 1")]
pub struct Args {
    /// A gateway to measure; may be given many times, and is measured in turns
    #[arg(long, value_name = "[NAME=]URL")]
    pub url: Vec<Gateway>,
    /// The process of each --url, in the same order: its processor time is read (Linux)
    #[arg(long, value_name = "PID")]
    pub pid: Vec<u32>,
    /// The certificates (PEM) that every https --url is trusted by
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// What to measure
    #[arg(
        long,
        value_name = "NAME",
        value_enum,
        value_delimiter = ',',
        default_value = "idle,one,joined,flat,paced,rollout"
    )]
    pub scenario: Vec<Scenario>,
    /// How often; medians are shown
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub rounds: u32,
    /// Where to write every round's numbers
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Where the scripted engine listens
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8720")]
    pub listen: SocketAddr,
    /// In which ways gateways are spoken to, where they speak them
    #[arg(long, value_name = "NAME", value_enum, value_delimiter = ',', default_value = "chat,responses,websocket")]
    pub protocol: Vec<Protocol>,
    /// Streams at once, of flat and paced
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "64")]
    pub streams: Vec<u32>,
    /// Tokens of each stream, of flat
    #[arg(long, value_name = "N", default_value_t = 4000)]
    pub tokens: u32,
    /// WebSockets of idle; each takes an open file of the bench and of the gateway (ulimit -n)
    #[arg(long, value_name = "N", default_value_t = 2000)]
    pub sessions: u32,
    /// WebSockets of half-busy
    #[arg(long, value_name = "N", default_value_t = 2000)]
    pub half_busy_sessions: u32,
    #[command(flatten)]
    pub rollout: Grid,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Scenario {
    /// This binary's time until it is ready; memory and processor time of gateways with nothing to do
    Start,
    /// WebSockets that are open and say nothing: memory of each, in the first round alone, compressing where --deflate says
    /// so. A process keeps what it frees: measure one of these, idle or half-busy, a run
    Idle,
    /// WebSockets of which every other has a turn of 100 tokens at 20 tokens/s
    HalfBusy,
    /// One stream at 2,000 tokens/s: 10 turns of 200 tokens
    One,
    /// One stream as fast as it goes, 8 tokens a write: 10 turns of 8,000
    Joined,
    /// Many streams as fast as they go, one token a write
    Flat,
    /// Many streams at 250 tokens/s each: one turn of 500
    Paced,
    /// Requests that are not streamed, 200 on each of 64 connections
    Request,
    /// Turns of 2 KiB on histories of 1 KB to 2 MB, over one WebSocket
    History,
    /// Bursts of 64 new connections beside 16 streams at 250 tokens/s
    Storm,
    /// New requests on one model beside 49 streams at 1,000 tokens/s on another
    Interference,
    /// A coding agent: 40 turns of 2 KiB in and 100 tokens out, over plain HTTP and the WebSocket
    Rollout,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Verb {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn what_varies_is_a_list_and_a_gateway_may_have_a_name() {
        let line = "bench --scenario half-busy,flat --streams 16,64 --protocol websocket --url a=127.0.0.1:1 --pid 7";
        let Args { scenario, streams, protocol, url, pid, .. } = Verb::parse_from(line.split(' ')).args;
        assert_eq!((scenario, streams), (vec![Scenario::HalfBusy, Scenario::Flat], vec![16, 64]));
        assert_eq!((protocol, url.first().unwrap().name.as_str(), pid), (vec![Protocol::WebSocket], "a", vec![7]));
        assert!(Verb::try_parse_from(["bench", "--protocol", "smoke-signals"]).is_err());
    }
}
