//! Visits over HTTP/1.1: one request after the other on a connection that is kept, streams and whole answers of both APIs, background responses, and
//! clients that are gone before their answer is.

use crate::ask::Ask;
use crate::link::{Answered, Link};
use crate::socket::{fill_in, model};
use crate::tally::Fault;
use crate::visit::count;
use crate::watch::{ChatWatch, End, Response, Watch, end_of, refusal};
use crate::world::{Caller, Chance, World};
use flashlane_wire::sse;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::sleep;

const EVENT_BYTES_MAX: usize = 4 << 20;
const POLLS_MAX: usize = 3000;

/// A request of HTTP/1.1; without a body where that is empty.
pub fn head(method: &str, path: &str, key: &str, body: &str) -> Vec<u8> {
    let length = if body.is_empty() { String::new() } else { format!("content-length: {}\r\n", body.len()) };
    format!("{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {key}\r\n{length}\r\n{body}")
        .into_bytes()
}

/// A response in the background, by its path; or not, and whether more can be asked over the connection.
enum Begun {
    Running(String),
    Refused(bool),
}

/// A connection, and whose it is.
struct Visit<'a> {
    world: &'a World,
    caller: Caller,
    link: Link,
}

pub async fn visit(world: &World, chance: &mut Chance, caller: Caller) -> Result<(), Fault> {
    let mut visit = Visit { world, caller, link: Link::open(world).await? };
    let (mut history, mut stored) = (Vec::new(), None);
    for number in 0..chance.within(1, 12) {
        if number > 0 && !world.pace.turn().await {
            break;
        }
        let goes_on = match chance.within(1, 100) {
            1..=30 => visit.streamed(chance, &mut stored).await?,
            31..=45 => visit.whole(chance, &mut stored).await?,
            46..=70 => visit.chat(chance, &mut history, true).await?,
            71..=80 => visit.chat(chance, &mut history, false).await?,
            81..=90 => visit.in_background(chance).await?,
            91..=95 => visit.looked_up(chance, stored.take()).await?,
            _ => visit.vanishing(chance).await?,
        };
        if !goes_on {
            visit.link.reset();
            return Ok(());
        }
    }
    visit.link.close().await;
    Ok(())
}

