//! The machine that a gateway is to run on: its clock, its limits, its ports, its folders. What was seen comes in as values; the looking
//! is beside each judgement. Knows no endpoint.

use super::Parts;
use super::report::Line;
use crate::admin::{self, Admin};
use crate::certificate::{date, expiry};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

const DAY_S: i64 = 86_400;
/// A certificate that ends sooner should be renewed by now.
const RENEW_DAYS: i64 = 14;
/// 2026-01-01: this program is younger.
const BUILT_S: i64 = 1_767_225_600;
/// For a gateway's answer.
const WAIT_MS_MAX: u64 = 2_000;
/// Beside connections: files, the database, the listener, standard streams.
const OTHER_DESCRIPTORS: u64 = 256;

pub fn now_unix_s() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// All lines about the machine itself.
pub async fn lines(parts: &Parts, flags: &admin::Flags) -> Vec<Line> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok();
    let running = running(parts, flags).await;
    let mut lines = vec![
        clock(now_unix_s()),
        descriptors(limits.as_deref().and_then(open_files), parts),
        port("clients", "server.listen", parts.listen, bind(parts.listen), &running),
        port("admin", "server.admin_listen", parts.admin_listen, bind(parts.admin_listen), &running),
        folder(parts),
    ];
    for (check, field, path) in [
        ("own certificate", "server.tls.certificate_file", &parts.certificate_file),
        ("admin certificate", "server.admin.tls.certificate_file", &parts.admin_certificate_file),
    ] {
        lines.extend(path.as_deref().map(|path| own_certificate(check, field, path, now_unix_s())));
    }
    lines.into_iter().map(|line| line.about("machine")).collect()
}

fn clock(now_s: i64) -> Line {
    match now_s < BUILT_S {
        true => Line::failed("clock", "a date after this program was made", date(now_s))
            .advise("set the clock: certificates are judged by it, and records are kept by it"),
        false => Line::ok("clock", format!("{}, compared with each endpoint's below", date(now_s))),
    }
}

/// The soft limit on open files.
fn open_files(limits: &str) -> Option<u64> {
    let row = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let soft = row.split_ascii_whitespace().next()?;
    if soft == "unlimited" { Some(u64::MAX) } else { soft.parse().ok() }
}

fn descriptors(soft: Option<u64>, parts: &Parts) -> Line {
    // A client's connection, and one to an endpoint for its turn.
    let wanted = 2 * u64::from(parts.connections_max) + OTHER_DESCRIPTORS;
    let expected = format!(
        "{wanted}: two for each of server.limits.connections_max = {}, and {OTHER_DESCRIPTORS}",
        parts.connections_max
    );
    let advice = "raise it (systemd: LimitNOFILE=, a shell: ulimit -n), or lower server.limits.connections_max";
    match soft {
        None => Line::ok("open files", "this system does not tell its limit"),
        Some(soft) if soft >= wanted => Line::ok("open files", format!("up to {soft}")),
        Some(soft) if soft > OTHER_DESCRIPTORS => {
            Line::warning("open files", expected, format!("up to {soft}")).advise(advice)
        }
        Some(soft) => Line::failed("open files", expected, format!("up to {soft}")).advise(advice),
    }
}

fn bind(address: SocketAddr) -> io::Result<()> {
    TcpListener::bind(address).map(drop)
}

/// Who answers where operators connect.
#[derive(Debug)]
enum Running {
    /// With what it says of itself.
    Gateway(String),
    Nobody,
    /// Somebody, who cannot be asked: why.
    Unknown(String),
}

async fn running(parts: &Parts, flags: &admin::Flags) -> Running {
    let configured = admin::url_of(parts.admin_listen, parts.admin_certificate_file.is_some());
    let admin = match Admin::new(flags, Some(&configured)) {
        Ok(admin) => admin.within(WAIT_MS_MAX),
        Err(error) => return Running::Unknown(error.to_string()),
    };
    match admin.ask("/metrics").await {
        Ok(said) => told(&said).map_or(Running::Nobody, Running::Gateway),
        Err(admin::Error::Silent { .. } | admin::Error::Status { .. } | admin::Error::Said { .. }) => Running::Nobody,
        // Nobody else asks so.
        Err(admin::Error::Token { said, .. }) if said.contains("admin token") => {
            Running::Gateway("a running flashlane answers, and asks for the admin token".to_owned())
        }
        Err(error) => Running::Unknown(error.to_string()),
    }
}

/// What a gateway says of itself, by its metrics.
fn told(metrics: &str) -> Option<String> {
    metrics.contains("# TYPE flashlane_").then_some(())?;
    let generation = metrics.lines().find_map(|line| line.strip_prefix("flashlane_config_generation "));
    let generation = generation.map(|number| format!(", with its config of generation {number}")).unwrap_or_default();
    Some(format!("a running flashlane answers{generation}"))
}

