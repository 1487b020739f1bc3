//! A gateway's admin listener, asked by GET: the one way in which every verb does it, over TLS or without, with the admin token or a client
//! certificate. Knows nothing of what is asked.

use crate::models::NO_TLS;
use flashlane_backend::detect::{self, Look};
use flashlane_backend::{Secret, Way};
use serde::Deserialize;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

const WAIT_MS_MAX: u64 = 10_000;
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Of an error that is shown.
const SAID_CHARS_MAX: usize = 400;
/// The variable with the admin token.
const TOKEN_VARIABLE: &str = "FLASHLANE_ADMIN_TOKEN";
/// Where `flashlane serve` has it when nothing else is said.
const DEFAULT: &str = "http://127.0.0.1:8701";
/// What the TLS library says where a client certificate is asked for.
const WANTS_CERTIFICATE: &str = "CertificateRequired";

/// Where and how operators ask a gateway.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Flags {
    /// Where the gateway's operators connect: host:port, or an http:// or https:// URL [default: as a config says that is read,
    /// else 127.0.0.1:8701]
    #[arg(long, value_name = "URL", value_parser = base_url, alias = "admin-listen")]
    pub admin: Option<String>,
    /// A PEM file: the authority that signed the admin port's certificate [default: public ones, and SSL_CERT_FILE]
    #[arg(long, value_name = "FILE")]
    pub cacert: Option<PathBuf>,
    /// A PEM file: the client certificate to show, where the admin port asks for one
    #[arg(long, value_name = "FILE", requires = "cert_key")]
    pub cert: Option<PathBuf>,
    /// A PEM file: the client certificate's key
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub cert_key: Option<PathBuf>,
    /// A file that holds the admin token [default: the variable FLASHLANE_ADMIN_TOKEN]
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

/// As it is written, with a scheme: `http` where none is.
fn base_url(text: &str) -> Result<String, &'static str> {
    let expected = "expected host:port, or an http:// or https:// URL without user and query";
    let (scheme, rest) = text.trim().split_once("://").unwrap_or(("http", text.trim()));
    let has_port = text.contains("://") || rest.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let is_address = !rest.is_empty()
        && !rest.starts_with(['/', ':'])
        && !rest.contains(|c: char| c.is_whitespace() || c.is_control() || "@?#\"'\\".contains(c));
    match scheme {
        "http" | "https" if is_address && has_port => Ok(format!("{scheme}://{}", rest.trim_end_matches('/'))),
        _ => Err(expected),
    }
}

/// An admin listener as a config has it. One on all addresses is reached on this machine's own.
#[must_use]
pub fn url_of(listen: SocketAddr, is_tls: bool) -> String {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
    };
    let scheme = if is_tls { "https" } else { "http" };
    format!("{scheme}://{}", SocketAddr::new(ip, listen.port()))
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no gateway answers at {admin} (server.admin_listen in its config; --admin names another): {reason}")]
    Silent { admin: String, reason: String },
    #[error("{admin} is not trusted: {reason}: name the certificate of its authority by --cacert")]
    Certificate { admin: String, reason: String },
    #[error("{admin} asks for a client certificate: name one by --cert and --cert-key")]
    Identity { admin: String },
    #[error("{admin} speaks no TLS: name it by http://")]
    NoTls { admin: String },
    #[error("{admin} speaks TLS: name it by https://, and the authority of its certificate by --cacert")]
    Tls { admin: String },
    #[error("--token-file {}", path.display())]
    TokenFile { path: PathBuf, source: io::Error },
    #[error("--token-file {}: it holds no token", path.display())]
    NoToken { path: PathBuf },
    #[error("--cacert, --cert or --cert-key: {reason}")]
    Files { reason: String },
    #[error("{admin}: {said} Set {TOKEN_VARIABLE}, or name a file with the token by --token-file")]
    Token { admin: String, said: String },
    #[error("{said}")]
    Said { said: String },
    #[error("{admin} answered with status {status}: is it the admin port of a gateway of this version?")]
    Status { admin: String, status: u16 },
    #[error("what {admin} answered is not what was asked for: is it the admin port of a gateway of this version?")]
    Unread { admin: String, source: serde_json::Error },
}

/// One that can be asked.
pub struct Admin(Look);

#[derive(Deserialize)]
struct Refused {
    error: Message,
}

#[derive(Deserialize)]
struct Message {
    message: String,
}

