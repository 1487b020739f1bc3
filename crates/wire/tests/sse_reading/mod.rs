//! The same bytes read by our decoder and by the specification's words. The fuzz target `sse` reads this file too.

use flashlane_wire::sse::{Decoder, Error, Event};

/// Name and data.
pub type Owned = (Vec<u8>, Vec<u8>);
/// The events, and the error that ended them.
pub type Outcome = (Vec<Owned>, Result<(), Error>);

/// # Panics
/// When something comes after an error.
pub fn decode<'a>(limit: usize, parts: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let mut decoder = Decoder::new(limit);
    let mut events = Vec::new();
    for part in parts {
        let on_event = |event: Event<'_>| events.push((event.name.to_vec(), event.data.to_vec()));
        if let Err(error) = decoder.decode(part, on_event) {
            assert_eq!(decoder.decode(b"data: more\n\n", |_| panic!("an event after the error")), Err(error));
            return (events, Err(error));
        }
    }
    (events, Ok(()))
}

/// The specification, read line by line over the whole stream.
pub fn reference(limit: usize, stream: &[u8]) -> Outcome {
    let mut events = Vec::new();
    let (mut name, mut data): Owned = Default::default();
    let mut at = 0;
    while at < stream.len() {
        let end = (at..stream.len()).find(|&i| stream[i] == b'\n' || stream[i] == b'\r');
        let mut line = &stream[at..end.unwrap_or(stream.len())];
        if line.len() + name.len() + data.len() > limit {
            return (events, Err(Error::EventTooLong { event_bytes_max: limit }));
        }
        let Some(end) = end else { break };
        if at == 0 && line.starts_with("\u{feff}".as_bytes()) {
            line = &line[3..];
        }
        at = end + if stream[end..].starts_with(b"\r\n") { 2 } else { 1 };
        if line.is_empty() {
            if data.pop().is_some() {
                events.push((name.clone(), data.clone()));
            }
            name.clear();
            data.clear();
            continue;
        }
        let (field, value) = match line.iter().position(|&b| b == b':') {
            Some(colon) if line.get(colon + 1) == Some(&b' ') => (&line[..colon], &line[colon + 2..]),
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (line, &line[line.len()..]),
        };
        if field == b"event" {
            name = value.to_vec();
        } else if field == b"data" {
            data.extend_from_slice(value);
            data.push(b'\n');
        }
    }
    (events, Ok(()))
}