fn port(check: &'static str, field: &str, address: SocketAddr, bound: io::Result<()>, running: &Running) -> Line {
    let error = match bound {
        Ok(()) => return Line::ok(check, format!("{address} is free")),
        Err(error) => error,
    };
    let is_taken = error.kind() == io::ErrorKind::AddrInUse;
    match running {
        Running::Gateway(said) if is_taken => {
            Line::warning(check, "a free address", format!("{address} is taken, and {said}"))
                .advise("nothing, if that is the gateway of this config")
        }
        Running::Unknown(reason) if is_taken => {
            Line::warning(check, "a free address", format!("{address} is taken; who answers cannot be told: {reason}"))
                .advise("nothing, if that is the gateway of this config")
        }
        Running::Gateway(_) | Running::Unknown(_) | Running::Nobody => {
            Line::failed(check, "a free address of this machine", format!("{address}: {error}"))
                .advise(format!("end what listens there (`ss -ltnp` shows it), or change {field}"))
        }
    }
}

fn folder(parts: &Parts) -> Line {
    match &parts.folder {
        None => Line::ok("store", "in memory: what is stored is forgotten at the end"),
        Some((folder, Ok(()))) => Line::ok("store", format!("{} can be written", folder.display())),
        Some((folder, Err(reason))) => {
            Line::failed("store", "a folder that this user may write", format!("{}: {reason}", folder.display()))
                .advise("make it, or give it to the user that runs flashlane; or change store.folder")
        }
    }
}

fn own_certificate(check: &'static str, field: &str, path: &Path, now_s: i64) -> Line {
    match CertificateDer::from_pem_file(path) {
        Ok(certificate) => certificate_line(check, &certificate, now_s)
            .advise_if_wrong("renew it in its file: a running flashlane takes it over, but for systemd's credentials, which take a restart"),
        Err(error) => Line::failed(check, "a PEM file", format!("{}: {error}", path.display()))
            .advise(format!("change {field}")),
    }
}

/// How long a certificate still is one.
pub fn certificate_line(check: &'static str, certificate: &[u8], now_s: i64) -> Line {
    let expected = format!("more than {RENEW_DAYS} days to its end");
    match expiry(certificate) {
        None => Line::warning(check, "an end that can be read", "its end cannot be read"),
        Some(end_s) if end_s <= now_s => Line::failed(check, expected, format!("ended on {}", date(end_s))),
        Some(end_s) => {
            let days = (end_s - now_s) / DAY_S;
            let found = format!("good until {}, for {days} days", date(end_s));
            if days < RENEW_DAYS { Line::warning(check, expected, found) } else { Line::ok(check, found) }
        }
    }
}

impl Line {
    pub(super) fn advise_if_wrong(self, advice: &str) -> Self {
        if self.state == super::report::State::Ok { self } else { self.advise(advice) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::State;
    use super::*;

    fn parts() -> Parts {
        Parts { connections_max: 1000, ..Parts::default() }
    }

    #[test]
    fn the_limit_on_open_files_is_measured_by_the_connections() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
            Max open files            2255                 1048576              files     \n";
        assert_eq!(open_files(limits), Some(2255));
        assert_eq!(
            open_files("Max open files            unlimited            unlimited            files"),
            Some(u64::MAX)
        );
        for (soft, state) in
            [(None, State::Ok), (Some(2256), State::Ok), (Some(2255), State::Warning), (Some(256), State::Failed)]
        {
            assert_eq!(descriptors(soft, &parts()).state, state, "{soft:?}");
        }
    }

    #[test]
    fn a_taken_port_is_wrong_unless_the_gateway_itself_has_it() {
        let address = SocketAddr::from(([127, 0, 0, 1], 8700));
        let line = |bound, running: &Running| port("clients", "server.listen", address, bound, running);
        let taken = || Err(io::Error::from(io::ErrorKind::AddrInUse));
        assert_eq!(line(Ok(()), &Running::Nobody).state, State::Ok);
        assert_eq!(line(taken(), &Running::Gateway("it answers".to_owned())).state, State::Warning);
        let unknown = line(taken(), &Running::Unknown("no trust".to_owned()));
        assert!(unknown.state == State::Warning && unknown.found.contains("no trust"), "{unknown:?}");
        let other = line(taken(), &Running::Nobody);
        assert!(other.state == State::Failed && other.advice.contains("server.listen"), "{other:?}");
        let not_ours = Err(io::Error::from(io::ErrorKind::AddrNotAvailable));
        assert_eq!(line(not_ours, &Running::Gateway("it answers".to_owned())).state, State::Failed);
    }

    #[test]
    fn a_running_gateway_is_known_by_its_metrics_and_tells_which_config_holds() {
        let metrics = "# TYPE flashlane_config_generation gauge\nflashlane_config_generation 3\n";
        assert_eq!(told(metrics).unwrap(), "a running flashlane answers, with its config of generation 3");
        assert!(told("HTTP/1.1 200 OK").is_none());
    }

    #[test]
    fn a_clock_before_this_program_is_wrong() {
        assert_eq!(clock(0).state, State::Failed);
        assert_eq!(clock(BUILT_S).state, State::Ok);
    }

    #[test]
    fn a_certificate_is_renewed_before_its_end() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2030, 1, 31);
        let certificate = params.self_signed(&key).unwrap();
        let end_s = expiry(certificate.der()).unwrap();
        let state = |now_s| certificate_line("certificate", certificate.der(), now_s).state;
        assert_eq!(state(end_s - RENEW_DAYS * DAY_S), State::Ok);
        assert_eq!(state(end_s - RENEW_DAYS * DAY_S + 1), State::Warning);
        assert_eq!(state(end_s), State::Failed);
        assert_eq!(certificate_line("certificate", b"x", 0).state, State::Warning);
    }
}
