//! The bytes that wait for the client: events framed for its transport, one whole event after the other.

use bytes::Bytes;
use flashlane_wire::websocket::Encoder;

/// A client's outgoing buffer.
pub struct Outgoing {
    sink: Sink,
    out: Vec<u8>,
    /// Bytes at the front that are written.
    written: usize,
    /// `,"stream_id":"…"}` while a named lane speaks, else empty: takes the place of an event's closing brace.
    lane: Vec<u8>,
}

enum Sink {
    /// One text message an event.
    WebSocket(Box<Encoder>),
    /// `event:` and `data:` lines.
    Sse,
    /// Nobody listens to events: only the final object counts.
    Collect,
    /// Unframed, for a journal that is read later: where each event ends.
    Journal { ends: Vec<usize> },
    /// A lane speaks that this client does not hear: where the others' events go.
    Muted(Box<Sink>),
}

impl Sink {
    /// That of the lanes that are heard.
    fn own(&self) -> &Self {
        match self {
            Self::Muted(sink) => sink,
            Self::WebSocket(_) | Self::Sse | Self::Collect | Self::Journal { .. } => self,
        }
    }
}

/// A buffer that once held a large burst is given back at rest.
const OUT_BYTES_KEPT_MAX: usize = 16 * 1024;

impl Outgoing {
    #[must_use]
    pub fn websocket(encoder: Encoder) -> Self {
        Self { sink: Sink::WebSocket(Box::new(encoder)), out: Vec::new(), written: 0, lane: Vec::new() }
    }

    #[must_use]
    pub fn sse() -> Self {
        Self { sink: Sink::Sse, out: Vec::new(), written: 0, lane: Vec::new() }
    }

    #[must_use]
    pub fn collect() -> Self {
        Self { sink: Sink::Collect, out: Vec::new(), written: 0, lane: Vec::new() }
    }

    #[must_use]
    pub fn journal() -> Self {
        Self { sink: Sink::Journal { ends: Vec::new() }, out: Vec::new(), written: 0, lane: Vec::new() }
    }

    /// Appends one event; `write` appends its JSON. An empty name makes an event without one (Chat Completions).
    ///
    /// hot: per token
    pub fn event(&mut self, name: &str, write: impl FnOnce(&mut Vec<u8>)) {
        match &mut self.sink {
            Sink::WebSocket(encoder) => {
                let mark = encoder.begin(&mut self.out);
                write(&mut self.out);
                if !self.lane.is_empty() {
                    self.out.pop();
                    self.out.extend_from_slice(&self.lane);
                }
                encoder.finish(mark, &mut self.out);
            }
            Sink::Sse => {
                if !name.is_empty() {
                    self.out.extend_from_slice(b"event: ");
                    self.out.extend_from_slice(name.as_bytes());
                    self.out.push(b'\n');
                }
                self.out.extend_from_slice(b"data: ");
                write(&mut self.out);
                self.out.extend_from_slice(b"\n\n");
            }
            Sink::Journal { ends } => {
                write(&mut self.out);
                ends.push(self.out.len());
            }
            Sink::Collect | Sink::Muted(_) => {}
        }
    }

    /// Takes a journal's events, each its JSON in bytes of its own.
    pub fn take_events(&mut self) -> Vec<Bytes> {
        let ends = match &mut self.sink {
            Sink::Journal { ends } => ends,
            Sink::Muted(sink) => match &mut **sink {
                Sink::Journal { ends } => ends,
                Sink::WebSocket(_) | Sink::Sse | Sink::Collect | Sink::Muted(_) => return Vec::new(),
            },
            Sink::WebSocket(_) | Sink::Sse | Sink::Collect => return Vec::new(),
        };
        let starts = std::iter::once(0).chain(ends.iter().copied());
        let events = starts.zip(ends.iter()).filter_map(|(start, end)| self.out.get(start..*end));
        let events = events.map(Bytes::copy_from_slice).collect();
        ends.clear();
        self.out.clear();
        events
    }

    /// The events to come are of this lane, and say so; None is the default lane. A lane's name needs no escape. Over HTTP, where a client
    /// cannot tell lanes apart, it hears the default lane alone.
    pub fn speak_for(&mut self, lane: Option<&str>) {
        match (&self.sink, lane) {
            (Sink::Sse | Sink::Journal { .. }, Some(_)) => {
                let sink = std::mem::replace(&mut self.sink, Sink::Collect);
                self.sink = Sink::Muted(Box::new(sink));
            }
            (Sink::Muted(_), None) => {
                if let Sink::Muted(sink) = std::mem::replace(&mut self.sink, Sink::Collect) {
                    self.sink = *sink;
                }
            }
            (Sink::WebSocket(_) | Sink::Collect | Sink::Sse | Sink::Journal { .. } | Sink::Muted(_), _) => {}
        }
        self.lane.clear();
        if let Some(name) = lane {
            self.lane.extend_from_slice(b",\"stream_id\":\"");
            self.lane.extend_from_slice(name.as_bytes());
            self.lane.extend_from_slice(b"\"}");
        }
    }

    /// The stream is over: `[DONE]` over HTTP; on a WebSocket the compressor rests.
    pub fn end(&mut self) {
        match &mut self.sink {
            Sink::WebSocket(encoder) => encoder.rest(),
            Sink::Sse => self.out.extend_from_slice(b"data: [DONE]\n\n"),
            Sink::Collect | Sink::Journal { .. } | Sink::Muted(_) => {}
        }
    }

    /// A sign of life of one line that no client takes for an event (SSE only).
    pub fn comment(&mut self, text: &str) {
        if matches!(self.sink, Sink::Sse) {
            self.out.extend_from_slice(b": ");
            self.out.extend_from_slice(text.as_bytes());
            self.out.extend_from_slice(b"\n\n");
        }
    }

    /// Whether somebody waits for events now.
    #[must_use]
    pub fn has_listener(&self) -> bool {
        match self.sink.own() {
            Sink::WebSocket(_) | Sink::Sse => true,
            Sink::Collect | Sink::Journal { .. } | Sink::Muted(_) => false,
        }
    }

    #[must_use]
    pub fn is_collecting(&self) -> bool {
        matches!(self.sink, Sink::Collect)
    }

    /// Appends a control frame to the WebSocket's bytes.
    pub fn control(&mut self, write: impl FnOnce(&mut Encoder, &mut Vec<u8>)) {
        if let Sink::WebSocket(encoder) = &mut self.sink {
            write(encoder, &mut self.out);
        }
    }

    /// What is to be written.
    #[must_use]
    pub fn ready(&self) -> &[u8] {
        self.out.get(self.written..).unwrap_or_default()
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.out.len() - self.written
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// `count` bytes of [`Self::ready`] were written.
    pub fn consume(&mut self, count: usize) {
        self.written = (self.written + count).min(self.out.len());
        if self.written == self.out.len() {
            self.out.clear();
            self.written = 0;
            if self.out.capacity() > OUT_BYTES_KEPT_MAX {
                self.out = Vec::new();
            }
        } else if self.written > self.out.len() / 2 {
            // A slow reader never empties the buffer: its written front must not stay.
            self.out.drain(..self.written);
            self.written = 0;
        }
    }

    /// Takes all that is to be written.
    pub fn take(&mut self) -> Bytes {
        let written = std::mem::take(&mut self.written);
        let mut taken = Bytes::from(std::mem::take(&mut self.out));
        taken.split_off(written)
    }
}

impl std::fmt::Debug for Outgoing {
    /// How much waits, never what: it is the client's text.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outgoing").field("bytes", &self.len()).finish_non_exhaustive()
    }
}
