//! Which trace a turn belongs to: W3C Trace Context read and written, and the ids of a turn's spans. Knows no exporter and no header but
//! these two. Every id comes from the response's own, so that a turn is found in either by the other, and nothing more is drawn or kept.

use crate::ids::TurnHex;
use serde::Deserialize;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// Of `tracestate`: the specification asks for at least as many to be passed on.
const STATE_BYTES_MAX: usize = 512;

/// What `traceparent` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    pub trace: u128,
    pub span: u64,
    pub is_sampled: bool,
}

impl TraceParent {
    /// None: it says nothing that can be gone on from. Of a version to come, what this one knows is read.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim_matches([' ', '\t']);
        let mut parts = text.split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let is_over = parts.next().is_none();
        let [version, flags] = [hex(version, 2)?, hex(flags, 2)?];
        let parent =
            Self { trace: hex(trace, 32)?, span: u64::try_from(hex(span, 16)?).ok()?, is_sampled: flags & 1 == 1 };
        let is_known = version != 0xff && (version > 0 || is_over);
        (is_known && parent.trace != 0 && parent.span != 0).then_some(parent)
    }
}

/// So many hexadecimal digits, in small letters.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let is_hex = text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if is_hex { u128::from_str_radix(text, 16).ok() } else { None }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace, self.span, u8::from(self.is_sampled))
    }
}

/// What a client's request belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parent {
    pub at: TraceParent,
    /// `tracestate`, as it is to be passed on.
    pub state: Option<Arc<str>>,
}

/// Codex tells of a request over its WebSocket by these, where HTTP has headers.
#[derive(Deserialize)]
struct ClientMetadata<'a> {
    #[serde(borrow, default, rename = "ws_request_header_traceparent")]
    parent: Option<Cow<'a, str>>,
    #[serde(borrow, default, rename = "ws_request_header_tracestate")]
    state: Option<Cow<'a, str>>,
}

impl Parent {
    /// From the values of both headers. A `tracestate` that no header could be is left out.
    #[must_use]
    pub fn read(parent: &str, state: Option<&str>) -> Option<Self> {
        let is_fit = |state: &&str| {
            !state.is_empty() && state.len() <= STATE_BYTES_MAX && state.bytes().all(|byte| matches!(byte, b' '..=b'~'))
        };
        Some(Self { at: TraceParent::parse(parent)?, state: state.filter(is_fit).map(Into::into) })
    }

    /// From a request's `client_metadata` (raw JSON).
    #[must_use]
    pub fn of_client_metadata(raw: &str) -> Option<Self> {
        let ClientMetadata { parent, state } = serde_json::from_str(raw).ok()?;
        Self::read(&parent?, state.as_deref())
    }
}

/// What a session knows of traces. One without takes no part in any.
#[derive(Debug, Clone)]
pub struct Tracing {
    /// What its handshake or its request belongs to.
    pub parent: Option<Parent>,
    /// How many of the traces that begin here are kept, in percent. One that began elsewhere is kept where its client says so.
    pub sample_percent: u8,
}

/// A turn's place in a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    pub id: u128,
    /// The turn's own span.
    pub span: u64,
    pub parent: Option<u64>,
    pub is_sampled: bool,
    pub state: Option<Arc<str>>,
}

/// What an upstream request says of its trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceHeaders {
    pub parent: TraceParent,
    pub state: Option<Arc<str>>,
}

impl Trace {
    /// A turn's. What its own request belongs to goes before its connection's.
    #[must_use]
    pub fn begin(tracing: &Tracing, asked: Option<&Parent>, turn: &TurnHex) -> Self {
        let own = turn.number();
        // Its lower half, which is nobody's span else.
        let span = child((own & u128::from(u64::MAX)) as u64, u32::MAX);
        match asked.or(tracing.parent.as_ref()) {
            Some(Parent { at, state }) => {
                Self { id: at.trace, span, parent: Some(at.span), is_sampled: at.is_sampled, state: state.clone() }
            }
            None => {
                let is_sampled = own % 100 < u128::from(tracing.sample_percent);
                Self { id: own, span, parent: None, is_sampled, state: None }
            }
        }
    }

    /// What goes out with the turn's attempt of this number, from 0.
    #[must_use]
    pub fn headers(&self, attempt: usize) -> TraceHeaders {
        let parent =
            TraceParent { trace: self.id, span: attempt_span(self.span, attempt), is_sampled: self.is_sampled };
        TraceHeaders { parent, state: self.state.clone() }
    }
}

/// The span of a turn's attempt, from 0.
#[must_use]
pub fn attempt_span(turn: u64, attempt: usize) -> u64 {
    child(turn, u32::try_from(attempt).unwrap_or(u32::MAX))
}

/// The span of a turn's step, from 0.
#[must_use]
pub fn step_span(turn: u64, step: usize) -> u64 {
    child(turn, u32::try_from(step).unwrap_or(u32::MAX) | 1 << 31)
}