impl Visit<'_> {
    async fn send(&mut self, method: &str, path: &str, body: &str) -> Result<(), Fault> {
        self.link.send(&head(method, path, &self.world.key(self.caller), body)).await
    }

    /// A whole body, and whether more can be asked.
    async fn asked(&mut self, method: &str, path: &str, body: &str) -> Result<(u16, Vec<u8>, bool), Fault> {
        self.send(method, path, body).await?;
        let mut whole = Vec::new();
        let Answered { status, reusable, .. } = self
            .link
            .response(|_, piece| {
                whole.extend_from_slice(piece);
                Ok(false)
            })
            .await?;
        Ok((status, whole, reusable))
    }

    async fn streamed(&mut self, chance: &mut Chance, stored: &mut Option<String>) -> Result<bool, Fault> {
        let ask = Ask::count(chance);
        let mut body = request(chance, &ask, stored);
        fill_in(&mut body, "stream", json!(true));
        let (end, goes_on) = self.followed("POST", "/v1/responses", &body.to_string(), &ask).await?;
        count(self.world, "stream", &end)?;
        *stored = kept(&body, end);
        Ok(goes_on)
    }

    /// Reads an event stream to its end.
    async fn followed(&mut self, method: &str, path: &str, body: &str, ask: &Ask) -> Result<(End, bool), Fault> {
        self.send(method, path, body).await?;
        let (mut watch, mut whole, mut is_done) = (Watch::new(ask), Vec::new(), false);
        let mut decoder = sse::Decoder::new(EVENT_BYTES_MAX);
        let answered = self.link.response(|status, piece| {
            if status != 200 {
                whole.extend_from_slice(piece);
                return Ok(false);
            }
            each(&mut decoder, piece, |data| {
                is_done |= data == b"[DONE]";
                if is_done { Ok(()) } else { watch.event(data) }
            })?;
            Ok(false)
        });
        let Answered { status, reusable, .. } = answered.await?;
        if status != 200 {
            return Ok((refusal(status, &whole)?, reusable));
        }
        let end = watch.ended().filter(|_| is_done);
        let end =
            end.ok_or_else(|| Fault::new("no end", format!("{method} {path}: a stream without a terminal event")))?;
        Ok((end.clone(), reusable))
    }

    async fn whole(&mut self, chance: &mut Chance, stored: &mut Option<String>) -> Result<bool, Fault> {
        let ask = Ask::count(chance);
        let body = request(chance, &ask, stored);
        let (status, answer, goes_on) = self.asked("POST", "/v1/responses", &body.to_string()).await?;
        let end = if status == 200 { end_of(response(&answer)?, &ask)? } else { refusal(status, &answer)? };
        count(self.world, "whole", &end)?;
        *stored = kept(&body, end);
        Ok(goes_on)
    }

    async fn chat(&mut self, chance: &mut Chance, history: &mut Vec<Value>, streams: bool) -> Result<bool, Fault> {
        let ask = Ask::count(chance);
        history.push(json!({"role": "user", "content": ask.words}));
        let body = json!({"model": model(chance), "messages": history, "stream": streams}).to_string();
        self.send("POST", "/v1/chat/completions", &body).await?;
        let (mut watch, mut whole) = (ChatWatch::new(&ask), Vec::new());
        let mut decoder = sse::Decoder::new(EVENT_BYTES_MAX);
        let answered = self.link.response(|status, piece| {
            if streams && status == 200 {
                each(&mut decoder, piece, |data| watch.chunk(data))?;
            } else {
                whole.extend_from_slice(piece);
            }
            Ok(false)
        });
        let Answered { status, reusable, .. } = answered.await?;
        if status == 200 && !streams {
            watch.chunk(&whole)?;
            watch.done()?;
        }
        let end = match watch.ended() {
            Some(end) => end.clone(),
            None if status != 200 => refusal(status, &whole)?,
            None => return Err(Fault::new("no end", "a chat stream without [DONE]")),
        };
        match &end {
            End::Completed(_) => history.push(json!({"role": "assistant", "content": ask.answer})),
            End::Incomplete(..) | End::Failed(_) => history.clear(),
        }
        count(self.world, if streams { "chat stream" } else { "chat" }, &end)?;
        Ok(reusable)
    }

    /// Followed and read once more; or polled, cancelled, left alone.
    async fn in_background(&mut self, chance: &mut Chance) -> Result<bool, Fault> {
        let (ask, long) = (Ask::count(chance), Ask::long());
        let model = model(chance);
        let body =
            |ask: &Ask, streams| json!({"model": model, "input": ask.words, "background": true, "stream": streams});
        match chance.within(1, 4) {
            1 => {
                let body = body(&ask, true).to_string();
                let (end, goes_on) = self.followed("POST", "/v1/responses", &body, &ask).await?;
                count(self.world, "background followed", &end)?;
                let End::Completed(id) = end else { return Ok(goes_on) };
                let path = format!("/v1/responses/{id}?stream=true");
                let (end, goes_on) = self.followed("GET", &path, "", &ask).await?;
                count(self.world, "background read again", &end)?;
                Ok(goes_on)
            }
            2 => match self.begun(&body(&long, false)).await? {
                Begun::Running(path) => {
                    sleep(Duration::from_millis(chance.within(0, 40))).await;
                    self.cancelled(&path).await
                }
                Begun::Refused(goes_on) => Ok(goes_on),
            },
            manner => match self.begun(&body(&ask, false)).await? {
                Begun::Running(path) if manner == 3 => self.polled(&path, &ask).await,
                Begun::Running(_) => {
                    self.world.tally.ended("background: left alone");
                    Ok(true)
                }
                Begun::Refused(goes_on) => Ok(goes_on),
            },
        }
    }

    async fn begun(&mut self, body: &Value) -> Result<Begun, Fault> {
        let (status, answer, goes_on) = self.asked("POST", "/v1/responses", &body.to_string()).await?;
        if status == 200 {
            return Ok(Begun::Running(format!("/v1/responses/{}", response(&answer)?.id)));
        }
        count(self.world, "background", &refusal(status, &answer)?)?;
        Ok(Begun::Refused(goes_on))
    }

    async fn cancelled(&mut self, path: &str) -> Result<bool, Fault> {
        let (status, answer, goes_on) = self.asked("POST", &format!("{path}/cancel"), "").await?;
        match status {
            200 => self.world.tally.ended(&format!("background cancel: {}", response(&answer)?.status)),
            status => count(self.world, "background cancel", &refusal(status, &answer)?)?,
        }
        Ok(goes_on)
    }

    async fn polled(&mut self, path: &str, ask: &Ask) -> Result<bool, Fault> {
        for _ in 0..POLLS_MAX {
            sleep(Duration::from_millis(20)).await;
            let (status, answer, goes_on) = self.asked("GET", path, "").await?;
            if status != 200 {
                count(self.world, "background polled", &refusal(status, &answer)?)?;
                return Ok(goes_on);
            }
            let now = response(&answer)?;
            if now.status != "queued" && now.status != "in_progress" {
                count(self.world, "background polled", &end_of(now, ask)?)?;
                return Ok(goes_on);
            }
        }
        Err(Fault::new("late", format!("{path} never ended")))
    }

    /// What was stored is there as it was; or the list of models.
    async fn looked_up(&mut self, chance: &mut Chance, stored: Option<String>) -> Result<bool, Fault> {
        let Some(id) = stored else {
            let (status, _, goes_on) = self.asked("GET", "/v1/models", "").await?;
            self.world.tally.ended(&format!("models: {status}"));
            return Ok(goes_on);
        };
        let method = if chance.percent(50) { "DELETE" } else { "GET" };
        let (status, answer, goes_on) = self.asked(method, &format!("/v1/responses/{id}"), "").await?;
        if status != 200 {
            count(self.world, "looked up", &refusal(status, &answer)?)?;
            return Ok(goes_on);
        }
        self.world.tally.ended(&format!("looked up by {method}: {status}"));
        Ok(goes_on)
    }

    /// Gone before the answer is whole: a stream, a whole answer, a chat.
    async fn vanishing(&mut self, chance: &mut Chance) -> Result<bool, Fault> {
        let (ask, streams) = (Ask::long(), chance.percent(70));
        let (path, body) = if chance.percent(50) {
            (
                "/v1/responses",
                json!({"model": model(chance), "input": ask.words, "stream": streams, "store": chance.percent(30)}),
            )
        } else {
            let messages = json!([{"role": "user", "content": ask.words}]);
            ("/v1/chat/completions", json!({"model": model(chance), "messages": messages, "stream": streams}))
        };
        self.send("POST", path, &body.to_string()).await?;
        if streams {
            let mut bytes = 0;
            let enough = chance.within(1, 4000) as usize;
            self.link
                .response(|_, piece| {
                    bytes += piece.len();
                    Ok(bytes >= enough)
                })
                .await?;
        } else {
            sleep(Duration::from_millis(chance.within(0, 200))).await;
        }
        self.world.tally.ended("http: left in the midst");
        Ok(false)
    }
}

