//! An object from outside, split into its raw fields, and read by name with errors that name the parameter.

use super::error::ParseError;
use super::split::{self, Items, Known};
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// The fields of one JSON object, unparsed. The last of two fields of one name counts, as in OpenAI's own parser.
#[derive(Debug)]
pub struct Fields<'a> {
    /// Where this object stands in the request: empty, or `input[2].`.
    prefix: String,
    raw: Vec<(Cow<'a, str>, &'a RawValue)>,
    /// `input`, which then is not among the raw.
    input: Option<Items<'a>>,
}

/// Splits by `serde_json`, which is slower than [`split`] and can say what is wrong.
struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut raw = Vec::with_capacity(24);
        while let Some(Name(name)) = map.next_key()? {
            raw.push((name, map.next_value()?));
        }
        Ok(raw)
    }
}

/// A field's name, borrowed where it has no escapes.
#[derive(serde::Deserialize)]
pub(super) struct Name<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

impl<'a> Fields<'a> {
    /// Splits a whole request body or frame.
    ///
    /// # Errors
    /// Anything but one JSON object in UTF-8.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let text =
            std::str::from_utf8(bytes).map_err(|error| ParseError::json(format_args!("invalid UTF-8: {error}")))?;
        match split::object(text) {
            Some(raw) => Ok(Self { prefix: String::new(), raw, input: None }),
            None => Self::explained(text),
        }
    }

    /// Splits a request whose `input` may begin with items that its reader knows: those are neither read nor checked again.
    ///
    /// `known` is given what follows the array's bracket, and says how much of it is known.
    ///
    /// # Errors
    /// Anything but one JSON object in UTF-8.
    pub fn parse_request(bytes: &'a [u8], known: impl FnOnce(&'a [u8]) -> Known) -> Result<Self, ParseError> {
        match split::request(bytes, known) {
            Some((raw, input)) => Ok(Self { prefix: String::new(), raw, input }),
            None => Self::parse(bytes),
        }
    }

    /// What `serde_json` takes or refuses, with its word for what is wrong.
    fn explained(text: &'a str) -> Result<Self, ParseError> {
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let raw = deserializer.deserialize_map(FieldsVisitor).map_err(ParseError::json)?;
        deserializer.end().map_err(ParseError::json)?;
        Ok(Self { prefix: String::new(), raw, input: None })
    }

    /// Splits the object at `path`.
    ///
    /// # Errors
    /// `raw` is not an object.
    pub fn nested(path: &str, raw: &'a RawValue) -> Result<Self, ParseError> {
        let fields = match split::object(raw.get()) {
            Some(fields) => fields,
            None => {
                let mut deserializer = serde_json::Deserializer::from_str(raw.get());
                deserializer.deserialize_map(FieldsVisitor).map_err(|error| match raw.get().starts_with('{') {
                    true => ParseError::value(path, format!("Invalid '{path}': {error}.")),
                    false => ParseError::wrong_type(path, "an object", raw.get()),
                })?
            }
        };
        let mut prefix = String::with_capacity(path.len() + 1);
        prefix.push_str(path);
        prefix.push('.');
        Ok(Self { prefix, raw: fields, input: None })
    }

    /// Splits the array at `path` whose elements are objects, all in one pass. None where some element is none: those are
    /// split, and refused, one by one.
    pub(super) fn objects(path: &str, raw: &'a RawValue) -> Option<Vec<(&'a RawValue, Self)>> {
        let objects = split::objects(raw.get())?.into_iter().enumerate();
        let fields =
            |(index, (raw, members))| (raw, Self { prefix: format!("{path}[{index}]."), raw: members, input: None });
        Some(objects.map(fields).collect())
    }

    /// The items of `input`, where it is an array that [`Self::parse_request`] has split.
    #[must_use]
    pub fn input(&self) -> Option<&Items<'a>> {
        self.input.as_ref()
    }

    /// The parameter's full name.
    #[must_use]
    pub fn path(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// A field that is there and not `null`.
    #[must_use]
    pub fn raw(&self, name: &str) -> Option<&'a RawValue> {
        self.raw.iter().rev().find(|(field, _)| field == name).map(|(_, raw)| *raw).filter(|raw| raw.get() != "null")
    }

    /// All fields in the order of the request.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &'a RawValue)> {
        self.raw.iter().map(|(name, raw)| (&**name, *raw))
    }

    /// # Errors
    /// The field is there and no string.
    pub fn string(&self, name: &str) -> Result<Option<Cow<'a, str>>, ParseError> {
        let Some(raw) = self.raw(name) else { return Ok(None) };
        if let Some(text) = crate::json::raw_string(raw).filter(|text| !text.contains('\\')) {
            return Ok(Some(Cow::Borrowed(text)));
        }
        match serde_json::from_str::<Name<'a>>(raw.get()) {
            Ok(Name(text)) => Ok(Some(text)),
            Err(_) => Err(ParseError::wrong_type(&self.path(name), "a string", raw.get())),
        }
    }

    /// A string, still escaped.
    ///
    /// # Errors
    /// The field is there and no string.
    pub fn raw_string(&self, name: &str) -> Result<Option<&'a str>, ParseError> {
        let Some(raw) = self.raw(name) else { return Ok(None) };
        match crate::json::raw_string(raw) {
            Some(text) => Ok(Some(text)),
            None => Err(ParseError::wrong_type(&self.path(name), "a string", raw.get())),
        }
    }

    /// # Errors
    /// The field is missing or no string.
    pub fn required_string(&self, name: &str) -> Result<Cow<'a, str>, ParseError> {
        self.string(name)?.ok_or_else(|| ParseError::missing(&self.path(name)))
    }

    /// # Errors
    /// The field is missing or no string.
    pub fn required_raw_string(&self, name: &str) -> Result<&'a str, ParseError> {
        self.raw_string(name)?.ok_or_else(|| ParseError::missing(&self.path(name)))
    }

    /// # Errors
    /// The field is there and no boolean.
    pub fn boolean(&self, name: &str) -> Result<Option<bool>, ParseError> {
        match self.raw(name) {
            None => Ok(None),
            Some(raw) if raw.get() == "true" => Ok(Some(true)),
            Some(raw) if raw.get() == "false" => Ok(Some(false)),
            Some(raw) => Err(ParseError::wrong_type(&self.path(name), "a boolean", raw.get())),
        }
    }

    /// A number within `low..=high`, as it stands in the request.
    ///
    /// # Errors
    /// The field is there and no number, or outside the range.
    pub fn number(&self, name: &str, low: f64, high: f64) -> Result<Option<&'a RawValue>, ParseError> {
        let Some(raw) = self.raw(name) else { return Ok(None) };
        let Ok(number) = serde_json::from_str::<f64>(raw.get()) else {
            return Err(ParseError::wrong_type(&self.path(name), "a number", raw.get()));
        };
        if (low..=high).contains(&number) {
            return Ok(Some(raw));
        }
        let message = format!(
            "Invalid '{}': expected a value from {low} to {high}, but got {} instead.",
            self.path(name),
            raw.get()
        );
        Err(ParseError::value(&self.path(name), message))
    }

    /// # Errors
    /// The field is there and no integer within `low..=high`.
    pub fn integer(&self, name: &str, low: u64, high: u64) -> Result<Option<u64>, ParseError> {
        let Some(raw) = self.raw(name) else { return Ok(None) };
        let path = self.path(name);
        match serde_json::from_str::<serde_json::Number>(raw.get()) {
            Err(_) => Err(ParseError::wrong_type(&path, "an integer", raw.get())),
            Ok(number) => match number.as_u64() {
                Some(number) if (low..=high).contains(&number) => Ok(Some(number)),
                Some(_) => {
                    let message = format!(
                        "Invalid '{path}': expected an integer from {low} to {high}, but got {} instead.",
                        raw.get()
                    );
                    Err(ParseError::value(&path, message))
                }
                None if number.is_i64() => {
                    let message = format!(
                        "Invalid '{path}': integer below minimum value. Expected a value >= {low}, but got {number} instead."
                    );
                    Err(ParseError::value(&path, message))
                }
                None => Err(ParseError::wrong_type(&path, "an integer", raw.get())),
            },
        }
    }

    /// The elements of an array, unparsed.
    ///
    /// # Errors
    /// The field is there and no array.
    pub fn array(&self, name: &str) -> Result<Option<Vec<&'a RawValue>>, ParseError> {
        let Some(raw) = self.raw(name) else { return Ok(None) };
        elements(&self.path(name), raw).map(Some)
    }

    /// # Errors
    /// The field is there and no object.
    pub fn object(&self, name: &str) -> Result<Option<Fields<'a>>, ParseError> {
        let Some(raw) = self.raw(name) else { return Ok(None) };
        Fields::nested(&self.path(name), raw).map(Some)
    }

    /// The place of a string in `choices`.
    ///
    /// # Errors
    /// The field is there and none of `choices`.
    pub fn choice(&self, name: &str, choices: &[&'static str]) -> Result<Option<&'static str>, ParseError> {
        let Some(text) = self.string(name)? else { return Ok(None) };
        if let Some(&choice) = choices.iter().find(|&&choice| choice == text) {
            return Ok(Some(choice));
        }
        let supported = choices.iter().map(|choice| format!("'{choice}'")).collect::<Vec<_>>().join(", ");
        let path = self.path(name);
        let message = format!("Invalid value: '{text}'. Supported values for '{path}' are: {supported}.");
        Err(ParseError::value(&path, message))
    }
}

/// The elements of the array at `path`, unparsed.
///
/// # Errors
/// `raw` is no array.
pub fn elements<'a>(path: &str, raw: &'a RawValue) -> Result<Vec<&'a RawValue>, ParseError> {
    match split::array(raw.get()) {
        Some(elements) => Ok(elements),
        None => serde_json::from_str(raw.get()).map_err(|_| ParseError::wrong_type(path, "an array", raw.get())),
    }
}
