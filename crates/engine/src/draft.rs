//! A request made ready: checked, rendered, and free of the bytes that it came in. What depends on the chain waits for the
//! turn's start.

use crate::assembler::Frame;
use crate::chain::{Piece, Rendered, render_again};
use crate::children::Kin;
use crate::compaction::Wanted;
use crate::error::{ErrorKind, Refusal};
use crate::fleet::{Modality, Model};
use crate::passing;
use crate::profile::Appended;
use crate::recognition::{self, Fresh, History};
use crate::router::Traits;
use crate::seal::Opener;
use crate::tools::{Choice, Tools};
use crate::trace::Parent;
use bytes::Bytes;
use flashlane_wire::chat::{ChatRequest, Field, Renderer, ToolSet, instructions};
use flashlane_wire::responses::{Content, CreateRequest, Input, Item, ParseError, Role, TextFormat, Threshold};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A request that can become a turn.
#[derive(Debug)]
pub struct Draft {
    pub model: Arc<str>,
    pub contract: Contract,
    /// The upstream request's fields, but for the tools.
    pub fields: Vec<Field>,
    pub cache_key: Option<Arc<str>>,
    /// The longest text that its model's profiles may add to it; which of them does, its place decides.
    pub appended: Option<Arc<Appended>>,
    /// What routing is told, but for what depends on the chain.
    pub traits: Traits,
    /// What its request belongs to, where turns are traced and it says so itself.
    pub trace: Option<Box<Parent>>,
    /// The children that run in its place, where it fans out.
    pub branches: Vec<Branch>,
    /// The children that it delegates to, or whose child it is.
    pub kin: Kin,
}

/// One input of a request that fans out.
#[derive(Debug)]
pub struct Branch {
    pub name: Arc<str>,
    /// Without what it goes on from, which is its parent's whole context.
    pub draft: Draft,
}

#[derive(Debug)]
pub enum Contract {
    Responses(Box<ResponsesDraft>),
    Chat(ChatDraft),
}

#[derive(Debug, Clone)]
pub struct ResponsesDraft {
    pub frame: Frame,
    pub previous: Option<String>,
    /// The conversation that it is made in.
    pub conversation: Option<String>,
    /// A whole system message.
    pub instructions: Option<Bytes>,
    /// The first items of the input, or all of them, where they are recognised.
    pub history: Option<Arc<History>>,
    /// The others.
    pub input: Arc<Piece>,
    /// The ids of the calls whose outputs the input brings, but for those whose calls it brings as well.
    pub outputs: Vec<Arc<str>>,
    /// Where `input` holds references, and whose; until the turn starts.
    pub references: Vec<(usize, Arc<str>)>,
    /// The request's own tools.
    pub tools: Arc<Tools>,
    /// Tools that its items added to the chain.
    pub added_tools: Option<ToolSet>,
    pub choice: Choice,
    pub parallel_tool_calls: Option<bool>,
    pub warm_up: bool,
    /// Nothing is made: only the input's tokens are asked for.
    pub count_only: bool,
    /// `truncation: "auto"`: what is too long for the model is cut at its front.
    pub truncates: bool,
    pub store: bool,
    /// Its reasoning is to be sealed for the client.
    pub includes_reasoning: bool,
    pub compaction: Wanted,
    pub background: Option<Background>,
    /// The request's own fields, where an endpoint that speaks the Responses API may be asked.
    pub passing: Option<Arc<Vec<Field>>>,
}

/// That a request runs in the background.
#[derive(Debug, Clone)]
pub struct Background {
    /// As it came.
    pub request: Bytes,
    /// Its events can be read, while it runs and after.
    pub is_streamed: bool,
}

/// References in one input: each is looked for in the store.
const REFERENCES_MAX: usize = 1000;

