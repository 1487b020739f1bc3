//! Panics: a mistake of ours, of which the log has the place and never the words, since those may hold what a client sent. Knows nothing
//! of what was going on.

use std::cell::RefCell;
use std::panic::{self, PanicHookInfo};

thread_local! {
    /// Of the last panic on this thread, until somebody asks.
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// From now on each panic is a line of the log.
pub fn set_up() {
    panic::set_hook(Box::new(|info| {
        let place = place_of(info);
        tracing::error!(place, words = literal(info), "panic");
        PLACE.set(Some(place));
    }));
}

/// Where this thread panicked last, once.
#[must_use]
pub fn take_place() -> Option<String> {
    PLACE.take()
}

fn place_of(info: &PanicHookInfo<'_>) -> String {
    info.location().map_or_else(|| "unknown".to_owned(), ToString::to_string)
}

/// What stands in our source as it is; what was put together is left out.
fn literal<'a>(info: &'a PanicHookInfo<'_>) -> Option<&'a str> {
    info.payload().downcast_ref::<&'static str>().copied()
}
