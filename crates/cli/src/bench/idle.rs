//! Idle sessions: how much a gateway's process grows for each WebSocket that is open and says nothing. What a process frees
//! it often keeps, so this is measured once, and before any other load.

use super::Error;
use super::client::{Offer, WebSocketClient};
use super::connection::Connection;
use super::load::Aim;
use super::report::Sample;
use std::thread;
use std::time::Duration;

/// The last handshakes' memory is given back after their answers are written.
const SETTLE: Duration = Duration::from_millis(500);

/// Opens so many, looks, and closes them. Nothing where the process is not known.
///
/// # Errors
/// When a WebSocket cannot be opened.
pub fn run(aim: &Aim, sessions: u32) -> Result<Option<Sample>, Error> {
    let Some(before_kib) = aim.process.rss_kib() else { return Ok(None) };
    let open = || WebSocketClient::connect(&aim.place, Offer::Nothing).map(WebSocketClient::into_idle);
    let idle: Vec<Connection> = (0..sessions).map(|_| open()).collect::<Result<_, _>>()?;
    thread::sleep(SETTLE);
    let after_kib = aim.process.rss_kib();
    drop(idle);
    Ok(after_kib.map(|after_kib| {
        let mut sample = Sample::default();
        sample.push("before_kib", before_kib as f64);
        sample.push("each_kib", (after_kib as f64 - before_kib as f64) / f64::from(sessions));
        sample
    }))
}
