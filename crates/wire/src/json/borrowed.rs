//! A [`RawValue`] made of text that is known to be one value, without reading it again.
//!
//! `serde_json` makes one of what a deserializer hands to its visitor: a map of one entry, whose name is the newtype's and
//! whose value is the text. Any deserializer may do so; this one holds the text already.

use serde::de::value::BorrowedStrDeserializer;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::Error;
use serde_json::value::RawValue;

/// `text` as a raw value. It must be one JSON value without space around it: what is no JSON here is none where it is written.
///
/// # Errors
/// `serde_json` makes raw values in another way than it did.
pub fn raw_value(text: &str) -> Result<&RawValue, Error> {
    <&RawValue>::deserialize(Known { text, name: None })
}

struct Known<'de> {
    text: &'de str,
    /// The entry's name, until it was handed out.
    name: Option<&'static str>,
}

impl<'de> Deserializer<'de> for Known<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(Error::custom("a raw value is no newtype any more"))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_map(Known { name: Some(name), ..self })
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct seq tuple
        tuple_struct map struct enum identifier ignored_any
    }
}

impl<'de> MapAccess<'de> for Known<'de> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let name = self.name.take();
        name.map(|name| seed.deserialize(BorrowedStrDeserializer::new(name))).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        seed.deserialize(BorrowedStrDeserializer::new(self.text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_raw_value_that_serde_reads() {
        for text in ["1", "null", "\"a\\n\"", "{\"a\":[1, 2]}", "[]"] {
            let raw = raw_value(text).unwrap();
            assert_eq!(raw.get(), serde_json::from_str::<&RawValue>(text).unwrap().get());
            assert!(std::ptr::eq(raw.get(), text), "nothing is copied");
        }
    }
}
