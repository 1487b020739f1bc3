//! An answer read as a turn reads it: its chunks, its end, its usage, its limits. Knows no question and judges nothing.

use flashlane_backend::exam::{Answer, End, Told};
use flashlane_wire::chat::{Chunk, ChunkReader, DeltaKind, FinishReason, Read, StreamError, UpstreamTimes, Usage};
use flashlane_wire::sse;
use std::time::Duration;

const EVENT_BYTES_MAX: usize = 1 << 20;

/// What of an answer is judged.
#[derive(Debug, Clone)]
pub struct Heard {
    pub end: End,
    /// `None`: no answer came, or nothing was sent.
    pub status: Option<u16>,
    pub limits: Vec<Told>,
    /// Chunks with text, of an answer or of reasoning.
    pub texts: u64,
    pub reasoning_texts: u64,
    pub usage: Option<Usage>,
    pub times: Option<UpstreamTimes>,
    pub finish: Option<FinishReason>,
    /// `[DONE]` came.
    pub is_done: bool,
    /// The first line that is no chunk.
    pub unread: Option<String>,
    /// A refusal's, or one inside a stream.
    pub error: Option<StreamError>,
    pub first_byte: Option<Duration>,
    pub is_reused: bool,
    pub is_packed: bool,
}

impl Heard {
    pub fn read(answer: &Answer) -> Self {
        let head = answer.head.as_ref();
        let mut heard = Self {
            end: answer.end.clone(),
            status: head.map(|head| head.status),
            limits: head.map(|head| head.limits()).unwrap_or_default(),
            texts: 0,
            reasoning_texts: 0,
            usage: None,
            times: None,
            finish: None,
            is_done: false,
            unread: None,
            error: None,
            first_byte: answer.first_byte,
            is_reused: answer.is_reused,
            is_packed: answer.is_packed,
        };
        match answer.end {
            End::Refused { .. } => heard.error = Some(StreamError::from_body(&answer.body)),
            End::Whole | End::Broken { .. } => heard.stream(&answer.body),
        }
        heard
    }

    fn stream(&mut self, body: &[u8]) {
        let mut chunks = ChunkReader::default();
        let decoded = sse::Decoder::new(EVENT_BYTES_MAX).decode(body, |event| match chunks.read(event.data) {
            Ok(Read::Text(kind, _)) => self.text(kind),
            Ok(Read::Chunk(chunk)) => self.chunk(&chunk),
            Ok(Read::Done) => self.is_done = true,
            Err(error) => {
                self.unread.get_or_insert_with(|| error.to_string());
            }
        });
        if let Err(error) = decoded {
            self.unread.get_or_insert_with(|| error.to_string());
        }
    }

    fn text(&mut self, kind: DeltaKind) {
        match kind {
            DeltaKind::Content | DeltaKind::Arguments(_) => self.texts += 1,
            DeltaKind::Reasoning => {
                self.texts += 1;
                self.reasoning_texts += 1;
            }
        }
    }

    fn chunk(&mut self, chunk: &Chunk<'_>) {
        self.usage = chunk.usage.or(self.usage);
        self.times = chunk.times.or(self.times);
        if let Some(error) = &chunk.error {
            self.error = Some(error.clone());
        }
        for choice in &chunk.choices {
            self.texts += u64::from(choice.has_text());
            self.reasoning_texts += u64::from(!choice.reasoning.is_empty());
            self.finish = choice.finish_reason.or(self.finish);
        }
    }

    /// A whole answer without an error in it.
    pub fn is_whole(&self) -> bool {
        self.end == End::Whole && self.error.is_none()
    }

    /// In a few words, for evidence.
    pub fn told(&self) -> String {
        let said = self.error.as_ref().map(|error| {
            let code = error.code.as_deref().or(error.kind.as_deref()).unwrap_or("no code");
            let message: String = error.message.chars().take(160).collect();
            format!("{message} ({code})")
        });
        match (&self.end, said) {
            (End::Refused { status }, said) if self.status.is_none() => {
                format!("nothing was sent: {status} {}", said.unwrap_or_default())
            }
            (End::Refused { status }, said) => format!("{status} {}", said.unwrap_or_default()),
            (End::Broken { reason }, _) => reason.clone(),
            (End::Whole, Some(said)) => format!("an error in the stream: {said}"),
            (End::Whole, None) => "answered".to_owned(),
        }
    }
}
