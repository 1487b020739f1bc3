//! A relay that does nothing: bytes from one TCP connection to another, both ways, on one tokio task. What a gateway adds
//! beyond it is the gateway's own.
//!
//! `relay LISTEN UPSTREAM` prints `ready ADDRESS`.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpListener, TcpStream};

const BUFFER_BYTES: usize = 64 * 1024;

async fn relay(mut client: TcpStream, upstream: SocketAddr) -> io::Result<()> {
    let mut upstream = TcpStream::connect(upstream).await?;
    client.set_nodelay(true)?;
    upstream.set_nodelay(true)?;
    copy_bidirectional_with_sizes(&mut client, &mut upstream, BUFFER_BYTES, BUFFER_BYTES).await?;
    Ok(())
}

async fn serve(listen: SocketAddr, upstream: SocketAddr) -> io::Result<()> {
    let listener = TcpListener::bind(listen).await?;
    writeln!(io::stdout(), "ready {}", listener.local_addr()?)?;
    loop {
        let (client, _) = listener.accept().await?;
        // A connection that breaks is told by its ends.
        tokio::spawn(async move { relay(client, upstream).await });
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse());
    let (Some(Ok(listen)), Some(Ok(upstream))) = (arguments.next(), arguments.next()) else {
        return ExitCode::from(64);
    };
    if serve(listen, upstream).await.is_err() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
