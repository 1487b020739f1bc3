//! `flashlane`: what a request may ask of this server alone: work for children of its response. PROTOCOL clauses 14 and 15.
//!
//! Unlike OpenAI's own objects it is closed: what is not known in it is refused, so that no wish is passed over in silence.

use super::error::ParseError;
use super::fields::Fields;
use super::request::{CreateRequest, EFFORTS, Echo, Input, OUTPUT_TOKENS_MAX};
use super::tool::ToolChoice;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeSet;

/// The children that a request asks for; not both are empty.
#[derive(Debug, Default)]
pub struct Children<'a> {
    /// Run in the background, each on what the request goes on from and itself says.
    pub delegate: Vec<Child<'a>>,
    /// Run in the place of the request's own answer.
    pub fan_out: Vec<Child<'a>>,
}

/// One piece of work.
#[derive(Debug)]
pub struct Child<'a> {
    /// 1 to 64 letters, digits, `_`, `.` and `-`; no other child of the request has it.
    pub name: Cow<'a, str>,
    /// Where it stands in the request: `flashlane.delegate[0]`.
    pub path: String,
    pub input: Input<'a>,
    pub model: Option<Cow<'a, str>>,
    pub tier: Option<ChildTier>,
    /// A raw string.
    pub instructions: Option<&'a str>,
    /// `reasoning.effort`.
    pub effort: Option<&'static str>,
    /// `reasoning` as it was sent.
    pub reasoning: Option<&'a RawValue>,
    pub max_output_tokens: Option<u64>,
}

/// The tier that alone may serve a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChildTier {
    Latency,
    Throughput,
}

const NAME_BYTES_MAX: usize = 64;
/// Children of a request, of each kind: a config may allow no more, and no list is read that is longer.
pub const CHILDREN_MAX: usize = 255;
const LISTS: [&str; 2] = ["delegate", "fan_out"];
const FIELDS: [&str; 7] = ["name", "input", "model", "tier", "instructions", "reasoning", "max_output_tokens"];

impl<'a> Children<'a> {
    /// The request's `flashlane`; None where it asks for no child.
    pub(super) fn parse(fields: &Fields<'a>) -> Result<Option<Box<Self>>, ParseError> {
        let Some(asked) = fields.object("flashlane")? else { return Ok(None) };
        refuse_unknown(&asked, &LISTS)?;
        let mut names = BTreeSet::new();
        let [delegate, fan_out] = LISTS.map(|list| read(&asked, list, &mut names));
        let children = Self { delegate: delegate?, fan_out: fan_out? };
        Ok((!children.is_empty()).then(|| Box::new(children)))
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Of both kinds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.delegate.len() + self.fan_out.len()
    }
}

fn read<'a>(
    asked: &Fields<'a>,
    list: &'static str,
    names: &mut BTreeSet<Cow<'a, str>>,
) -> Result<Vec<Child<'a>>, ParseError> {
    let children = asked.array(list)?.unwrap_or_default();
    if children.len() > CHILDREN_MAX {
        let (path, asked) = (asked.path(list), children.len());
        let message = format!("Invalid '{path}': it has {asked} children, and a request has at most {CHILDREN_MAX}.");
        return Err(ParseError::value(&path, message));
    }
    let child = |(index, raw)| {
        let path = format!("{}[{index}]", asked.path(list));
        let child = Child::parse(&Fields::nested(&path, raw)?, path)?;
        if !names.insert(child.name.clone()) {
            let path = format!("{}.name", child.path);
            let message = format!("Invalid '{path}': another child of this request is named '{}'.", child.name);
            return Err(ParseError::value(&path, message));
        }
        Ok(child)
    };
    children.into_iter().enumerate().map(child).collect()
}

