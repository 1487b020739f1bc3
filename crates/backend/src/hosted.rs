//! Hosted services that rent out fast hardware by the token: Chat Completions as everywhere, and what their limits, queues and tiers
//! ask for besides. How one differs from another is a row of [`profile`].
//!
//! Nothing is tried again here: a refusal goes back at once, so that another tier can take the turn. What the service's headers say
//! of its limits is remembered, and a request that they rule out is refused before it is sent.

pub(crate) mod account;
pub(crate) mod profile;
pub(crate) mod quota;
mod refusal;
mod schema;

use crate::client::Remote;
use crate::client::dial::Version;
use crate::client::packing::{Packer, Packing};
use crate::openai::http1::Http1;
use crate::openai::http2::Http2;
use crate::openai::request::{Body, Coding, Outbound};
use crate::stream::TokenStream;
use account::{Account, Charge, spent};
use bytes::Bytes;
use flashlane_engine::{UpstreamRequest, tokens};
use flashlane_wire::chat::{self, Field};
use profile::Profile;
use schema::Schemas;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Of one endpoint; more models than any service has share the last account.
const ACCOUNTS_MAX: usize = 64;
/// One such endpoint.
pub struct Hosted {
    pub(crate) remote: Arc<Remote>,
    pub(crate) profile: &'static Profile,
    settings: Settings,
    accounts: Mutex<Vec<(Arc<str>, Arc<Account>)>>,
    takes_gzip: Arc<AtomicBool>,
    packer: Packer,
    schemas: Schemas,
}

/// What its endpoint's config says.
pub(crate) struct Settings {
    /// Sent where the client sets no limit: the service charges for what might come.
    pub(crate) completion_tokens_max: u64,
    pub(crate) service_tier: Option<String>,
    pub(crate) gzip: Option<Gzip>,
}

/// When a request goes out in gzip.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gzip {
    pub(crate) bytes_min: usize,
    pub(crate) round_trip_min: Duration,
}

impl Gzip {
    /// A near service has read the request before it is packed.
    fn pays(self, bytes: usize, round_trip: Option<Duration>) -> bool {
        bytes >= self.bytes_min && round_trip.unwrap_or_default() >= self.round_trip_min
    }
}

impl Hosted {
    pub(crate) fn new(remote: Remote, profile: &'static Profile, settings: Settings) -> Self {
        Self {
            remote: Arc::new(remote),
            profile,
            settings,
            accounts: Mutex::default(),
            takes_gzip: Arc::new(AtomicBool::new(true)),
            packer: Packer::new(),
            schemas: Schemas::default(),
        }
    }

    pub(crate) fn open(&self, mut request: UpstreamRequest) -> TokenStream {
        self.profile.dialect.alter(&mut request.fields, request.cache_key.as_deref());
        self.complete(&mut request.fields);
        let account = self.account(&request.model);
        let tokens = estimate(&request);
        if let Err(wait_ms) = account.spend(tokens) {
            return TokenStream::Failed(Some(spent(wait_ms)));
        }
        self.remote.is_in_use();
        let pieces = chat::body(&request.model, &request.fields, &request.messages);
        let body = Body { pieces, coding: Coding::Identity, trace: request.trace.clone() };
        let packing = self.packing(&body);
        self.remote.sends(&body, packing.is_some());
        let gzip = packing.is_some().then(|| Arc::clone(&self.takes_gzip));
        let charge = Charge { account, tokens, gzip };
        let remote = Arc::clone(&self.remote);
        match remote.version {
            Version::Http1 => {
                let outbound = Outbound::new(&remote.template, body);
                TokenStream::Http1(Box::new(Http1::new(remote, outbound, false).charged(charge).packed(packing)))
            }
            Version::Http2 => TokenStream::Http2(Box::new(Http2::new(remote, body, packing).charged(charge))),
        }
    }

    /// Adds what the client left open, and mends what the service would refuse.
    fn complete(&self, fields: &mut Vec<Field>) {
        let has = |fields: &[Field], names: &[&str]| fields.iter().any(|field| names.contains(&&*field.name));
        if !has(fields, &["tools"]) {
            fields.retain(|field| !matches!(&*field.name, "tool_choice" | "parallel_tool_calls"));
        }
        if self.profile.strict_schemas {
            for field in fields.iter_mut().filter(|field| matches!(&*field.name, "tools" | "response_format")) {
                if let Some(mended) = self.schemas.mended(&field.value) {
                    field.value = mended;
                }
            }
        }
        if !has(fields, &["max_completion_tokens", "max_tokens"]) {
            fields.push(Field::new("max_completion_tokens", self.settings.completion_tokens_max.to_string()));
        }
        if let Some(tier) = &self.settings.service_tier {
            fields.retain(|field| field.name != "service_tier");
            fields.push(Field::string("service_tier", tier));
        }
    }

    fn account(&self, model: &Arc<str>) -> Arc<Account> {
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, account)) = accounts.iter().find(|(known, _)| known == model) {
            return Arc::clone(account);
        }
        if accounts.len() == ACCOUNTS_MAX
            && let Some((_, last)) = accounts.last()
        {
            return Arc::clone(last);
        }
        let account = Arc::new(Account::new());
        accounts.push((Arc::clone(model), Arc::clone(&account)));
        account
    }

    /// The body's way into gzip, where it pays.
    fn packing(&self, body: &Body) -> Option<Packing> {
        let is_worth_it = self.settings.gzip.is_some_and(|gzip| gzip.pays(body.len(), self.remote.round_trip()));
        let is_taken = is_worth_it && self.takes_gzip.load(Ordering::Relaxed);
        is_taken.then(|| self.packer.pack(body.pieces.clone()))
    }
}

/// What the service will reserve: the prompt by its bytes, and all that the answer may have.
fn estimate(request: &UpstreamRequest) -> u64 {
    let limit = request.fields.iter().find(|field| matches!(&*field.name, "max_completion_tokens" | "max_tokens"));
    let answer = limit.and_then(|field| std::str::from_utf8(&field.value).ok()?.parse::<u64>().ok()).unwrap_or(0);
    let fields: usize = request.fields.iter().map(|field| field.value.len()).sum();
    let messages: usize = request.messages.iter().map(Bytes::len).sum();
    tokens::estimate(fields + messages).saturating_add(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_large_and_goes_far_is_packed() {
        let gzip = Gzip { bytes_min: 2048, round_trip_min: Duration::from_millis(5) };
        let (near, far) = (Some(Duration::from_millis(4)), Some(Duration::from_millis(5)));
        assert!(gzip.pays(2048, far));
        assert!(!gzip.pays(2047, far) && !gzip.pays(2048, near) && !gzip.pays(2048, None));
        assert!(Gzip { round_trip_min: Duration::ZERO, ..gzip }.pays(2048, None), "wherever it is");
    }
}
