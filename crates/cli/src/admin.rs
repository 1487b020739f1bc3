//! What a gateway's admin listener answers. Sends the admin token where the environment has one; knows nothing of what is asked.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const WAIT_MAX: Duration = Duration::from_secs(10);
const ANSWER_BYTES_MAX: u64 = 64 << 20;
/// The variable with the admin token.
pub(crate) const TOKEN_VARIABLE: &str = "FLASHLANE_ADMIN_TOKEN";

/// A whole answer.
pub(crate) struct Reply {
    /// `200 OK`.
    pub(crate) status: String,
    pub(crate) body: String,
}

/// Asks by GET.
///
/// # Errors
/// Nobody is there, or what comes is no text.
pub(crate) fn ask(admin: SocketAddr, target: &str) -> io::Result<Reply> {
    let answer = exchange(admin, target)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.lines().next().unwrap_or_default();
    let status = status.split_once(' ').map_or(status, |(_, status)| status);
    Ok(Reply { status: status.to_owned(), body: body.to_owned() })
}

fn exchange(admin: SocketAddr, target: &str) -> io::Result<String> {
    let token = std::env::var(TOKEN_VARIABLE).ok().filter(|token| !token.is_empty());
    let token = token.map_or_else(String::new, |token| format!("authorization: Bearer {token}\r\n"));
    let mut socket = TcpStream::connect_timeout(&admin, WAIT_MAX)?;
    socket.set_read_timeout(Some(WAIT_MAX))?;
    socket.set_write_timeout(Some(WAIT_MAX))?;
    let head = format!("GET {target} HTTP/1.1\r\nhost: {admin}\r\n{token}connection: close\r\n\r\n");
    socket.write_all(head.as_bytes())?;
    let mut answer = String::new();
    socket.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
    Ok(answer)
}
