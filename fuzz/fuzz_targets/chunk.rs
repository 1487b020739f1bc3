//! The learned template against the typed parser, on lines that fuzzing finds: the first line teaches, the others are read both
//! ways.

#![no_main]

use flashlane_wire::chat::{ChunkReader, Read};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut reader = ChunkReader::default();
    for line in bytes.split(|&byte| byte == b'\n') {
        let learned = reader.read(line);
        let typed = ChunkReader::default().read_typed(line);
        match (learned, typed) {
            // An empty text of a learned frame is text; to the typed parser it is a chunk that brings nothing.
            (Ok(Read::Text(_, b"")), Ok(Read::Chunk(_))) | (Err(_), Err(_)) => {}
            (learned, typed) => assert_eq!(learned, typed),
        }
    }
});
