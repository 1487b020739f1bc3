//! The learned template against the typed parser: on any chunk they say the same.
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that meets what it does not expect shall fail"
)]

use flashlane_wire::chat::{ChunkReader, DeltaKind, Read};

/// A small generator; the tests' only source of chance.
struct Chance(u64);

impl Chance {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(below).unwrap()).unwrap()
    }

    fn pick<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.next(choices.len())]
    }
}

const TEXTS: [&str; 20] = [
    "",
    "a",
    " the",
    "\\n",
    "\\\"",
    "\\\\",
    "é",
    "😀",
    "\\u00e9",
    "\\ud83d\\ude00",
    "\\ud83d",
    "\\ude00x",
    "\\/",
    "{\\\"a\\\":1}",
    "\\u0000",
    "\\uD7FF",
    "]}",
    "data: ",
    "\\t\\r\\b\\f",
    "\\u2028",
];

/// A chunk of one of a few frames, with odd spacing and field order at times.
fn chunk(chance: &mut Chance) -> String {
    let text: String = (0..chance.next(4)).map(|_| chance.pick(&TEXTS)).collect();
    let delta = match chance.next(8) {
        0 => format!(r#"{{"reasoning":"{text}"}}"#),
        1 => format!(r#"{{"reasoning_content":"{text}","content":null}}"#),
        2 => format!(r#"{{"tool_calls":[{{"index":{},"function":{{"arguments":"{text}"}}}}]}}"#, chance.next(2)),
        3 => format!(
            r#"{{"tool_calls":[{{"index":0,"id":"c","type":"function","function":{{"name":"f","arguments":"{text}"}}}}]}}"#
        ),
        4 => format!(r#"{{ "role" : "assistant", "content" : "{text}" }}"#),
        _ => format!(r#"{{"content":"{text}"}}"#),
    };
    let finish = chance.pick(&["null", "null", "null", "null", "\"stop\"", "\"length\""]);
    let id = chance.pick(&["a", "a", "a", "b"]);
    match chance.next(5) {
        0 => format!(r#"{{"choices":[{{"finish_reason":{finish},"delta":{delta},"index":0}}],"id":"{id}"}}"#),
        1 => format!(
            r#"{{"id":"{id}","choices":[{{"index":{},"delta":{delta},"finish_reason":{finish}}}]}}"#,
            chance.next(2)
        ),
        2 => format!(
            r#"{{"id":"{id}","choices":[{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":{finish}}}],"usage":null}}"#
        ),
        3 => format!(
            r#"{{"id":"{id}","choices":[{{"index":0,"delta":{delta}}}],"usage":{{"prompt_tokens":1,"completion_tokens":{}}}}}"#,
            chance.next(9)
        ),
        _ => format!(r#"{{"id":"{id}","choices":[{{"index":0,"delta":{delta},"finish_reason":{finish}}}]}}"#),
    }
}

#[test]
fn the_learned_template_reads_what_the_typed_parser_reads() {
    let (mut learned, mut equal) = (0u32, 0u32);
    for seed in 1..400u64 {
        let mut chance = Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut reader = ChunkReader::default();
        for _ in 0..60 {
            let mut bytes = chunk(&mut chance).into_bytes();
            if chance.next(12) == 0 {
                let at = chance.next(bytes.len());
                bytes[at] = u8::try_from(chance.next(256)).unwrap();
            }
            let fast = reader.read(&bytes);
            let typed = ChunkReader::default().read_typed(&bytes);
            match (&fast, &typed) {
                (Ok(fast), Ok(typed)) if fast == typed => equal += 1,
                // An empty text of a learned frame is text; to the typed parser it is a chunk that brings nothing.
                (Ok(Read::Text(_, b"")), Ok(Read::Chunk(chunk))) => {
                    assert!(chunk.choices.iter().all(|choice| !choice.has_text()
                        || choice.tool_calls.iter().all(|c| c.arguments.is_empty() && c.name.is_none())));
                }
                (Err(_), Err(_)) => {}
                _ => panic!("{}: {fast:?} against {typed:?}", String::from_utf8_lossy(&bytes)),
            }
            learned += u32::from(matches!(fast, Ok(Read::Text(..))));
        }
    }
    assert!(learned > 4000 && equal > 15_000, "{learned} by template or typed text, {equal} equal");
}

#[test]
fn a_chunk_of_a_learned_frame_is_its_raw_text() {
    let mut reader = ChunkReader::default();
    let first = br#"{"id":"x","choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}"#;
    assert_eq!(reader.read(first).unwrap(), Read::Text(DeltaKind::Content, b"a"));
    let second = br#"{"id":"x","choices":[{"index":0,"delta":{"content":"b\"c"},"finish_reason":null}]}"#;
    assert_eq!(reader.read(second).unwrap(), Read::Text(DeltaKind::Content, b"b\\\"c"));
}

#[test]
fn the_recorded_streams_of_real_servers_are_read() {
    for (name, text) in [
        ("plain.sse", include_str!("../../../proto/llama.cpp/plain.sse")),
        ("tool_call.sse", include_str!("../../../proto/llama.cpp/tool_call.sse")),
        ("plain.sse of vLLM", include_str!("../../../proto/vllm/plain.sse")),
        ("tool_call.sse of vLLM", include_str!("../../../proto/vllm/tool_call.sse")),
        ("plain.sse of SGLang", include_str!("../../../proto/sglang/plain.sse")),
    ] {
        let mut reader = ChunkReader::default();
        let (mut texts, mut done, mut usage) = (0, false, None);
        for line in text.lines().filter_map(|line| line.strip_prefix("data: ")) {
            match reader.read(line.as_bytes()).unwrap_or_else(|error| panic!("{name}: {error}: {line}")) {
                Read::Text(..) => texts += 1,
                Read::Chunk(chunk) => usage = usage.or(chunk.usage),
                Read::Done => done = true,
            }
        }
        assert!(texts > 2 && done && usage.is_some(), "{name}: {texts} texts, done {done}, usage {usage:?}");
    }
}

#[test]
fn an_engines_own_times_are_read_wherever_it_tells_them() {
    let head = r#"{"id":"c","choices":[]"#;
    for (told, queue_ns) in [
        (r#""usage":{"prompt_tokens":1},"time_info":{"queue_time":0.25,"created":1}"#, Some(250_000_000)),
        (r#""usage":{"prompt_tokens":1,"queue_time":0.5}"#, Some(500_000_000)),
        (r#""usage":{"prompt_tokens":1},"metrics":{"queue_time_ms":3}"#, Some(3_000_000)),
        (r#""usage":{"prompt_tokens":1},"time_info":null"#, None),
    ] {
        let line = format!("{head},{told}}}");
        let Read::Chunk(chunk) = ChunkReader::default().read(line.as_bytes()).unwrap() else { panic!("{line}") };
        assert_eq!(chunk.times.and_then(|times| times.queue_ns), queue_ns, "{line}");
        assert_eq!(chunk.usage.unwrap().input, 1);
    }
}

#[test]
fn a_usage_of_both_namings_is_one() {
    let usage = r#"{"prompt_tokens":9,"input_tokens":9,"completion_tokens":3,"output_tokens":3,"prompt_tokens_details":null,"input_tokens_details":{"cached_tokens":4},"completion_tokens_details":{"reasoning_tokens":1},"output_tokens_details":{"reasoning_tokens":1}}"#;
    let data = format!(r#"{{"choices":[],"usage":{usage}}}"#);
    let Read::Chunk(chunk) = ChunkReader::default().read(data.as_bytes()).unwrap() else { panic!("{data}") };
    let usage = chunk.usage.unwrap();
    assert_eq!((usage.input, usage.cached, usage.output, usage.reasoning), (9, 4, 3, 1));
}
