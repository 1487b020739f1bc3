//! A certificate for loopback, signed by itself, and its key: what gateways that are measured over TLS serve.
//!
//! `certificate FOLDER` writes `certificate.pem` and `key.pem` there.

use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;

fn write(folder: &Path) -> io::Result<()> {
    let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).map_err(io::Error::other)?;
    fs::write(folder.join("certificate.pem"), made.cert.pem())?;
    fs::write(folder.join("key.pem"), made.signing_key.serialize_pem())
}

fn main() -> ExitCode {
    let Some(folder) = std::env::args_os().nth(1) else { return ExitCode::from(64) };
    if write(Path::new(&folder)).is_err() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
