//! Every rollout that was asked for: the flags of its dimensions, and one round over all of them.

use super::client::Offer;
use super::link::Link;
use super::report::Report;
use super::rollout::{self, Rollout, Stage, Way};
use super::target::Protocol;
use super::{Bench, Error};

/// What `flashlane bench --scenario rollout` varies.
#[derive(Debug, clap::Args)]
pub struct Grid {
    /// Turns of a rollout
    #[arg(long, value_name = "N", default_value_t = 40)]
    pub turns: u32,
    /// What a rollout's first turn sends beside its own input, in KiB; 40 with --input-bytes 9216 grows to 400 in 40 turns
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "40")]
    pub history_kib: Vec<u32>,
    /// New input of each turn: a tool's output, or a user's message
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "2048")]
    pub input_bytes: Vec<usize>,
    /// Tokens of each turn's answer
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "100")]
    pub answer_tokens: Vec<u32>,
    /// Round trips over a link, of rollouts; 0 is loopback as it is
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "0,20")]
    pub rtt_ms: Vec<u32>,
    /// Bandwidth of a link, each way, where there is a round trip
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "20")]
    pub mbit_per_s: Vec<u32>,
    /// The engine's time for a token, of rollouts
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "0")]
    pub token_ms: Vec<u32>,
    /// Where links are; the engine itself has one at most
    #[arg(long, value_name = "WHERE", value_enum, value_delimiter = ',', default_value = "client")]
    pub link: Vec<Hops>,
    /// Whether clients speak TLS: `on` takes the https ones of --url, `off` the http ones
    #[arg(long, value_name = "WHICH", value_enum, value_delimiter = ',', default_value = "off,on")]
    pub tls: Vec<Switch>,
    /// Whether WebSocket clients compress, with permessage-deflate
    #[arg(long, value_name = "WHICH", value_enum, value_delimiter = ',', default_value = "off")]
    pub deflate: Vec<Switch>,
    /// Whether a link's connections begin slowly, and again after a pause, as TCP does
    #[arg(long, value_name = "WHICH", value_enum, default_value = "on")]
    pub slow_start: Switch,
}

/// Without and with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Switch {
    Off,
    On,
}

/// Where links are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Hops {
    /// Between client and gateway, who is beside the engine
    Client,
    /// Between gateway and engine; the client is beside the gateway
    Upstream,
    /// On both, each with the round trip and the bandwidth
    Both,
}

impl Grid {
    /// Every rollout that was asked for.
    fn rollouts(&self) -> Vec<Rollout> {
        let mut rollouts = Vec::new();
        for history_bytes in self.history_kib.iter().map(|kib| *kib as usize * 1024) {
            for (&input_bytes, &tokens) in pairs(&self.input_bytes, &self.answer_tokens) {
                for (&token_ms, tls) in pairs(&self.token_ms, &self.tls) {
                    rollouts.extend(self.links().into_iter().map(|[client_link, upstream_link]| Rollout {
                        turns: self.turns,
                        history_bytes,
                        input_bytes,
                        tokens,
                        token_ms,
                        client_link,
                        upstream_link,
                        tls: *tls == Switch::On,
                    }));
                }
            }
        }
        rollouts
    }

    /// On the two hops.
    fn links(&self) -> Vec<[Link; 2]> {
        let slow_start = self.slow_start == Switch::On;
        let mut links = Vec::new();
        for (&rtt_ms, &mbit_per_s) in pairs(&self.rtt_ms, &self.mbit_per_s) {
            let link = Link { rtt_ms, mbit_per_s, slow_start };
            for hops in &self.link {
                let on = match hops {
                    _ if link.is_bare() => [Link::NONE; 2],
                    Hops::Client => [link, Link::NONE],
                    Hops::Upstream => [Link::NONE, link],
                    Hops::Both => [link; 2],
                };
                // On loopback as it is there is nothing to vary.
                if !links.contains(&on) {
                    links.push(on);
                }
            }
        }
        links
    }
}

