//! What `flashlane serve` says once it listens. Knows the fleet and nothing of how it is served.

use flashlane_engine::{Fleet, Model, Tier};
use std::io::{self, Write};
use std::net::SocketAddr;

const DEFAULT_PORT: u16 = 8700;

/// Where it listens.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    pub clients: SocketAddr,
    pub admin: SocketAddr,
}

/// Says where it listens, what it offers and what to do next; the last line is for programs.
///
/// # Errors
/// When `out` cannot be written.
pub fn announce(out: &mut impl Write, addresses: Addresses, fleet: &Fleet) -> io::Result<()> {
    let Addresses { clients, admin } = addresses;
    writeln!(out, "flashlane {} listens", env!("CARGO_PKG_VERSION"))?;
    writeln!(out, "  http://{clients}/v1  for HTTP clients")?;
    writeln!(out, "  ws://{clients}/v1/responses  for WebSocket clients")?;
    writeln!(out, "  http://{admin}  admin: /metrics /livez /readyz")?;
    writeln!(out, "models")?;
    let width = fleet.models.iter().map(|model| model.name.len()).max().unwrap_or_default();
    for model in &fleet.models {
        writeln!(out, "  {:width$}  {}", model.name, tiers(fleet, model))?;
    }
    let (chat_url, connect_url) = if clients.port() == DEFAULT_PORT {
        (String::new(), String::new())
    } else {
        (format!(" --url ws://{clients}/v1/responses"), format!(" --url http://{clients}/v1"))
    };
    writeln!(out, "next")?;
    writeln!(out, "  flashlane chat{chat_url}")?;
    writeln!(out, "  flashlane connect codex|python|node|curl{connect_url}")?;
    writeln!(out, "ready http://{clients} admin http://{admin}")?;
    out.flush()
}

/// `latency (simulated), then throughput`.
fn tiers(fleet: &Fleet, model: &Model) -> String {
    let name = |&tier: &Tier| {
        let simulated = fleet.tier(tier).all(|(_, endpoint)| endpoint.simulated);
        format!("{}{}", tier.name(), if simulated { " (simulated)" } else { "" })
    };
    model.route.tiers().iter().map(name).collect::<Vec<_>>().join(", then ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn said(port: u16) -> String {
        let text = "[[endpoints]]\nname = \"w\"\ntier = \"latency\"\nbackend = \"simulator\"\n\
            [[endpoints]]\nname = \"g\"\ntier = \"throughput\"\nbackend = \"openai\"\nbase_url = \"http://127.0.0.1:8000/v1\"\n\
            [[models]]\nname = \"both\"\n[[models]]\nname = \"gpu\"\nroute = \"throughput-only\"\n";
        let config = Config::parse("test.toml", text).unwrap_or_else(|error| panic!("{error}"));
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let mut out = Vec::new();
        announce(&mut out, Addresses { clients: address(port), admin: address(port + 1) }, &config.fleet).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_is_simulated_says_so_and_what_is_not_does_not() {
        let said = said(8700);
        assert!(said.contains("  both  latency (simulated), then throughput\n"), "{said}");
        assert!(said.contains("  gpu   throughput\n"), "{said}");
    }

    #[test]
    fn the_commands_to_type_next_name_a_port_that_is_not_the_default() {
        assert!(said(8700).contains("  flashlane chat\n"));
        assert!(said(4321).contains("  flashlane chat --url ws://127.0.0.1:4321/v1/responses\n"));
        assert!(said(4321).ends_with("ready http://127.0.0.1:4321 admin http://127.0.0.1:4322\n"));
    }
}