impl ResponsesDraft {
    /// Puts items in the places of the references to them. A reference to what is not among them stands for an item of the
    /// chain, which the model is given anyway.
    ///
    /// # Errors
    /// More than `bytes_max` bytes, since an item may be referred to many times; items that the model does not take.
    pub fn resolve(
        &mut self,
        found: &BTreeMap<Arc<str>, Bytes>,
        bytes_max: usize,
        model: Option<&Model>,
        opener: Opener<'_>,
    ) -> Result<(), Refusal> {
        let references = std::mem::take(&mut self.references);
        let mut items: Vec<Option<&Bytes>> = self.input.items.iter().map(Some).collect();
        for (place, id) in &references {
            if let Some(item) = items.get_mut(*place) {
                *item = found.get(id);
            }
        }
        let bytes = items.iter().flatten().map(|item| item.len()).sum();
        if bytes > bytes_max {
            return Err(chain_too_long(bytes, bytes_max));
        }
        let rendered = render_again(items.into_iter().flatten(), opener)?;
        if let Some(model) = model {
            refuse_modalities(&rendered, model)?;
        }
        let of_history = self.history.iter().flat_map(|history| &history.outputs);
        self.outputs = of_history.cloned().chain(rendered.outputs).collect();
        self.input = Arc::new(rendered.piece);
        self.added_tools = rendered.tools;
        Ok(())
    }

    /// The same request, going on from `previous` with nothing new.
    #[must_use]
    pub fn successor(&self, previous: &str) -> Self {
        Self {
            frame: self.frame.going_on_from(previous),
            previous: Some(previous.to_owned()),
            history: None,
            input: Arc::default(),
            outputs: Vec::new(),
            references: Vec::new(),
            added_tools: None,
            warm_up: false,
            compaction: Wanted::Never,
            background: None,
            ..self.clone()
        }
    }
}

#[derive(Debug)]
pub struct ChatDraft {
    pub messages: Bytes,
    pub include_usage: bool,
}

impl Draft {
    /// What this request holds while it waits, in bytes.
    #[must_use]
    pub fn weight(&self) -> usize {
        let fields: usize = self.fields.iter().map(|field| field.value.len()).sum();
        let branches: usize = self.branches.iter().map(|branch| branch.draft.weight()).sum();
        let children: usize = match &self.kin {
            Kin::Parent(children) => children.iter().map(|child| child.draft.weight()).sum(),
            Kin::None | Kin::Child { .. } => 0,
        };
        fields
            + branches
            + children
            + match &self.contract {
                Contract::Responses(responses) => {
                    let history = responses.history.as_ref().map_or(0, |history| history.chain.weight());
                    let passing = responses.passing.iter().flat_map(|fields| fields.iter());
                    let passing: usize = passing.map(|field| field.value.len()).sum();
                    let instructions = responses.instructions.as_ref().map_or(0, Bytes::len);
                    history + responses.input.weight() + responses.frame.bytes() + instructions + passing
                }
                Contract::Chat(chat) => chat.messages.len(),
            }
    }

