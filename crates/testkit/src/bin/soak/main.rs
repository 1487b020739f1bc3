//! The clients of the soak (`tests/soak`): conversations over WebSockets and HTTP, by TLS, in many ways and at a pace, each answer compared with what the
//! simulator must have said.
//!
//! `soak FOLDER CLIENTS SEED` makes an authority and a first certificate in FOLDER, says `ready`, and reads from its standard input the gateway's address, then
//! orders, one a line: `keys A B` (the keys to call with), `rate N` (turns a second; 0: as fast as answers come), `rest`, `certificate` (another one of the same
//! authority), `end`. Once a second it writes what was counted since the start, as a line of JSON; behind `end`, when all connections are closed, for the
//! last time.
//! Knows nothing of faults, reloads and memory, which are the script's.

mod ask;
mod authority;
mod http;
mod link;
mod socket;
mod tally;
mod visit;
mod watch;
mod world;

use authority::Authority;
use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, BufReader, stdin};
use tokio::task::JoinSet;
use world::World;

#[tokio::main]
async fn main() -> io::Result<()> {
    let usage = || io::Error::other("usage: soak FOLDER CLIENTS SEED");
    let mut words = std::env::args().skip(1);
    let mut word = || words.next().ok_or_else(usage);
    let (folder, clients, seed) = (word()?, word()?, word()?);
    let authority = Authority::new(folder.into())?;
    authority.certify()?;
    let seed: u64 = seed.parse().map_err(io::Error::other)?;
    writeln!(io::stdout(), "ready")?;
    let mut orders = BufReader::new(stdin()).lines();
    let address = orders.next_line().await?.ok_or_else(usage)?.parse().map_err(io::Error::other)?;
    let world = Arc::new(World::new(address, authority.connector()?));
    let mut tasks = JoinSet::new();
    for number in 0..clients.parse().map_err(io::Error::other)? {
        tasks.spawn(visit::live(Arc::clone(&world), seed.wrapping_add(number)));
    }
    let reports = tokio::spawn(report(Arc::clone(&world)));
    while let Some(order) = orders.next_line().await? {
        let mut words = order.split(' ');
        match (words.next(), words.next(), words.next()) {
            (Some("keys"), Some(steady), Some(rotated)) => world.set_keys([steady, rotated].map(str::to_owned)),
            (Some("rate"), Some(rate), None) => world.pace.set(rate.parse().map_err(io::Error::other)?),
            (Some("rest"), None, None) => world.pace.rest(),
            (Some("certificate"), None, None) => authority.certify()?,
            (Some("end"), None, None) => break,
            _ => return Err(io::Error::other(format!("not an order: {order}"))),
        }
    }
    world.pace.end();
    while tasks.join_next().await.is_some() {}
    reports.abort();
    writeln!(io::stdout(), "{}", world.tally.line())
}

async fn report(world: Arc<World>) -> io::Result<()> {
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    loop {
        seconds.tick().await;
        writeln!(io::stdout(), "{}", world.tally.line())?;
    }
}
