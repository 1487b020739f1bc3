//! Any lines as the stream of an upstream that speaks the Responses API: what is passed on is one line of JSON under our number, and reads
//! as what came; an item that is cut at any place is an item.

#![no_main]

use flashlane_wire::responses::{self, Place, Said, ServerEvent, Streamed};
use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;

const PLACE: Place<'_> = Place { id: "item_ours", output_index: 3 };

fuzz_target!(|bytes: &[u8]| {
    let mut streamed = Streamed::default();
    let mut announced: Option<&RawValue> = None;
    for line in bytes.split(|&byte| byte == b'\n') {
        let Ok(event) = ServerEvent::parse(line) else { continue };
        let _ = (event.output_index(), event.item_id());
        streamed.take(&event);
        if let Said::ItemAdded(item) = event.said {
            announced = Some(item);
        }
        for place in [None, Some(PLACE)] {
            passed_on_as_it_came(&event, place);
        }
    }
    let Some(item) = announced else { return };
    let mut whole = Vec::new();
    responses::push_item(&mut whole, item, "item_ours");
    is_json(&whole);
    let mut cut = Vec::new();
    streamed.push_cut(&mut cut, item, "item_ours");
    is_json(&cut);
});

fn passed_on_as_it_came(event: &ServerEvent<'_>, place: Option<Place<'_>>) {
    let mut passed = Vec::new();
    event.push(&mut passed, 7, "resp_ours", place);
    is_json(&passed);
    let again = ServerEvent::parse(&passed).expect("what is passed on is an event");
    assert_eq!(again.name, event.name);
    assert_eq!(again.text(), event.text());
    if let (Some(place), Some(_)) = (place, event.output_index()) {
        assert_eq!(again.output_index(), Some(u64::from(place.output_index)));
    }
}

/// Escapes of half a character are as their upstream sent them: they are no error here.
fn is_json(bytes: &[u8]) {
    assert!(!bytes.contains(&b'\n'), "one line");
    serde_json::from_slice::<&RawValue>(bytes).expect("it is JSON");
}