    /// The hosted tools that this request offers and that are not forwarded.
    pub fn hosted_tools(&self) -> impl Iterator<Item = &'static str> {
        let sets = match &self.contract {
            Contract::Responses(responses) => {
                let known = responses.history.as_ref().and_then(|history| history.chain.tools());
                let known = known.map(|tools| &tools.set);
                [Some(&responses.tools.set), known, responses.added_tools.as_ref()]
            }
            Contract::Chat(_) => [None; 3],
        };
        sets.into_iter().flatten().flat_map(|set| set.hosted().iter().copied())
    }

    /// Makes a Responses request ready. `tools` are its tools, already read; `read` reads its items.
    ///
    /// # Errors
    /// An item that is wrong, or content that the model does not take.
    pub fn responses(
        request: &CreateRequest<'_>,
        tools: Arc<Tools>,
        model: &Model,
        read: impl FnOnce(&Fresh<'_>) -> Result<recognition::Input, ParseError>,
    ) -> Result<Self, Refusal> {
        let recognition::Input { history, rendered } = match &request.input {
            Input::Text(raw) => recognition::Input { history: None, rendered: text_input(raw) },
            Input::Items(items) => {
                let is_whole = request.previous_response_id.is_none();
                read(&Fresh { items, known_items: request.known_items, is_whole })?
            }
        };
        refuse_modalities(&rendered, model)?;
        if rendered.references.len() > REFERENCES_MAX {
            let message = format!("Invalid 'input': it has more than {REFERENCES_MAX} references to items.");
            return Err(Refusal::new(ErrorKind::InvalidValue, message).with_param("input"));
        }
        let draft = ResponsesDraft {
            frame: Frame::new(request),
            previous: request.previous_response_id.as_deref().map(str::to_owned),
            conversation: request.conversation.as_deref().map(str::to_owned),
            instructions: request.instructions.map(|raw| Bytes::from(instructions(raw))),
            history,
            input: Arc::new(rendered.piece),
            outputs: rendered.outputs,
            references: rendered.references,
            tools,
            added_tools: rendered.tools,
            choice: Choice::from(&request.tool_choice),
            parallel_tool_calls: request.parallel_tool_calls,
            warm_up: request.warm_up,
            count_only: false,
            truncates: request.echo.truncation.is_some_and(|raw| raw.get() == "\"auto\""),
            store: request.store,
            includes_reasoning: request.includes_reasoning,
            compaction: compaction(request, rendered.ends_in_trigger, model)?,
            background: None,
            passing: None,
        };
        Ok(Self {
            model: Arc::clone(&model.name),
            contract: Contract::Responses(Box::new(draft)),
            fields: settings(request),
            cache_key: request.cache_key.as_deref().map(Arc::from),
            appended: model.profiles.longest().cloned(),
            traits: Traits::default(),
            trace: None,
            branches: Vec::new(),
            kin: Kin::None,
        })
    }

    /// Keeps the request's own fields as well.
    #[must_use]
    pub fn passing(mut self, request: &CreateRequest<'_>) -> Self {
        if let Contract::Responses(responses) = &mut self.contract {
            responses.passing = Some(Arc::new(passing::fields(request)));
        }
        self
    }

    /// The response that it goes on from.
    #[must_use]
    pub fn previous(&self) -> Option<&str> {
        match &self.contract {
            Contract::Responses(responses) => responses.previous.as_deref(),
            Contract::Chat(_) => None,
        }
    }

    #[must_use]
    pub fn truncates(&self) -> bool {
        match &self.contract {
            Contract::Responses(responses) => responses.truncates,
            Contract::Chat(_) => false,
        }
    }

    #[must_use]
    pub fn background(&self) -> Option<&Background> {
        match &self.contract {
            Contract::Responses(responses) => responses.background.as_ref(),
            Contract::Chat(_) => None,
        }
    }

    /// The request is to run in the background.
    #[must_use]
    pub fn in_background(mut self, background: Background) -> Self {
        if let Contract::Responses(responses) = &mut self.contract {
            responses.background = Some(background);
        }
        self
    }

    /// Makes a chat request ready.
    #[must_use]
    pub fn chat(request: ChatRequest<'_>, model: &Model) -> Self {
        let messages = Bytes::copy_from_slice(request.messages.as_bytes());
        Self {
            model: Arc::clone(&model.name),
            contract: Contract::Chat(ChatDraft { messages, include_usage: request.include_usage }),
            fields: request.fields,
            cache_key: request.cache_key.as_deref().map(Arc::from),
            appended: model.profiles.longest().cloned(),
            traits: Traits::default(),
            trace: None,
            branches: Vec::new(),
            kin: Kin::None,
        }
    }
}

/// What a conversation of more bytes than are kept is refused by.
#[must_use]
pub fn chain_too_long(bytes: usize, bytes_max: usize) -> Refusal {
    let message = format!("The conversation has {bytes} bytes, more than the {bytes_max} that this server keeps.");
    Refusal::new(ErrorKind::ContextLengthExceeded, message).with_param("input")
}

