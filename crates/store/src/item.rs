//! What is read of an item's JSON: its id and type; and which items a page takes. Knows nothing else of items.

use std::borrow::Cow;

use serde::Deserialize;

use crate::{Order, Page};

/// Absent for what is no object, or has none.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Head<'a> {
    #[serde(borrow, default)]
    pub(crate) id: Option<Cow<'a, str>>,
    #[serde(borrow, default, rename = "type")]
    pub(crate) kind: Option<Cow<'a, str>>,
}

pub(crate) fn head(json: &[u8]) -> Head<'_> {
    serde_json::from_slice(json).unwrap_or_default()
}

/// The items of a page, in its order, and whether there are more; `None` if none has the id of the cursor.
pub(crate) fn page<T: Copy>(all: &[T], page: &Page, has_id: impl Fn(T, &str) -> bool) -> Option<(Vec<T>, bool)> {
    let mut rest: Vec<T> = match page.order {
        Order::OldestFirst => all.to_vec(),
        Order::NewestFirst => all.iter().rev().copied().collect(),
    };
    if let Some(after) = &page.after {
        let at = rest.iter().position(|item| has_id(*item, after))?;
        rest.drain(..=at);
    }
    let has_more = rest.len() > page.items_max;
    rest.truncate(page.items_max);
    Some((rest, has_more))
}
