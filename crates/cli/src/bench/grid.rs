//! Every rollout that was asked for: the flags of its dimensions, and one round over all of them.

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
    /// What a rollout's first turn sends beside its own input, in KiB
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "40")]
    pub history_kib: Vec<u32>,
    /// Round trips between client and gateway, of rollouts; 0 is loopback as it is
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "0,20")]
    pub rtt_ms: Vec<u32>,
    /// Bandwidth between them, each way, where there is a round trip
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "20")]
    pub mbit_per_s: Vec<u32>,
    /// The engine's time for a token, of rollouts
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "0")]
    pub token_ms: Vec<u32>,
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

impl Grid {
    /// Every rollout that was asked for.
    fn rollouts(&self) -> Vec<Rollout> {
        let mut grid = Vec::new();
        for (&history_kib, &token_ms) in
            self.history_kib.iter().flat_map(|kib| self.token_ms.iter().map(move |ms| (kib, ms)))
        {
            for &rtt_ms in &self.rtt_ms {
                // On loopback as it is there is no bandwidth to vary.
                let bandwidths =
                    if rtt_ms == 0 { self.mbit_per_s.get(..1).unwrap_or_default() } else { &self.mbit_per_s };
                grid.extend(bandwidths.iter().map(|&mbit_per_s| Rollout {
                    turns: self.turns,
                    history_bytes: history_kib as usize * 1024,
                    input_bytes: 2048,
                    tokens: 100,
                    token_ms,
                    link: Link { rtt_ms, mbit_per_s, slow_start: self.slow_start == Switch::On },
                }));
            }
        }
        grid
    }
}

/// Each of them, by each gateway in each of its ways.
///
/// # Errors
/// When any turn of one fails.
pub fn round(bench: &Bench<'_>, round: u32, report: &mut Report) -> Result<(), Error> {
    for rollout in bench.args.rollout.rollouts() {
        let Rollout { turns, history_bytes, token_ms, link, .. } = rollout;
        let kib = history_bytes / 1024;
        let name = format!("rollout: {turns} turns on {kib} KiB, {link}, {token_ms} ms a token");
        for (subject, aim, way) in bench.aims().flat_map(|(subject, aim)| Way::ALL.map(|way| (subject, aim, way))) {
            // Responses where it is spoken, else Chat Completions: a history goes over HTTP in one of them.
            let is_doubled = aim.protocol == Protocol::Chat
                && subject.aims.iter().any(|other| other.protocol == Protocol::Responses);
            if way.is_websocket() == (aim.protocol == Protocol::WebSocket) && !is_doubled {
                let stage = Stage { aim, upstream: &bench.upstream, clock: bench.clock };
                let sample = rollout::run(&stage, &rollout, way)?;
                bench.add(report, round, [&name, &subject.name, &way.to_string()], sample);
            }
        }
    }
    Ok(())
}
