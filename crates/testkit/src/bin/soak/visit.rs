//! What a client does from its first to its last turn: visit after visit, each over a connection of its own, in one of several ways.

use crate::http;
use crate::link::{Answered, Link, Message, Messages};
use crate::socket;
use crate::tally::Fault;
use crate::watch::End;
use crate::world::{Caller, Chance, World};
use std::sync::Arc;

/// Refusals and failures that come of the faults that are made on purpose: endpoints that are gone, full or mute, and limits.
const EXPECTED: [&str; 11] = [
    "429 rate_limit_exceeded",
    "502 server_error",
    "503 server_is_overloaded",
    "504 server_error",
    "failed server_error",
    "failed server_is_overloaded",
    "failed rate_limit_exceeded",
    // A background response that still waited when its key's secret was revoked; whoever polls has the next one.
    "failed invalid_api_key",
    "in stream server_error",
    "in stream server_is_overloaded",
    "in stream rate_limit_exceeded",
];

pub async fn live(world: Arc<World>, seed: u64) {
    let mut chance = Chance::new(seed);
    while world.pace.visit().await {
        let caller = if chance.percent(50) { Caller::Steady } else { Caller::Rotated };
        let visited = match chance.within(1, 100) {
            1..=45 => socket::visit(&world, &mut chance, caller).await,
            46..=95 => http::visit(&world, &mut chance, caller).await,
            _ => rude(&world, &mut chance, caller).await,
        };
        if let Err(fault) = visited {
            world.tally.fault(fault);
        }
    }
}

/// Counts an answer's end; one that nothing explains is a fault.
pub fn count(world: &World, way: &str, end: &End) -> Result<(), Fault> {
    match end {
        End::Completed(_) => world.tally.ended(&format!("{way}: completed")),
        End::Incomplete(reason, _) if matches!(&**reason, "interrupted" | "cancelled") => {
            world.tally.ended(&format!("{way}: {reason}"));
        }
        End::Failed(code) if EXPECTED.contains(&&**code) => world.tally.ended(&format!("{way}: {code}")),
        End::Incomplete(what, _) | End::Failed(what) => {
            return Err(Fault::new("unexpected end", format!("{way}: {what}")));
        }
    }
    Ok(())
}

/// Those who want nothing good, or do not know what they want.
async fn rude(world: &World, chance: &mut Chance, caller: Caller) -> Result<(), Fault> {
    let key = world.key(caller);
    match chance.within(1, 6) {
        1 => {
            Link::open(world).await?.reset();
            world.tally.ended("rude: connected and left");
        }
        2 => expect(world, &http::head("GET", "/v1/models", "fl-nobodys-key-0123456789abcdef", ""), 401).await?,
        3 => expect(world, &http::head("POST", "/v1/responses", &key, "{\"model\": "), 400).await?,
        4 => expect(world, &http::head("GET", "/v1/nothing", &key, ""), 404).await?,
        5 => {
            let mut link = Link::open(world).await?;
            let head = http::head("POST", "/v1/responses", &key, "{\"model\": \"wafer\"}");
            link.send(head.get(..head.len() / 2).unwrap_or_default()).await?;
            link.reset();
            world.tally.ended("rude: half a request");
        }
        _ => {
            let link = Link::open(world).await?;
            let Ok(mut messages) = Messages::upgrade(link, &key, chance).await? else {
                return Err(Fault::new("unexpected end", "a handshake was refused"));
            };
            // A continuation of nothing.
            messages.send_frame(0x80, b"nonsense").await?;
            match messages.next().await? {
                Message::Close { code: 1002, .. } => world.tally.ended("rude: closed for a bad frame"),
                Message::Close { .. } | Message::Text(_) => {
                    return Err(Fault::new("unexpected end", "a bad frame was not closed by 1002"));
                }
            }
        }
    }
    Ok(())
}

async fn expect(world: &World, request: &[u8], expected: u16) -> Result<(), Fault> {
    let mut link = Link::open(world).await?;
    link.send(request).await?;
    let Answered { status, .. } = link.response(|_, _| Ok(false)).await?;
    link.close().await;
    if status != expected {
        return Err(Fault::new("unexpected end", format!("{status} in the place of {expected}")));
    }
    world.tally.ended(&format!("rude: {status}"));
    Ok(())
}