/// The span of what its guard is asked.
#[must_use]
pub fn guard_span(turn: u64) -> u64 {
    child(turn, 1 << 30)
}

/// Another span's id made of one: SplitMix64's mixing, which maps no two numbers to one.
fn child(span: u64, number: u32) -> u64 {
    let mut mixed = span.wrapping_add(u64::from(number).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    // 0 is no id.
    (mixed ^ (mixed >> 31)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::IdSource;
    use std::collections::BTreeSet;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_is_read_and_written_as_the_specification_has_it() {
        let read = TraceParent::parse(PARENT).unwrap();
        assert_eq!(
            (read.trace, read.span, read.is_sampled),
            (0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736, 0x00f0_67aa_0ba9_02b7, true)
        );
        assert_eq!(read.to_string(), PARENT);
        assert_eq!(TraceParent::parse(&PARENT.replace("-01", "-00")).map(|read| read.is_sampled), Some(false));
        assert_eq!(TraceParent::parse(&PARENT.replace("-01", "-ff")).map(|read| read.is_sampled), Some(true));
        // Of a version to come.
        assert_eq!(TraceParent::parse(&format!("01{}-more", &PARENT[2..])), Some(read));
    }

    #[test]
    fn what_is_no_traceparent_is_none() {
        let zeros = (
            PARENT.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            PARENT.replace("00f067aa0ba902b7", &"0".repeat(16)),
        );
        let others = [
            "",
            "00",
            &PARENT.to_uppercase(),
            &PARENT[..54],
            &format!("{PARENT}-x"),
            &format!("{PARENT}0"),
            &format!("ff{}", &PARENT[2..]),
        ];
        for text in others.iter().copied().chain([
            &*zeros.0,
            &*zeros.1,
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ]) {
            assert_eq!(TraceParent::parse(text), None, "{text}");
        }
    }

    #[test]
    fn codex_says_it_in_its_metadata_and_nothing_there_can_break_a_header() {
        let raw = format!(
            r#"{{"ws_request_header_traceparent":"{PARENT}","ws_request_header_tracestate":"a=1,b=2","x":[7]}}"#
        );
        let parent = Parent::of_client_metadata(&raw).unwrap();
        assert_eq!((parent.at.to_string().as_str(), parent.state.as_deref()), (PARENT, Some("a=1,b=2")));
        for state in ["a=1\r\nauthorization: x", "é", "", &"a".repeat(513)] {
            assert_eq!(Parent::read(PARENT, Some(state)).unwrap().state, None, "{state:?}");
        }
        for raw in ["", "{}", "7", r#"{"ws_request_header_traceparent":7}"#, r#"{"ws_request_header_traceparent":"x"}"#]
        {
            assert_eq!(Parent::of_client_metadata(raw), None, "{raw}");
        }
    }

    #[test]
    fn a_turn_goes_on_with_its_clients_trace_and_its_word_on_sampling() {
        let turn = IdSource::new([7; 32]).draw();
        let connection = Parent::read(PARENT, Some("a=1"));
        let request = Parent::read(&PARENT.replace("0e0e4736", "0e0e4737").replace("-01", "-00"), None);
        let tracing = Tracing { parent: connection.clone(), sample_percent: 0 };
        let trace = Trace::begin(&tracing, None, &turn);
        assert_eq!(
            (Some(trace.id), trace.parent, trace.is_sampled),
            (connection.map(|parent| parent.at.trace), Some(0x00f0_67aa_0ba9_02b7), true)
        );
        let headers = trace.headers(0);
        assert_eq!(
            (headers.parent.trace, headers.parent.is_sampled, headers.state.as_deref()),
            (trace.id, true, Some("a=1"))
        );
        assert!(headers.parent.span != trace.span && headers.parent.span != trace.headers(1).parent.span);
        let own = Trace::begin(&Tracing { sample_percent: 100, ..tracing }, request.as_ref(), &turn);
        assert_eq!((Some(own.id), own.is_sampled), (request.map(|parent| parent.at.trace), false));
    }

    #[test]
    fn a_trace_that_begins_here_has_the_responses_digits_and_its_share_is_kept() {
        let mut ids = IdSource::new([7; 32]);
        let turns: Vec<_> = (0..2000).map(|_| ids.draw()).collect();
        let kept = |sample_percent| {
            let tracing = Tracing { parent: None, sample_percent };
            turns.iter().filter(|turn| Trace::begin(&tracing, None, turn).is_sampled).count()
        };
        assert_eq!((kept(0), kept(100)), (0, 2000));
        assert!((400..600).contains(&kept(25)), "{}", kept(25));
        let trace = Trace::begin(&Tracing { parent: None, sample_percent: 100 }, None, &turns[0]);
        assert_eq!((format!("resp_{:032x}", trace.id), trace.parent), (turns[0].response_id(), None));
        let spans = (0..100).flat_map(|n| [attempt_span(trace.span, n), step_span(trace.span, n)]);
        assert_eq!(spans.chain([trace.span]).collect::<BTreeSet<_>>().len(), 201);
    }
}
