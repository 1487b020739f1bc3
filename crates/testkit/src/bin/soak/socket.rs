//! Visits over a WebSocket: chains of turns in a lane or two, warm-ups, interrupts and cancels, and every way to leave.

use crate::ask::Ask;
use crate::link::{Link, Message, Messages};
use crate::tally::Fault;
use crate::visit::count;
use crate::watch::{End, Watch};
use crate::world::{Caller, Chance, World};
use serde_json::{Value, json};

/// What becomes of a turn.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    Patient,
    /// `response.interrupt` or `response.cancel`, in the midst of it.
    Stopping(&'static str),
    Vanishing,
}

/// How a turn left its connection.
enum After {
    Ended(End),
    /// The server has closed it, and may.
    Closed,
    /// The client is to go now.
    Vanish,
}

struct Visit<'a> {
    world: &'a World,
    caller: Caller,
    key: String,
    messages: Messages,
    lane: Option<String>,
}

pub async fn visit(world: &World, chance: &mut Chance, caller: Caller) -> Result<(), Fault> {
    let key = world.key(caller);
    let upgraded = Messages::upgrade(Link::open(world).await?, &key, chance).await?;
    let messages = upgraded.map_err(|status| Fault::new("unexpected end", format!("a handshake: {status}")))?;
    let lane = chance.percent(30).then(|| format!("lane-{}", chance.within(1, 3)));
    let mut visit = Visit { world, caller, key, messages, lane };
    let (code, mut previous) = (chance.within(1, 1 << 40), None);
    for number in 0..chance.within(1, 24) {
        if number > 0 && !world.pace.turn().await {
            break;
        }
        let (ask, manner) = chosen(chance, code, previous.is_some());
        let mut body =
            json!({"type": "response.create", "model": model(chance), "input": ask.words, "store": chance.percent(30)});
        fill(&mut body, &visit.lane, previous.as_ref());
        if chance.percent(10) {
            let mut warm = body.clone();
            fill_in(&mut warm, "generate", json!(false));
            let nothing = Ask { words: String::new(), answer: String::new() };
            match visit.turn(&warm, &nothing, Manner::Patient).await? {
                After::Ended(end) => count(world, "socket warm-up", &end)?,
                After::Closed | After::Vanish => return Ok(()),
            }
        }
        match visit.turn(&body, &ask, manner).await? {
            After::Ended(end) => {
                count(world, "socket", &end)?;
                previous = match end {
                    End::Completed(id) => Some(id),
                    End::Incomplete(..) | End::Failed(_) => None,
                };
            }
            After::Closed => return Ok(()),
            After::Vanish => {
                world.tally.ended("socket: left in the midst");
                visit.messages.leave(chance).await;
                return Ok(());
            }
        }
    }
    if chance.percent(70) {
        return visit.goodbye().await;
    }
    visit.messages.leave(chance).await;
    Ok(())
}

fn chosen(chance: &mut Chance, code: u64, is_chained: bool) -> (Ask, Manner) {
    match chance.within(1, 100) {
        1..=4 => (Ask::long(), Manner::Stopping("response.interrupt")),
        5..=8 => (Ask::long(), Manner::Stopping("response.cancel")),
        9..=11 => (Ask::long(), Manner::Vanishing),
        _ if !is_chained => (Ask::tell(code), Manner::Patient),
        12..=40 => (Ask::recall(code), Manner::Patient),
        _ => (Ask::count(chance), Manner::Patient),
    }
}

pub fn model(chance: &mut Chance) -> &'static str {
    if chance.percent(60) { "quick" } else { "roomy" }
}

fn fill(body: &mut Value, lane: &Option<String>, previous: Option<&String>) {
    if let Some(lane) = lane {
        fill_in(body, "stream_id", json!(lane));
    }
    if let Some(previous) = previous {
        fill_in(body, "previous_response_id", json!(previous));
    }
}

pub fn fill_in(body: &mut Value, field: &str, value: Value) {
    if let Some(fields) = body.as_object_mut() {
        fields.insert(field.to_owned(), value);
    }
}

impl Visit<'_> {
    async fn turn(&mut self, body: &Value, ask: &Ask, manner: Manner) -> Result<After, Fault> {
        if let Err(fault) = self.messages.send(&body.to_string()).await {
            return self.may_close(fault);
        }
        let (mut watch, mut has_stopped) = (Watch::new(ask), false);
        loop {
            let text = match self.messages.next().await {
                Ok(Message::Text(text)) => text,
                Ok(Message::Close { code, reason }) => {
                    return self.may_close(Fault::new("closed", format!("{code} {reason} in the midst of a turn")));
                }
                Err(fault) => return self.may_close(fault),
            };
            watch.event(&text)?;
            if let Some(end) = watch.ended() {
                let end = end.clone();
                if has_stopped
                    && !matches!(end, End::Incomplete(..))
                    && let Err(fault) = self.came_too_late().await
                {
                    return self.may_close(fault);
                }
                return self.ended(end, &text);
            }
            if watch.deltas < 3 || has_stopped {
                continue;
            }
            match manner {
                Manner::Patient => {}
                Manner::Vanishing => return Ok(After::Vanish),
                Manner::Stopping(how) => {
                    has_stopped = true;
                    self.messages.send(&json!({"type": how, "response_id": watch.id}).to_string()).await?;
                }
            }
        }
    }

    /// The turn had ended by itself before it could be stopped: that is told, too, and is no word on the next turn.
    async fn came_too_late(&mut self) -> Result<(), Fault> {
        loop {
            match self.messages.next().await {
                Ok(Message::Text(text)) if contains(&text, b"response_not_active") => return Ok(()),
                Ok(Message::Text(text)) if contains(&text, b"keepalive") => {}
                Ok(Message::Text(text)) => return Err(Fault::new("wrong event", String::from_utf8_lossy(&text))),
                // The next turn finds it closed.
                Ok(Message::Close { .. }) => return Ok(()),
                Err(fault) => return Err(fault),
            }
        }
    }

    /// A turn of a secret that is gone may be failed, and its connection closed.
    fn ended(&mut self, end: End, text: &[u8]) -> Result<After, Fault> {
        if !matches!(&end, End::Failed(code) if code.ends_with("invalid_api_key")) {
            return Ok(After::Ended(end));
        }
        self.may_close(Fault::new("closed", String::from_utf8_lossy(text)))
    }

    /// No fault where the secret of this connection was revoked meanwhile.
    fn may_close(&self, fault: Fault) -> Result<After, Fault> {
        if self.world.key(self.caller) == self.key {
            return Err(fault);
        }
        self.world.tally.ended("socket: closed with its key");
        Ok(After::Closed)
    }

    async fn goodbye(self) -> Result<(), Fault> {
        let is_revoked = self.world.key(self.caller) != self.key;
        match self.messages.close().await {
            Err(fault) if !is_revoked => Err(fault),
            Err(_) | Ok(()) => Ok(()),
        }
    }
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|window| window == word)
}