fn pairs<'a, A, B>(firsts: &'a [A], seconds: &'a [B]) -> impl Iterator<Item = (&'a A, &'a B)> {
    firsts.iter().flat_map(move |first| seconds.iter().map(move |second| (first, second)))
}

/// Each of them, by each gateway in each of its ways.
///
/// # Errors
/// When any turn of one fails.
pub fn round(bench: &Bench<'_>, report: &mut Report) -> Result<(), Error> {
    let grid = &bench.args.rollout;
    for rollout in grid.rollouts() {
        for (subject, aim) in bench.aims().filter(|(_, aim)| aim.place.tls.is_some() == rollout.tls) {
            // Responses where it is spoken, else Chat Completions: a history goes over HTTP in one of them.
            let is_doubled = aim.protocol == Protocol::Chat
                && subject.aims.iter().any(|other| other.protocol == Protocol::Responses);
            let is_direct = aim.place.connect == bench.upstream.address;
            let has_two_hops = !rollout.client_link.is_bare() && !rollout.upstream_link.is_bare();
            if is_doubled || is_direct && has_two_hops {
                continue;
            }
            let stage = Stage { aim, upstream: &bench.upstream, clock: bench.clock };
            for (way, offer) in ways(aim.protocol, &grid.deflate) {
                let deflate = if offer == Offer::Deflate { ", deflate" } else { "" };
                let names = [&rollout.to_string(), subject.name.as_str(), &format!("{way}{deflate}")];
                bench.step(report, names, || rollout::run(&stage, &rollout, way, offer).map(Some))?;
            }
        }
    }
    Ok(())
}

/// Those of a protocol. Clients do not compress what they post.
fn ways(protocol: Protocol, deflate: &[Switch]) -> Vec<(Way, Offer)> {
    let (over_websocket, over_http): (Vec<Way>, _) = Way::ALL.into_iter().partition(|way| way.is_websocket());
    if protocol != Protocol::WebSocket {
        return over_http.into_iter().map(|way| (way, Offer::Nothing)).collect();
    }
    let offers: Vec<Offer> = deflate
        .iter()
        .map(|switch| match switch {
            Switch::Off => Offer::Nothing,
            Switch::On => Offer::Deflate,
        })
        .collect();
    pairs(&offers, &over_websocket).map(|(offer, way)| (*way, *offer)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        grid: Grid,
    }

    fn titles(line: &str) -> Vec<String> {
        let words = std::iter::once("bench").chain(line.split_whitespace());
        let grid = <Line as clap::Parser>::try_parse_from(words).unwrap().grid;
        grid.rollouts().iter().map(Rollout::to_string).collect()
    }

    #[test]
    fn lists_become_every_combination_and_loopback_is_there_once() {
        let all =
            titles("--history-kib 40,400 --answer-tokens 50,100 --token-ms 0,1 --rtt-ms 0,20 --mbit-per-s 20,100");
        assert_eq!(all.len(), 2 * 2 * 2 * 3 * 2);
        let hops = titles("--rtt-ms 0,20 --link client,upstream,both --tls on --token-ms 1");
        let expected = [
            "loopback, TLS, 1 ms a token",
            "20 ms, 20 Mbit/s, TLS, 1 ms a token",
            "loopback, upstream hop 20 ms, 20 Mbit/s, TLS, 1 ms a token",
            "20 ms, 20 Mbit/s, upstream hop 20 ms, 20 Mbit/s, TLS, 1 ms a token",
        ];
        let title = "rollout: 40 turns of 2 KiB and 100 tokens on 40 KiB, ";
        assert_eq!(hops, expected.map(|rest| format!("{title}{rest}")));
    }

    #[test]
    fn only_a_websocket_is_compressed() {
        let both = [Switch::Off, Switch::On];
        assert_eq!(ways(Protocol::Chat, &both), [(Way::A, Offer::Nothing), (Way::B, Offer::Nothing)]);
        let over_websocket = ways(Protocol::WebSocket, &both);
        assert_eq!(over_websocket.len(), 4);
        assert_eq!(over_websocket.last(), Some(&(Way::D, Offer::Deflate)));
    }
}
