//! What `flashlane serve` says once it listens. Knows the fleet and nothing of how it is served.

use flashlane_engine::{Fleet, Model, Tier};
use std::io::{self, Write};
use std::net::SocketAddr;

const DEFAULT_PORT: u16 = 8700;

/// Where it listens.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    pub clients: SocketAddr,
    /// Whether clients speak TLS.
    pub is_tls: bool,
    pub admin: SocketAddr,
    /// Whether operators do.
    pub is_admin_tls: bool,
}

/// Says where it listens, what it offers and what to do next; the last line is for programs.
///
/// # Errors
/// When `out` cannot be written.
pub fn announce(out: &mut impl Write, addresses: Addresses, fleet: &Fleet) -> io::Result<()> {
    let Addresses { clients, is_tls, admin, is_admin_tls } = addresses;
    let admin_http = if is_admin_tls { "https" } else { "http" };
    let (http, ws) = if is_tls { ("https", "wss") } else { ("http", "ws") };
    writeln!(out, "flashlane {} listens", env!("CARGO_PKG_VERSION"))?;
    writeln!(out, "  {http}://{clients}/v1  for HTTP clients")?;
    writeln!(out, "  {ws}://{clients}/v1/responses  for WebSocket clients")?;
    writeln!(
        out,
        "  {admin_http}://{admin}/  for operators: the status page; /metrics /limits /endpoints /livez /readyz"
    )?;
    writeln!(out, "models")?;
    let width = fleet.models.iter().map(|model| model.name.len()).max().unwrap_or_default();
    for model in &fleet.models {
        writeln!(out, "  {:width$}  {}", model.name, tiers(fleet, model))?;
    }
    let (chat_url, connect_url) = if clients.port() == DEFAULT_PORT && !is_tls {
        (String::new(), String::new())
    } else {
        (format!(" --url {ws}://{clients}/v1/responses"), format!(" --url {http}://{clients}/v1"))
    };
    writeln!(out, "next")?;
    writeln!(out, "  flashlane chat{chat_url}")?;
    writeln!(out, "  flashlane connect codex|python|node|curl{connect_url}")?;
    writeln!(out, "ready {http}://{clients} admin {admin_http}://{admin}")?;
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
    use crate::config::{Config, Listen};

    fn said(port: u16, is_tls: bool) -> String {
        let text = "[[endpoints]]\nname = \"w\"\ntier = \"latency\"\nbackend = \"simulator\"\n\
            [[endpoints]]\nname = \"g\"\ntier = \"throughput\"\nbackend = \"openai\"\nbase_url = \"http://127.0.0.1:8000/v1\"\n\
            [[models]]\nname = \"both\"\n[[models]]\nname = \"gpu\"\nroute = \"throughput-only\"\n";
        let config = Config::parse("test.toml", text, Listen::default()).unwrap_or_else(|error| panic!("{error}"));
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let mut out = Vec::new();
        let addresses = Addresses { clients: address(port), is_tls, admin: address(port + 1), is_admin_tls: false };
        announce(&mut out, addresses, &config.fleet).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_is_simulated_says_so_and_what_is_not_does_not() {
        let said = said(8700, false);
        assert!(said.contains("  both  latency (simulated), then throughput\n"), "{said}");
        assert!(said.contains("  gpu   throughput\n"), "{said}");
    }

    #[test]
    fn the_commands_to_type_next_name_a_port_that_is_not_the_default() {
        assert!(said(8700, false).contains("  flashlane chat\n"));
        assert!(said(4321, false).contains("  flashlane chat --url ws://127.0.0.1:4321/v1/responses\n"));
        assert!(said(4321, false).ends_with("ready http://127.0.0.1:4321 admin http://127.0.0.1:4322\n"));
    }

    #[test]
    fn with_tls_every_address_of_clients_says_so() {
        let said = said(8700, true);
        assert!(said.contains("  flashlane chat --url wss://127.0.0.1:8700/v1/responses\n"), "{said}");
        assert!(said.contains("  https://127.0.0.1:8700/v1  for HTTP"), "{said}");
        assert!(said.ends_with("ready https://127.0.0.1:8700 admin http://127.0.0.1:8701\n"), "{said}");
        assert!(!said.contains("ws://") && said.matches("http://").count() == 2, "{said}");
    }
}
