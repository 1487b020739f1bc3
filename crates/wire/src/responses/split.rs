//! JSON objects and arrays cut into their raw members, each read once and checked on the way.
//!
//! Where something is wrong, or only unusual, there is no answer: the caller asks `serde_json`, which can say what it is.

use super::fields::Name;
use crate::json::{raw_value, skip_space, string_end, value_end};
use serde_json::value::RawValue;
use std::borrow::Cow;

/// An object's members: names and raw values.
type Members<'a> = Vec<(Cow<'a, str>, &'a RawValue)>;

/// How much of an array of items is known already, from its front.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Known {
    pub items: usize,
    /// Up to the end of the last of them.
    pub bytes: usize,
}

/// An array of items, of which the first are known.
#[derive(Debug)]
pub struct Items<'a> {
    pub known: usize,
    pub new: Vec<&'a RawValue>,
}

/// The members of the object that `text` is.
pub(super) fn object(text: &str) -> Option<Members<'_>> {
    let cut = Cut { bytes: text.as_bytes(), text: |from, to| text.get(from..to) };
    let (members, end) = cut.members(skip_space(cut.bytes, 0))?;
    cut.is_end(end).then_some(members)
}

/// The elements of the array that `text` is, each an object: as they are, and their members.
pub(super) fn objects(text: &str) -> Option<Vec<(&RawValue, Members<'_>)>> {
    let cut = Cut { bytes: text.as_bytes(), text: |from, to| text.get(from..to) };
    let (objects, end) = cut.elements(cut.opening(0, b'[')?, Known::default(), |at| {
        let (members, end) = cut.members(at)?;
        Some(((raw_value(text.get(at..end)?).ok()?, members), end))
    })?;
    cut.is_end(end).then_some(objects)
}

/// The elements of the array that `text` is.
pub(super) fn array(text: &str) -> Option<Vec<&RawValue>> {
    let cut = Cut { bytes: text.as_bytes(), text: |from, to| text.get(from..to) };
    let (elements, end) = cut.elements(cut.opening(0, b'[')?, Known::default(), |at| cut.value(at))?;
    cut.is_end(end).then_some(elements)
}

/// The members of a request's object but for the array `input`, and that.
pub(super) fn request<'a>(
    bytes: &'a [u8],
    known: impl FnOnce(&'a [u8]) -> Known,
) -> Option<(Members<'a>, Option<Items<'a>>)> {
    let mut members = Vec::with_capacity(24);
    let mut input = None;
    let mut known = Some(known);
    // What is known was checked when it was new: only the rest is.
    let cut = Cut { bytes, text: |from, to| std::str::from_utf8(bytes.get(from..to)?).ok() };
    let end = cut.object(skip_space(bytes, 0), |name, at| {
        if name == "input" && bytes.get(at) == Some(&b'[') {
            // A second `input` has no one to ask for what is known, and ends this.
            let inside = skip_space(bytes, at + 1);
            let known = known.take()?(bytes.get(inside..)?);
            let (new, end) = cut.elements(inside, known, |at| cut.value(at))?;
            input = Some(Items { known: known.items, new });
            return Some(end);
        }
        let (value, end) = cut.value(at)?;
        // An `input` of another kind after an array would be taken for it.
        if name == "input" && known.is_none() {
            return None;
        }
        members.push((name, value));
        Some(end)
    })?;
    let both = input.is_some() && members.iter().any(|(name, _)| name == "input");
    (!both && cut.is_end(end)).then_some((members, input))
}

/// Bytes, and how a range of them becomes text.
struct Cut<'a, T: Fn(usize, usize) -> Option<&'a str>> {
    bytes: &'a [u8],
    text: T,
}

