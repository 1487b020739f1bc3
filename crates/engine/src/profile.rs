//! How a model is to work at one tier: what is added to its instructions, and how hard it thinks where the request does not say. Both are the
//! same for all its turns there, so that the prefix of a conversation stays what its engine has in its cache. Knows no config and no turn.

use crate::fleet::Tier;
use crate::passing;
use crate::router::Effort;
use crate::tokens::Tally;
use bytes::Bytes;
use flashlane_wire::chat::{Field, append_instructions};
use flashlane_wire::json;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Those of a model.
#[derive(Debug, Clone, Default)]
pub struct Profiles {
    pub latency: Profile,
    pub throughput: Profile,
}

#[derive(Debug, Clone, Default)]
pub struct Profile {
    pub appended: Option<Arc<Appended>>,
    /// Where the request says none.
    pub effort: Option<Effort>,
}

/// A text at the end of the instructions.
#[derive(Debug)]
pub struct Appended {
    /// Escaped, without its quotes.
    raw: Box<str>,
    /// As a message, for who counts it.
    pub message: Bytes,
    /// The tokens of the message, once they were counted.
    pub tally: Tally,
}

impl Appended {
    /// None: the text is empty.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let mut raw = Vec::with_capacity(text.len() + 16);
        json::push_escaped(&mut raw, text);
        let raw = String::from_utf8(raw).ok().filter(|raw| !raw.is_empty())?;
        let message = Bytes::from(flashlane_wire::chat::instructions(&raw));
        Some(Self { raw: raw.into(), message, tally: Tally::default() })
    }
}

impl Profiles {
    #[must_use]
    pub fn at(&self, tier: Tier) -> &Profile {
        match tier {
            Tier::Latency => &self.latency,
            Tier::Throughput => &self.throughput,
        }
    }

    /// The longest text that a tier may add: as long as it is not known which one serves, there has to be room for it.
    #[must_use]
    pub fn longest(&self) -> Option<&Arc<Appended>> {
        let texts = [&self.latency, &self.throughput].into_iter().filter_map(|profile| profile.appended.as_ref());
        texts.max_by_key(|appended| appended.message.len())
    }
}

impl Profile {
    /// Adds it to what a chat model is asked.
    pub fn add_to_chat(&self, fields: &mut Vec<Field>, messages: &mut Vec<Bytes>) {
        if let Some(effort) = self.effort
            && !fields.iter().any(|field| field.name == "reasoning_effort")
        {
            fields.push(Field::string("reasoning_effort", effort.name()));
        }
        if let Some(appended) = &self.appended {
            append_instructions(messages, &appended.raw);
        }
    }

    /// Adds it to what a server of the Responses API is asked.
    pub fn add_to_responses(&self, fields: &mut Vec<Field>) {
        if let Some(effort) = self.effort {
            add_effort(fields, effort);
        }
        let Some(appended) = &self.appended else { return };
        let own = fields.iter_mut().find(|field| field.name == "instructions");
        let text = own.as_ref().and_then(|field| std::str::from_utf8(&field.value).ok()).and_then(|text| {
            let inside = text.strip_prefix('"')?.strip_suffix('"')?;
            (!inside.is_empty()).then(|| format!("\"{inside}\\n\\n{}\"", appended.raw))
        });
        let text = text.unwrap_or_else(|| format!("\"{}\"", appended.raw));
        match own {
            Some(own) => own.value = text.into(),
            None => fields.push(Field::new("instructions", text)),
        }
    }
}

/// Unless `reasoning` says one.
fn add_effort(fields: &mut Vec<Field>, effort: Effort) {
    let name = format!("\"{}\"", effort.name());
    let Some(own) = fields.iter_mut().find(|field| field.name == "reasoning") else {
        fields.push(Field::new("reasoning", format!("{{\"effort\":{name}}}")));
        passing::include_sealed(fields);
        return;
    };
    let said = serde_json::from_slice::<BTreeMap<Cow<'_, str>, &RawValue>>(&own.value);
    let Ok(mut said) = said else { return };
    if said.get("effort").is_some_and(|effort| effort.get() != "null") {
        return;
    }
    let Ok(effort) = json::raw_value(&name) else { return };
    said.insert(Cow::Borrowed("effort"), effort);
    if let Ok(value) = serde_json::to_vec(&said) {
        own.value = value.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile() -> Profile {
        let appended = Appended::new("Small edits.\nNo \"tests\".").map(Arc::new);
        Profile { appended, effort: Some(Effort::Low) }
    }

    fn told(fields: &[Field]) -> Vec<String> {
        fields.iter().map(|field| format!("{}={}", field.name, String::from_utf8_lossy(&field.value))).collect()
    }

    #[test]
    fn a_chat_model_is_told_it_behind_its_instructions() {
        let system = Bytes::from_static(br#"{"role":"system","content":"be brief"}"#);
        let (mut fields, mut messages) = (vec![Field::new("temperature", "0")], vec![system]);
        profile().add_to_chat(&mut fields, &mut messages);
        assert_eq!(told(&fields), ["temperature=0", "reasoning_effort=\"low\""]);
        let expected = r#"{"role":"system","content":"be brief\n\nSmall edits.\nNo \"tests\"."}"#;
        assert_eq!(messages, [expected]);
        let mut said = vec![Field::string("reasoning_effort", "high")];
        profile().add_to_chat(&mut said, &mut Vec::new());
        assert_eq!(told(&said), ["reasoning_effort=\"high\""]);
    }

    type Fields = &'static [(&'static str, &'static str)];

    #[test]
    fn a_server_of_the_responses_api_is_told_it_in_its_own_fields() {
        let cases: [(Fields, &[&str]); 3] = [
            (
                &[],
                &[
                    r#"reasoning={"effort":"low"}"#,
                    r#"include=["reasoning.encrypted_content"]"#,
                    r#"instructions="Small edits.\nNo \"tests\".""#,
                ],
            ),
            (
                &[("reasoning", r#"{"summary":"auto","effort":null}"#), ("instructions", r#""a\"b""#)],
                &[
                    r#"reasoning={"effort":"low","summary":"auto"}"#,
                    r#"instructions="a\"b\n\nSmall edits.\nNo \"tests\".""#,
                ],
            ),
            (
                &[("instructions", "\"\""), ("reasoning", r#"{"effort":"high"}"#)],
                &[r#"instructions="Small edits.\nNo \"tests\".""#, r#"reasoning={"effort":"high"}"#],
            ),
        ];
        for (before, after) in cases {
            let mut fields: Vec<_> = before.iter().map(|(name, value)| Field::new(name, (*value).to_owned())).collect();
            profile().add_to_responses(&mut fields);
            assert_eq!(told(&fields), after);
        }
    }

    #[test]
    fn nothing_is_added_where_nothing_is_set() {
        assert!(Appended::new("").is_none());
        let message = Bytes::from_static(b"{\"role\":\"user\",\"content\":\"a\"}");
        let (mut fields, mut messages) = (Vec::new(), vec![message.clone()]);
        Profile::default().add_to_chat(&mut fields, &mut messages);
        Profile::default().add_to_responses(&mut fields);
        assert!(fields.is_empty() && messages == [message]);
    }
}