impl<'a> Child<'a> {
    fn parse(fields: &Fields<'a>, path: String) -> Result<Self, ParseError> {
        refuse_unknown(fields, &FIELDS)?;
        let reasoning = fields.object("reasoning")?;
        if let Some(reasoning) = &reasoning {
            refuse_unknown(reasoning, &["effort"])?;
        }
        Ok(Self {
            name: name(fields)?,
            input: Input::parse(fields, false)?,
            model: fields.string("model")?,
            tier: fields.choice("tier", &["latency", "throughput"])?.map(|tier| match tier {
                "latency" => ChildTier::Latency,
                _ => ChildTier::Throughput,
            }),
            instructions: fields.raw_string("instructions")?,
            effort: match &reasoning {
                Some(reasoning) => reasoning.choice("effort", &EFFORTS)?,
                None => None,
            },
            reasoning: fields.raw("reasoning"),
            max_output_tokens: fields.integer("max_output_tokens", 1, OUTPUT_TOKENS_MAX)?,
            path,
        })
    }
}

impl<'a> CreateRequest<'a> {
    /// The request as it is for one of its children: with the child's own fields in the place of its own. Nothing of a child is stored, and it
    /// calls no tool, since nobody would run it; the tools stay in what the model reads, as an engine has them in its cache.
    #[must_use]
    pub fn of_child(&self, child: &Child<'a>) -> Self {
        Self {
            model: child.model.clone().unwrap_or_else(|| self.model.clone()),
            input: child.input.clone(),
            known_items: 0,
            instructions: child.instructions.or(self.instructions),
            previous_response_id: self.previous_response_id.clone(),
            conversation: None,
            tools: self.tools.clone(),
            tool_choice: ToolChoice::None,
            stream: self.stream,
            store: false,
            background: false,
            warm_up: false,
            stream_id: None,
            max_output_tokens: child.max_output_tokens.or(self.max_output_tokens),
            parallel_tool_calls: self.parallel_tool_calls,
            effort: child.effort.map(Cow::Borrowed).or_else(|| self.effort.clone()),
            reasoning: child.reasoning.or(self.reasoning),
            text_format: self.text_format,
            verbosity: self.verbosity.clone(),
            service_tier: self.service_tier.clone(),
            cache_key: self.cache_key.clone(),
            client_metadata: self.client_metadata,
            compaction: None,
            includes_reasoning: self.includes_reasoning,
            include: self.include,
            children: None,
            echo: Echo { tool_choice: serde_json::from_str("\"none\"").ok(), ..self.echo },
        }
    }
}

fn name<'a>(fields: &Fields<'a>) -> Result<Cow<'a, str>, ParseError> {
    let name = fields.required_string("name")?;
    let is_known = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    if (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_known) {
        return Ok(name);
    }
    let path = fields.path("name");
    let message =
        format!("Invalid '{path}': a child's name is 1 to {NAME_BYTES_MAX} of the characters A-Z a-z 0-9 _ . -");
    Err(ParseError::value(&path, message))
}

