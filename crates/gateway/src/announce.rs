//! What `flashlane serve` says once it listens. Knows the fleet and nothing of how it is served.

use flashlane_engine::{Fleet, Model, Tier};
use flashlane_telemetry::log;
use serde_json::{Value, json};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use tracing::Level;

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
    /// Whether clients need a key.
    pub asks_for_keys: bool,
}

impl Addresses {
    fn schemes(&self) -> (&'static str, &'static str) {
        if self.is_tls { ("https", "wss") } else { ("http", "ws") }
    }

    fn admin_scheme(&self) -> &'static str {
        if self.is_admin_tls { "https" } else { "http" }
    }

    /// Where somebody on this machine finds it.
    fn near(&self) -> SocketAddr {
        let ip = match self.clients.ip() {
            ip if !ip.is_unspecified() => ip,
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        };
        SocketAddr::new(ip, self.clients.port())
    }
}

/// Says where it listens, what it offers and what to do next; the last line is for programs. One object where the log is JSON.
///
/// # Errors
/// When `out` cannot be written.
pub fn announce(out: &mut impl Write, addresses: Addresses, fleet: &Fleet) -> io::Result<()> {
    if log::is_json() {
        out.write_all(object(addresses, fleet).as_bytes())?;
        return out.flush();
    }
    let Addresses { clients, admin, .. } = addresses;
    let ((http, ws), admin_http) = (addresses.schemes(), addresses.admin_scheme());
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
    next(out, addresses)?;
    writeln!(out, "ready {http}://{clients} admin {admin_http}://{admin}")?;
    out.flush()
}

/// What to type next, with what it needs here.
fn next(out: &mut impl Write, addresses: Addresses) -> io::Result<()> {
    let Addresses { clients, is_tls, asks_for_keys, .. } = addresses;
    let ((http, ws), near) = (addresses.schemes(), addresses.near());
    let (chat_url, connect_url) = if clients.port() == DEFAULT_PORT && near.ip().is_loopback() && !is_tls {
        (String::new(), String::new())
    } else {
        (format!(" --url {ws}://{near}/v1/responses"), format!(" --url {http}://{near}/v1"))
    };
    writeln!(out, "next")?;
    writeln!(out, "  flashlane chat{chat_url}")?;
    writeln!(out, "  flashlane connect codex|python|node|curl{connect_url}")?;
    if is_tls {
        writeln!(
            out,
            "  both by a name that the certificate has, and with --cacert FILE if its authority is your own"
        )?;
    }
    if asks_for_keys {
        writeln!(out, "  both with a key of [[keys]] in FLASHLANE_API_KEY")?;
    }
    Ok(())
}

/// What flags amount to, once: no file holds it.
///
/// # Errors
/// When `out` cannot be written.
pub fn flags(out: &mut impl Write, text: &str) -> io::Result<()> {
    if log::is_json() {
        let fields = [("config".to_owned(), text.into())].into_iter().collect();
        return out.write_all(log::object(Level::INFO, "what the flags amount to", fields).as_bytes());
    }
    let head = "# What the flags amount to. With `--check > flashlane.toml` added, it is kept as a file:";
    writeln!(out, "{head}\n{}", text.trim_end())
}

fn object(addresses: Addresses, fleet: &Fleet) -> String {
    let Addresses { clients, admin, .. } = addresses;
    let (http, _) = addresses.schemes();
    let models = fleet.models.iter().map(|model| json!({"name": &*model.name, "tiers": tiers(fleet, model)}));
    let fields = [
        ("version", env!("CARGO_PKG_VERSION").into()),
        ("clients", format!("{http}://{clients}").into()),
        ("admin", format!("{}://{admin}", addresses.admin_scheme()).into()),
        ("models", models.collect()),
    ];
    let fields = fields.map(|(name, value): (&str, Value)| (name.to_owned(), value));
    log::object(Level::INFO, "ready", fields.into_iter().collect())
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

    const CONFIG: &str = "[[endpoints]]\nname = \"w\"\ntier = \"latency\"\nbackend = \"simulator\"\n\
        [[endpoints]]\nname = \"g\"\ntier = \"throughput\"\nbackend = \"openai\"\nbase_url = \"http://127.0.0.1:8000/v1\"\n\
        [[models]]\nname = \"both\"\n[[models]]\nname = \"gpu\"\nroute = \"throughput-only\"\n";

    fn fleet() -> Fleet {
        Config::parse("test.toml", CONFIG, Listen::default()).unwrap_or_else(|error| panic!("{error}")).fleet
    }

    fn addresses(clients: &str, is_tls: bool) -> Addresses {
        let clients: SocketAddr = clients.parse().unwrap();
        let admin = SocketAddr::from(([127, 0, 0, 1], clients.port() + 1));
        Addresses { clients, is_tls, admin, is_admin_tls: false, asks_for_keys: is_tls }
    }

    fn said_of(addresses: Addresses) -> String {
        let mut out = Vec::new();
        announce(&mut out, addresses, &fleet()).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn said(port: u16, is_tls: bool) -> String {
        said_of(addresses(&format!("127.0.0.1:{port}"), is_tls))
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
    #[test]
    fn what_the_commands_need_is_said_where_they_need_it() {
        let said = said_of(addresses("0.0.0.0:8700", true));
        assert!(said.contains("  flashlane chat --url wss://127.0.0.1:8700/v1/responses\n"), "{said}");
        assert!(said.contains("--cacert FILE") && said.contains("FLASHLANE_API_KEY"), "{said}");
        let plain = said_of(addresses("127.0.0.1:8700", false));
        assert!(!plain.contains("--cacert") && !plain.contains("FLASHLANE_API_KEY"), "{plain}");
    }

    #[test]
    fn for_programs_it_is_one_object() {
        let said = object(addresses("127.0.0.1:8700", true), &fleet());
        assert_eq!(said.lines().count(), 1);
        let said: Value = serde_json::from_str(&said).unwrap();
        assert_eq!((&said["message"], &said["level"]), (&json!("ready"), &json!("INFO")));
        assert_eq!(
            (&said["clients"], &said["admin"]),
            (&json!("https://127.0.0.1:8700"), &json!("http://127.0.0.1:8701"))
        );
        assert_eq!(said["models"][1], json!({"name": "gpu", "tiers": "throughput"}));
    }
}