fn request(chance: &mut Chance, ask: &Ask, stored: &Option<String>) -> Value {
    let mut body = json!({"model": model(chance), "input": ask.words, "store": chance.percent(40)});
    if let Some(previous) = stored.as_ref().filter(|_| chance.percent(60)) {
        fill_in(&mut body, "previous_response_id", json!(previous));
    }
    body
}

/// The id to go on from, if the response was to be kept.
fn kept(body: &Value, end: End) -> Option<String> {
    match end {
        End::Completed(id) if body.get("store") == Some(&json!(true)) => Some(id),
        End::Completed(_) | End::Incomplete(..) | End::Failed(_) => None,
    }
}

fn response(body: &[u8]) -> Result<Response, Fault> {
    serde_json::from_slice(body)
        .map_err(|error| Fault::new("wrong event", format!("{error}: {}", String::from_utf8_lossy(body))))
}

/// Hands over each event's data, until there is a fault.
fn each(decoder: &mut sse::Decoder, piece: &[u8], mut on: impl FnMut(&[u8]) -> Result<(), Fault>) -> Result<(), Fault> {
    let mut found = Ok(());
    let decoded = decoder.decode(piece, |event| {
        if found.is_ok() {
            found = on(event.data);
        }
    });
    decoded.map_err(|error| Fault::new("malformed", error.to_string()))?;
    found
}