/// `input` as a bare string is one user message.
#[must_use]
pub fn text_input(raw: &str) -> Rendered {
    let item = ["{\"type\":\"message\",\"role\":\"user\",\"content\":\"", raw, "\"}"].concat();
    let mut renderer = Renderer::default();
    renderer.push(&Item::Message { role: Role::User, content: Content::Text(raw) });
    let piece = Piece { messages: renderer.finish().into(), items: Arc::new(vec![item.into()]), ..Piece::default() };
    Rendered { piece, ..Rendered::default() }
}

/// The model's context that is full before it is compacted, where the request says no number: a quarter is left for the answer.
const FULL_OF_FOUR: u64 = 3;

fn compaction(request: &CreateRequest<'_>, has_trigger: bool, model: &Model) -> Result<Wanted, Refusal> {
    if has_trigger && request.warm_up {
        let message = "A warm-up makes nothing: 'compaction_trigger' needs a request that generates.";
        return Err(Refusal::new(ErrorKind::InvalidValue, message).with_param("input"));
    }
    if has_trigger {
        return Ok(Wanted::Trigger);
    }
    // A warm-up has no answer that could be made room for.
    Ok(match request.compaction.filter(|_| !request.warm_up) {
        Some(Threshold::Tokens(tokens)) => Wanted::Above(tokens),
        Some(Threshold::Default) => Wanted::Above(u64::from(model.context_tokens_max) * FULL_OF_FOUR / 4),
        None => Wanted::Never,
    })
}

pub fn refuse_modalities(rendered: &Rendered, model: &Model) -> Result<(), Refusal> {
    let needs = [(&rendered.media.image, Modality::Image), (&rendered.media.file, Modality::File)];
    let needs = needs.into_iter().filter_map(|(path, modality)| path.as_deref().map(|path| (path, modality)));
    if let Some((path, modality)) = needs.into_iter().find(|(_, modality)| !model.modalities.contains(modality)) {
        let taken: Vec<_> = model.modalities.iter().map(|modality| modality.name()).collect();
        let message = format!(
            "The model '{}' does not take {} input. It takes: {}.",
            model.name,
            modality.name(),
            taken.join(", ")
        );
        return Err(Refusal::new(ErrorKind::InvalidValue, message).with_param(path.to_owned()));
    }
    Ok(())
}

/// The request's settings under the names of Chat Completions.
fn settings(request: &CreateRequest<'_>) -> Vec<Field> {
    let mut fields = Vec::with_capacity(8);
    if let Some(tokens) = request.max_output_tokens {
        fields.push(Field::new("max_completion_tokens", tokens.to_string()));
    }
    let echo = &request.echo;
    let raw = [
        ("temperature", echo.temperature),
        ("top_p", echo.top_p),
        ("presence_penalty", echo.presence_penalty),
        ("frequency_penalty", echo.frequency_penalty),
        ("user", echo.user),
        ("safety_identifier", echo.safety_identifier),
    ];
    for (name, value) in raw {
        fields.extend(value.map(|value| Field::new(name, value.get().to_owned())));
    }
    fields.extend(request.effort.as_deref().map(|effort| Field::string("reasoning_effort", effort)));
    fields.extend(request.verbosity.as_deref().map(|verbosity| Field::string("verbosity", verbosity)));
    fields.extend(response_format(&request.text_format));
    fields
}

fn response_format(format: &TextFormat<'_>) -> Option<Field> {
    let (name, schema, strict, description) = match format {
        TextFormat::Text => return None,
        TextFormat::JsonObject => return Some(Field::new("response_format", "{\"type\":\"json_object\"}")),
        TextFormat::JsonSchema { name, schema, strict, description } => (name, schema, strict, description),
    };
    let mut out = b"{\"type\":\"json_schema\",\"json_schema\":{\"name\":".to_vec();
    out.extend_from_slice(name.get().as_bytes());
    for (field, value) in [("schema", Some(*schema)), ("strict", *strict), ("description", *description)] {
        if let Some(value) = value {
            out.extend_from_slice(b",\"");
            out.extend_from_slice(field.as_bytes());
            out.extend_from_slice(b"\":");
            out.extend_from_slice(value.get().as_bytes());
        }
    }
    out.extend_from_slice(b"}}");
    Some(Field::new("response_format", out))
}
