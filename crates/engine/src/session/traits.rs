//! What routing is told of a turn: what its client said of itself and of the request, and what is known of the input when the turn
//! asks for its place. Decides nothing.

use super::{Session, Transport};
use crate::draft::{Contract, Draft};
use crate::fleet::{EndpointId, Fleet, Modality};
use crate::router::{Effort, Keys, Media, Origin, RequestKind, ServiceTier, SessionKey, Step, Traits};
use crate::tokens;
use crate::turn::Turn;
use flashlane_wire::responses::CreateRequest;
use memchr::memmem;

impl Session {
    /// What the client said of itself in the handshake, or in its request's headers.
    #[must_use]
    pub fn with_origin(mut self, origin: Origin) -> Self {
        self.origin = match self.transport {
            // A handshake's kind is not that of the requests to come.
            Transport::WebSocket { .. } => Origin { kind: RequestKind::Turn, ..origin },
            Transport::Http { .. } => origin,
        };
        self
    }

    /// Where its first turn is expected to go.
    #[must_use]
    pub fn with_planned(self, planned: Option<EndpointId>) -> Self {
        Self { planned, ..self }
    }

    pub(super) fn traits_of(&self, request: &CreateRequest<'_>) -> Traits {
        let origin = match request.client_metadata {
            Some(raw) => self.origin.with_client_metadata(&self.owner, raw.get()),
            None => self.origin,
        };
        Traits {
            owner: self.owner,
            service_tier: request.service_tier.as_deref().and_then(ServiceTier::named).unwrap_or_default(),
            effort: request.effort.as_deref().and_then(Effort::named),
            origin,
            background: request.background,
            keys: origin.keys(self.cache_key(request.cache_key.as_deref())),
            tokens_output_max: request.max_output_tokens,
            ..Traits::default()
        }
    }

    pub(super) fn traits_of_chat(&self, draft: &Draft, service_tier: Option<&str>) -> Traits {
        let value = |name: &str| {
            let field = draft.fields.iter().find(|field| field.name == name)?;
            std::str::from_utf8(&field.value).ok()
        };
        let tokens_output_max = value("max_completion_tokens").or_else(|| value("max_tokens"));
        Traits {
            is_chat: true,
            owner: self.owner,
            service_tier: service_tier.and_then(ServiceTier::named).unwrap_or_default(),
            effort: value("reasoning_effort").and_then(|effort| Effort::named(effort.trim_matches('"'))),
            origin: self.origin,
            keys: self.origin.keys(self.cache_key(draft.cache_key.as_deref())),
            tokens_output_max: tokens_output_max.and_then(|tokens| tokens.parse().ok()),
            ..Traits::default()
        }
    }

    fn cache_key(&self, named: Option<&str>) -> Option<SessionKey> {
        named.map(|name| SessionKey::new(&self.owner, name))
    }
}

/// The draft's traits, and what is known of the input by now.
#[must_use]
pub fn traits(turn: &mut Turn, fleet: &Fleet) -> Traits {
    let mut traits = turn.draft.traits;
    if fleet.asks_for_the_step(&turn.draft.model) {
        let step = match &turn.draft.contract {
            Contract::Responses(_) => Step::of(turn.chain.pieces().iter().rev().map(|piece| &*piece.messages)),
            Contract::Chat(chat) => Step::of(std::iter::once(&*chat.messages)),
        };
        traits.follows = step.follows;
        traits.tokens_new = tokens::estimate(step.bytes_new);
    }
    let first = match &turn.draft.contract {
        Contract::Responses(_) => {
            traits.media = turn.media();
            traits.tokens_input = turn.tokens.unwrap_or_else(|| {
                let (tokens, bytes) = turn.counted();
                tokens.saturating_add(tokens::estimate(bytes))
            });
            turn.chain.messages().next().cloned()
        }
        Contract::Chat(chat) => {
            let takes_media = fleet.model(&turn.draft.model).is_some_and(|model| model.modalities != [Modality::Text]);
            if takes_media {
                traits.media = media(&chat.messages);
            }
            traits.tokens_input = tokens::estimate(turn.bytes());
            Some(chat.messages.clone())
        }
    };
    if traits.keys == Keys::default() {
        let owner = traits.owner;
        traits.keys.thread = first.map(|messages| turn.chain.root(|| SessionKey::of_messages(&owner, &messages)));
    }
    traits
}

/// What a chat request's messages bring: quotes inside of texts are escaped, so these are no texts.
fn media(messages: &[u8]) -> Media {
    let has = |part: &str| memmem::find(messages, part.as_bytes()).is_some();
    Media { image: has("\"image_url\""), file: has("\"file\"") }
}