fn refuse_unknown(fields: &Fields<'_>, known: &[&str]) -> Result<(), ParseError> {
    match fields.iter().find(|(name, _)| !known.contains(name)) {
        None => Ok(()),
        Some((name, _)) => {
            let path = fields.path(name);
            Err(ParseError::value(&path, format!("Unknown parameter: '{path}'.")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::request::CreateRequest;
    use super::*;

    fn asked(flashlane: &str) -> String {
        format!("{{\"model\":\"m\",\"input\":\"hi\",\"flashlane\":{flashlane}}}")
    }

    fn of(flashlane: &str) -> Result<(Vec<String>, Vec<String>), ParseError> {
        let body = asked(flashlane);
        let request = CreateRequest::parse(&Fields::parse(body.as_bytes())?)?;
        let children = request.children.unwrap_or_default();
        let names = |children: &[Child<'_>]| children.iter().map(|child| child.name.clone().into_owned()).collect();
        Ok((names(&children.delegate), names(&children.fan_out)))
    }

    #[test]
    fn children_of_both_kinds_are_read_in_order_with_all_that_they_may_say() {
        let flashlane = r#"{
            "delegate": [{"name": "tests", "input": "run \"them\"", "model": "big", "tier": "throughput",
                "instructions": "be brief", "reasoning": {"effort": "low"}, "max_output_tokens": 7},
                {"name": "\u0064ocs", "input": [{"role": "user", "content": "x"}], "model": null}],
            "fan_out": [{"name": "a.b-C_1", "input": "hi", "tier": "latency"}]}"#;
        let body = asked(flashlane);
        let fields = Fields::parse(body.as_bytes()).unwrap();
        let children = CreateRequest::parse(&fields).unwrap().children.unwrap();
        assert_eq!(children.len(), 3);
        let [tests, docs] = children.delegate.as_slice() else { panic!("{children:?}") };
        assert_eq!((&*tests.name, &*tests.path), ("tests", "flashlane.delegate[0]"));
        assert!(matches!(tests.input, Input::Text("run \\\"them\\\"")), "{tests:?}");
        assert_eq!((tests.model.as_deref(), tests.tier), (Some("big"), Some(ChildTier::Throughput)));
        assert_eq!(
            (tests.instructions, tests.effort, tests.max_output_tokens),
            (Some("be brief"), Some("low"), Some(7))
        );
        assert_eq!((&*docs.name, docs.model.as_deref(), docs.tier), ("docs", None, None));
        assert!(matches!(&docs.input, Input::Items(items) if items.len() == 1), "{docs:?}");
        let [lane] = children.fan_out.as_slice() else { panic!("{children:?}") };
        assert_eq!(
            (&*lane.name, &*lane.path, lane.tier),
            ("a.b-C_1", "flashlane.fan_out[0]", Some(ChildTier::Latency))
        );
    }

    #[test]
    fn who_asks_for_no_child_asks_for_nothing() {
        for nothing in ["null", "{}", "{\"delegate\":[]}", "{\"delegate\":[],\"fan_out\":null}"] {
            let body = asked(nothing);
            let request = CreateRequest::parse(&Fields::parse(body.as_bytes()).unwrap()).unwrap();
            assert!(request.children.is_none(), "{nothing}");
        }
    }

    #[test]
    fn a_childs_request_is_the_request_with_its_own_fields_in_it() {
        let body = r#"{"model":"m","input":"hi","store":true,"stream":true,"temperature":0,"instructions":"all","max_output_tokens":9,
            "reasoning":{"effort":"high"},"tools":[{"type":"function","name":"f"}],"tool_choice":"required","flashlane":{"fan_out":[
                {"name":"a","input":"x"},{"name":"b","input":"y","model":"n","instructions":"own","reasoning":{"effort":"low"},"max_output_tokens":3}]}}"#;
        let fields = Fields::parse(body.as_bytes()).unwrap();
        let request = CreateRequest::parse(&fields).unwrap();
        let of = |index: usize| request.of_child(&request.children.as_ref().unwrap().fan_out[index]);
        let (a, b) = (of(0), of(1));
        assert_eq!((&*a.model, a.instructions, a.max_output_tokens), ("m", Some("all"), Some(9)));
        assert_eq!((&*b.model, b.instructions, b.max_output_tokens), ("n", Some("own"), Some(3)));
        assert_eq!((a.effort.as_deref(), b.effort.as_deref()), (Some("high"), Some("low")));
        assert_eq!(a.reasoning.map(RawValue::get), Some("{\"effort\":\"high\"}"));
        assert_eq!(b.reasoning.map(RawValue::get), Some("{\"effort\":\"low\"}"));
        assert!(matches!((&a.input, &b.input), (Input::Text("x"), Input::Text("y"))));
        for child in [&a, &b] {
            assert!(!child.store && child.children.is_none() && child.tools.is_some());
            assert!(matches!(child.tool_choice, ToolChoice::None));
            assert_eq!(child.echo.tool_choice.map(RawValue::get), Some("\"none\""));
            assert_eq!(child.echo.temperature.map(RawValue::get), Some("0"));
        }
    }

    #[test]
    fn what_is_wrong_with_a_child_is_told_with_its_place() {
        let child = |fields: &str| format!("{{\"delegate\":[{{\"name\":\"a\",\"input\":\"x\"{fields}}}]}}");
        let named = |name: &str| format!("{{\"fan_out\":[{{\"name\":\"{name}\",\"input\":\"x\"}}]}}");
        let one = "{\"name\":\"a\",\"input\":\"x\"}";
        for (wrong, param) in [
            ("[]".to_owned(), "flashlane"),
            ("\"delegate\"".to_owned(), "flashlane"),
            ("{\"delegates\":[]}".to_owned(), "flashlane.delegates"),
            ("{\"delegate\":{}}".to_owned(), "flashlane.delegate"),
            ("{\"delegate\":[1]}".to_owned(), "flashlane.delegate[0]"),
            ("{\"delegate\":[{}]}".to_owned(), "flashlane.delegate[0].name"),
            ("{\"delegate\":[{\"name\":\"a\"}]}".to_owned(), "flashlane.delegate[0].input"),
            ("{\"delegate\":[{\"name\":\"a\",\"input\":1}]}".to_owned(), "flashlane.delegate[0].input"),
            (child(",\"tools\":[]"), "flashlane.delegate[0].tools"),
            (child(",\"tier\":\"fast\""), "flashlane.delegate[0].tier"),
            (child(",\"model\":1"), "flashlane.delegate[0].model"),
            (child(",\"reasoning\":{\"effort\":\"huge\"}"), "flashlane.delegate[0].reasoning.effort"),
            (child(",\"reasoning\":{\"summary\":\"auto\"}"), "flashlane.delegate[0].reasoning.summary"),
            (child(",\"max_output_tokens\":0"), "flashlane.delegate[0].max_output_tokens"),
            (named(""), "flashlane.fan_out[0].name"),
            (named("a b"), "flashlane.fan_out[0].name"),
            (named("\\u00e4"), "flashlane.fan_out[0].name"),
            (named(&"a".repeat(NAME_BYTES_MAX + 1)), "flashlane.fan_out[0].name"),
            (format!("{{\"delegate\":[{one},{one}]}}"), "flashlane.delegate[1].name"),
            (format!("{{\"delegate\":[{one}],\"fan_out\":[{one}]}}"), "flashlane.fan_out[0].name"),
        ] {
            let error = of(&wrong).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(param), "{wrong}: {error}");
        }
        assert!(of(&named(&"a".repeat(NAME_BYTES_MAX))).is_ok());
    }

    #[test]
    fn a_list_that_is_too_long_is_refused_before_what_is_in_it_is_read() {
        let children = |count: usize| {
            let children: Vec<_> = (0..count).map(|n| format!("{{\"name\":\"n{n}\",\"input\":\"x\"}}")).collect();
            format!("[{}]", children.join(","))
        };
        for list in LISTS {
            assert!(of(&format!("{{\"{list}\":{}}}", children(CHILDREN_MAX))).is_ok());
            assert!(of(&format!("{{\"{list}\":{}}}", children(CHILDREN_MAX + 1))).is_err());
            let nonsense = vec!["0"; CHILDREN_MAX + 1].join(",");
            let error = of(&format!("{{\"{list}\":[{nonsense}]}}")).unwrap_err();
            assert_eq!(error.param, Some(format!("flashlane.{list}")), "{error}");
        }
    }

    #[test]
    fn no_cut_and_no_changed_byte_of_it_is_read_amiss() {
        let flashlane = r#"{"delegate":[{"name":"a","input":[{"role":"user","content":"x"}],"reasoning":{"effort":"low"}}],"fan_out":[{"name":"b","input":"y","tier":"latency","max_output_tokens":3}]}"#;
        let body = asked(flashlane).into_bytes();
        for at in 0..body.len() {
            assert!(Fields::parse(body.get(..at).unwrap()).is_err(), "cut at {at}");
            for byte in [b'"', b'{', b']', b'0', b'\\', 0xff] {
                let mut changed = body.clone();
                *changed.get_mut(at).unwrap() = byte;
                // Whatever it says, it says it of a request that was read whole, or refuses it.
                if let Ok(fields) = Fields::parse(&changed) {
                    drop(CreateRequest::parse(&fields));
                }
            }
        }
    }
}