impl<'a, T: Fn(usize, usize) -> Option<&'a str>> Cut<'a, T> {
    /// Behind the opening bracket of a value at `at`, and behind the space there.
    fn opening(&self, at: usize, bracket: u8) -> Option<usize> {
        let at = skip_space(self.bytes, at);
        (*self.bytes.get(at)? == bracket).then(|| skip_space(self.bytes, at + 1))
    }

    /// The value at `at`, and where it ends.
    fn value(&self, at: usize) -> Option<(&'a RawValue, usize)> {
        let end = value_end(self.bytes, at)?;
        Some((raw_value((self.text)(at, end)?).ok()?, end))
    }

    /// The string that a member's name is, and where its value begins.
    fn name(&self, at: usize) -> Option<(Cow<'a, str>, usize)> {
        if *self.bytes.get(at)? != b'"' {
            return None;
        }
        let end = string_end(self.bytes, at + 1)?;
        let quoted = (self.text)(at, end)?;
        let name = match quoted.contains('\\') {
            true => serde_json::from_str::<Name<'a>>(quoted).ok()?.0,
            false => Cow::Borrowed(quoted.get(1..quoted.len() - 1)?),
        };
        let colon = skip_space(self.bytes, end);
        (*self.bytes.get(colon)? == b':').then(|| (name, skip_space(self.bytes, colon + 1)))
    }

    /// Whether nothing but space follows.
    fn is_end(&self, at: usize) -> bool {
        skip_space(self.bytes, at) == self.bytes.len()
    }

    /// Cuts the object at `at`, and says where it ends. `member` is given each name and where its value begins, and says where
    /// that ends.
    fn object(&self, at: usize, mut member: impl FnMut(Cow<'a, str>, usize) -> Option<usize>) -> Option<usize> {
        let mut at = self.opening(at, b'{')?;
        if *self.bytes.get(at)? == b'}' {
            return Some(at + 1);
        }
        loop {
            let (name, value) = self.name(at)?;
            at = skip_space(self.bytes, member(name, value)?);
            match *self.bytes.get(at)? {
                b',' => at = skip_space(self.bytes, at + 1),
                b'}' => return Some(at + 1),
                _ => return None,
            }
        }
    }

    /// The members of the object at `at`, and where it ends.
    fn members(&self, at: usize) -> Option<(Members<'a>, usize)> {
        let mut members = Vec::with_capacity(8);
        let end = self.object(at, |name, at| {
            let (value, end) = self.value(at)?;
            members.push((name, value));
            Some(end)
        })?;
        Some((members, end))
    }

    /// The elements of the array whose inside begins at `at`, without those that are known, and where the array ends.
    /// `element` is given where each begins, and says where that ends.
    fn elements<E>(
        &self,
        at: usize,
        known: Known,
        element: impl Fn(usize) -> Option<(E, usize)>,
    ) -> Option<(Vec<E>, usize)> {
        let mut elements = Vec::new();
        let mut at = at;
        if known.items == 0 && *self.bytes.get(at)? == b']' {
            return Some((elements, at + 1));
        }
        if known.items > 0 {
            at = skip_space(self.bytes, at + known.bytes);
            match *self.bytes.get(at)? {
                b',' => at = skip_space(self.bytes, at + 1),
                b']' => return Some((elements, at + 1)),
                _ => return None,
            }
        }
        loop {
            let (one, end) = element(at)?;
            elements.push(one);
            at = skip_space(self.bytes, end);
            match *self.bytes.get(at)? {
                b',' => at = skip_space(self.bytes, at + 1),
                b']' => return Some((elements, at + 1)),
                _ => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fields::Fields;
    use super::*;

    const BODY: &str = r#" {"model" : "m", "n\u0070ut2":1, "input": [ {"role":"user","content":"a\n\"é"} , {"b":[1, {"c":"d"}]},{"e":null}] , "tools":[ ], "x":{"y":"z"}} "#;

    fn raws<'a>(raws: impl Iterator<Item = &'a RawValue>) -> Vec<&'a str> {
        raws.map(RawValue::get).collect()
    }

    /// A request's members but for `input`, how many of its items were known, and the others.
    type Cuts = (Vec<(String, String)>, usize, Vec<String>);

    fn cuts(bytes: &[u8], known: Known) -> Option<Cuts> {
        let fields = Fields::parse_request(bytes, |_| known).ok()?;
        let others = fields.iter().filter(|(name, _)| *name != "input");
        let others = others.map(|(name, raw)| (name.to_owned(), raw.get().to_owned())).collect();
        let items = match fields.input() {
            Some(items) => (items.known, raws(items.new.iter().copied()).into_iter().map(str::to_owned).collect()),
            None => (
                0,
                fields
                    .array("input")
                    .ok()?
                    .map(|items| raws(items.into_iter()))
                    .unwrap_or_default()
                    .into_iter()
                    .map(str::to_owned)
                    .collect(),
            ),
        };
        Some((others, items.0, items.1))
    }

    #[test]
    fn known_items_are_left_out_and_the_rest_is_as_ever() {
        let whole = cuts(BODY.as_bytes(), Known::default()).unwrap();
        assert_eq!((whole.1, whole.2.len()), (0, 3));
        let inside = BODY.find("{\"role\"").unwrap();
        for items in 1..=3 {
            let last = &whole.2[items - 1];
            let bytes = BODY.find(last.as_str()).unwrap() + last.len() - inside;
            let rest = cuts(BODY.as_bytes(), Known { items, bytes }).unwrap();
            assert_eq!((&rest.0, rest.1, &rest.2[..]), (&whole.0, items, &whole.2[items..]));
        }
    }

    #[test]
    fn the_reader_is_given_what_follows_the_bracket() {
        let mut given = None;
        Fields::parse_request(BODY.as_bytes(), |bytes| {
            given = Some(bytes);
            Known::default()
        })
        .unwrap();
        assert!(given.unwrap().starts_with(b"{\"role\""));
    }

    #[test]
    fn the_last_of_two_inputs_counts() {
        for (body, expected) in [
            (r#"{"input":[1],"input":[2]}"#, "[2]"),
            (r#"{"input":[1],"input":"a"}"#, "\"a\""),
            (r#"{"input":"a","input":[1]}"#, "[1]"),
        ] {
            let fields = Fields::parse_request(body.as_bytes(), |_| Known::default()).unwrap();
            assert_eq!(fields.raw("input").unwrap().get(), expected, "{body}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_refused() {
        for at in 0..BODY.len() {
            let mut bytes = BODY.as_bytes().to_vec();
            bytes[at] = 0xff;
            assert!(Fields::parse_request(&bytes, |_| Known::default()).is_err(), "at {at}");
        }
    }

    #[test]
    fn a_damaged_request_is_taken_if_and_only_if_serde_takes_it() {
        for at in 0..BODY.len() {
            for put in [&b""[..], b"\"", b",", b"}", b"]", b"{", b"\\", b"1", b" ", b"\x01"] {
                let mut bytes = BODY.as_bytes().to_vec();
                bytes.splice(at..=at, put.iter().copied());
                let Ok(text) = std::str::from_utf8(&bytes) else { continue };
                let serde = serde_json::from_str::<std::collections::BTreeMap<String, &RawValue>>(text);
                let ours = Fields::parse_request(&bytes, |_| Known::default());
                assert_eq!(ours.is_ok(), serde.is_ok(), "{text}");
                let Ok(serde) = serde else { continue };
                let fields = ours.unwrap();
                for (name, raw) in fields.iter() {
                    assert_eq!(serde[name].get(), raw.get(), "{text}");
                }
                let split = fields.input().map(|items| items.new.len());
                let input = serde.get("input").and_then(|raw| serde_json::from_str::<Vec<&RawValue>>(raw.get()).ok());
                assert_eq!(split, input.map(|items| items.len()), "{text}");
            }
        }
    }
}