impl Admin {
    /// `configured` is where it is if no flag says so; None: where `flashlane serve` has it.
    ///
    /// # Errors
    /// A token that cannot be read.
    pub fn new(flags: &Flags, configured: Option<&str>) -> Result<Self, Error> {
        // As curl and Python do.
        let trusted = || std::env::var_os("SSL_CERT_FILE").filter(|name| !name.is_empty()).map(PathBuf::from);
        let way = Way::trusting(flags.cacert.clone().or_else(trusted));
        let way = match (&flags.cert, &flags.cert_key) {
            (Some(cert), Some(key)) => way.identified(cert.clone(), key.clone()),
            _ => way,
        };
        let base_url = flags.admin.clone().unwrap_or_else(|| configured.unwrap_or(DEFAULT).to_owned());
        Ok(Self(Look { base_url, api_key: token(flags)?, way, wait_ms_max: WAIT_MS_MAX }))
    }

    /// The same, with less patience.
    #[must_use]
    pub fn within(self, wait_ms_max: u64) -> Self {
        Self(Look { wait_ms_max, ..self.0 })
    }

    /// What it answers.
    ///
    /// # Errors
    /// Nobody answers, or with an error: in words for the person.
    pub async fn ask(&self, path: &str) -> Result<String, Error> {
        let admin = || self.0.base_url.clone();
        let (status, body) =
            detect::get(&self.0, path, ANSWER_BYTES_MAX).await.map_err(|error| self.unasked(&error))?;
        if status == 200 {
            return Ok(String::from_utf8_lossy(&body).into_owned());
        }
        let said = serde_json::from_slice(&body).ok().map(|Refused { error }| printable(&error.message));
        Err(match (status, said) {
            (401, Some(said)) => Error::Token { admin: admin(), said },
            (400, Some(said)) if said.contains("speaks TLS") => Error::Tls { admin: admin() },
            (_, Some(said)) => Error::Said { said },
            (status, None) => Error::Status { admin: admin(), status },
        })
    }

    /// The same, read as JSON.
    ///
    /// # Errors
    /// As [`Self::ask`]; it is another JSON.
    pub async fn read<T: for<'a> Deserialize<'a>>(&self, path: &str) -> Result<T, Error> {
        self.parse(&self.ask(path).await?)
    }

    /// # Errors
    /// It is another JSON.
    pub fn parse<'a, T: Deserialize<'a>>(&self, body: &'a str) -> Result<T, Error> {
        serde_json::from_str(body).map_err(|source| Error::Unread { admin: self.0.base_url.clone(), source })
    }

    fn unasked(&self, error: &detect::Error) -> Error {
        let admin = self.0.base_url.clone();
        let mut reason = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            reason = format!("{reason}: {cause}");
            source = cause.source();
        }
        let says = |part: &str| reason.contains(part);
        if matches!(error, detect::Error::Setup(_)) {
            Error::Files { reason }
        } else if says(WANTS_CERTIFICATE) {
            Error::Identity { admin }
        } else if says("certificate") {
            Error::Certificate { admin, reason }
        } else if says(NO_TLS) {
            Error::NoTls { admin }
        } else {
            Error::Silent { admin, reason }
        }
    }
}

fn token(flags: &Flags) -> Result<Option<Secret>, Error> {
    let Some(path) = &flags.token_file else {
        let token = std::env::var(TOKEN_VARIABLE).ok();
        return Ok(token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty()).map(Secret::new));
    };
    let text = fs::read_to_string(path).map_err(|source| Error::TokenFile { path: path.clone(), source })?;
    match text.trim() {
        "" => Err(Error::NoToken { path: path.clone() }),
        token => Ok(Some(Secret::new(token.to_owned()))),
    }
}

/// What a peer said must not steer a terminal.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(SAID_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_write_an_address_is_one_url() {
        for (written, url) in [
            ("127.0.0.1:8701", "http://127.0.0.1:8701"),
            ("[::1]:8701", "http://[::1]:8701"),
            ("ops.example:8701", "http://ops.example:8701"),
            ("http://127.0.0.1:8701/", "http://127.0.0.1:8701"),
            ("https://ops.example", "https://ops.example"),
            ("https://ops.example/flashlane/", "https://ops.example/flashlane"),
        ] {
            assert_eq!(base_url(written).as_deref(), Ok(url), "{written}");
        }
        for written in
            ["", "ops.example", "ftp://x:1", "https://", "https://me:secret@x", "http://x?y", "a b:1", ":8701"]
        {
            assert!(base_url(written).is_err(), "{written}");
        }
    }

    #[test]
    fn one_that_listens_everywhere_is_asked_on_this_machine() {
        let url = |listen: &str, is_tls| url_of(listen.parse().unwrap(), is_tls);
        assert_eq!(url("0.0.0.0:8701", false), "http://127.0.0.1:8701");
        assert_eq!(url("[::]:8701", true), "https://[::1]:8701");
        assert_eq!(url("10.0.0.5:8701", true), "https://10.0.0.5:8701");
    }
}
