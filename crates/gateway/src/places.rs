//! Where in a TOML text a field stands, so that an error can name line and field. Knows nothing of what the fields mean.

use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The fields of one text, as paths like `models[1].route`.
pub struct Places<'a> {
    text: &'a str,
    fields: Vec<Field>,
}

struct Field {
    path: String,
    /// The key's bytes, and the value's; a table's value is its header.
    key: Range<usize>,
    value: Range<usize>,
}

impl<'a> Places<'a> {
    /// A text that is no TOML has no fields, but still has lines.
    pub fn new(text: &'a str) -> Self {
        let mut fields = Vec::new();
        if let Ok(tree) = DeTable::parse(text) {
            add_table(tree.get_ref(), "", &mut fields);
        }
        Self { text, fields }
    }

    /// The line, from 1, in which byte `offset` stands.
    pub fn line(&self, offset: usize) -> usize {
        1 + self.text.bytes().take(offset).filter(|&byte| byte == b'\n').count()
    }

    /// The line of the field, or of the nearest table around it that is written down; `None` where there is none.
    pub fn line_of(&self, path: &str) -> Option<usize> {
        let mut path = path;
        loop {
            if let Some(field) = self.fields.iter().find(|field| field.path == path) {
                return Some(self.line(field.key.start));
            }
            path = path.get(..path.rfind(['.', '['])?)?;
        }
    }

    /// The innermost field at byte `offset`.
    pub fn path_at(&self, offset: usize) -> Option<&str> {
        let holds = |range: &Range<usize>| range.contains(&offset);
        let at = self.fields.iter().filter(|field| holds(&field.key) || holds(&field.value));
        at.max_by_key(|field| field.path.len()).map(|field| field.path.as_str())
    }
}

fn add_table(table: &DeTable<'_>, parent: &str, fields: &mut Vec<Field>) {
    for (key, value) in table {
        let path = if parent.is_empty() { key.get_ref().to_string() } else { format!("{parent}.{}", key.get_ref()) };
        add_value(path, key.span(), value, fields);
    }
}

fn add_value(path: String, key: Range<usize>, value: &Spanned<DeValue<'_>>, fields: &mut Vec<Field>) {
    match value.get_ref() {
        DeValue::Table(table) => add_table(table, &path, fields),
        DeValue::Array(array) => {
            for (i, value) in array.iter().enumerate() {
                add_value(format!("{path}[{i}]"), value.span(), value, fields);
            }
        }
        DeValue::String(_) | DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) => {}
    }
    fields.push(Field { path, key, value: value.span() });
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"[server]
listen = "127.0.0.1:1"

[[models]]
name = "a"

[[models]]
name = "b"
modalities = [
  "text",
  "smell",
]
"#;

    #[test]
    fn a_fields_line_is_that_of_its_key_and_a_missing_field_has_its_tables() {
        let places = Places::new(TEXT);
        assert_eq!(places.line_of("server.listen"), Some(2));
        assert_eq!(places.line_of("models[1].name"), Some(8));
        assert_eq!(places.line_of("models[1].modalities[1]"), Some(11));
        assert_eq!(places.line_of("models[1].route"), Some(7));
        assert_eq!(places.line_of("server.colour.of"), Some(1));
        assert_eq!(places.line_of("endpoints"), None);
    }

    #[test]
    fn the_innermost_field_at_a_place_is_found() {
        let places = Places::new(TEXT);
        let at = |needle: &str| places.path_at(TEXT.find(needle).unwrap());
        assert_eq!(at("smell"), Some("models[1].modalities[1]"));
        assert_eq!(at("listen"), Some("server.listen"));
        assert_eq!(at("\"b\""), Some("models[1].name"));
    }

    #[test]
    fn a_text_that_is_no_toml_still_has_lines() {
        let places = Places::new("a = 1\nb = \n");
        assert_eq!((places.line(8), places.path_at(8), places.line_of("a")), (2, None, None));
    }
}
