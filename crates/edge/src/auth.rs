//! Who asks, and what they say of themselves. With keys configured, whoever has none is refused before anything else is looked at; without
//! any, every caller is served (on loopback alone), but callers with different `Authorization`s never see each other's state.

use crate::current::Current;
use crate::keys::Caller;
use crate::peer::Peer;
use crate::reply::Refused;
use crate::routes::RequestId;
use crate::state::State;
use axum::extract::Request;
use flashlane_engine::router::{HEADERS, Origin, TURN_METADATA, model_named};
use flashlane_engine::{ErrorKind, Owner};
use flashlane_store::OwnerId;
use flashlane_telemetry::label::KeyFault;
use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderValue};
use sha2::{Digest as _, Sha256};
use std::borrow::Cow;
use std::sync::Arc;

/// Handlers find the [`Caller`] in the request's extensions.
pub(crate) fn check(state: &State, request: &mut Request) -> Result<(), Refused> {
    let fault = match caller(state, request.headers()) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            return Ok(());
        }
        Err(fault) => fault,
    };
    let extensions = request.extensions();
    let from = extensions.get::<Peer>().map(|peer| peer.address);
    let id = extensions.get::<RequestId>().map_or("", |RequestId(id)| id);
    state.metrics.key_refused(fault);
    state.refusals.refused(fault, from, id, state.clock.now().mono_ns);
    Err(Refused::new(ErrorKind::InvalidApiKey, told(fault)))
}

/// Where a request's body is whole, which may have taken long: what holds by now, and the caller by that.
///
/// # Errors
/// Its key was revoked meanwhile.
pub(crate) fn still<'a>(state: &State, caller: Option<&'a Caller>) -> Result<(Arc<Current>, Cow<'a, Caller>), Refused> {
    let (current, caller) = (state.current.load_full(), caller.ok_or(crate::Error::NoCaller)?);
    match current.again(caller) {
        Some(caller) => Ok((current, caller)),
        None => {
            let message = "The API key was revoked while the request came. Ask whoever runs this server for a key.";
            Err(Refused::new(ErrorKind::InvalidApiKey, message))
        }
    }
}

fn caller(state: &State, headers: &HeaderMap) -> Result<Caller, KeyFault> {
    let authorization = headers.get(AUTHORIZATION);
    let current = state.current();
    if current.keys.is_empty() {
        let (owner, shared) = (unchecked(authorization), Arc::clone(&current.shared));
        return Ok(Caller { owner, key: None, secret: None, generation: current.number, only: None, shared });
    }
    let authorization = authorization.ok_or(KeyFault::Missing)?;
    let key = bearer(authorization.as_bytes()).ok_or(KeyFault::Malformed)?;
    current.keys.caller(key).cloned().ok_or(KeyFault::Unknown)
}

fn told(fault: KeyFault) -> &'static str {
    match fault {
        KeyFault::Missing => "No API key was sent. Send one as `Authorization: Bearer YOUR_KEY`.",
        KeyFault::Malformed => {
            "The Authorization header holds no bearer key. Send it as `Authorization: Bearer YOUR_KEY`."
        }
        KeyFault::Unknown => "The API key is not one of this server's. Ask whoever runs it for a key.",
    }
}

/// The key of `Bearer KEY`, the scheme in any case.
pub(crate) fn bearer(authorization: &[u8]) -> Option<&[u8]> {
    let (scheme, key) = authorization.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| key.trim_ascii()).filter(|key| !key.is_empty())
}

/// The digest of the `Authorization` sent, so that nothing can be read back. All who send none are one.
fn unchecked(authorization: Option<&HeaderValue>) -> Owner {
    match authorization {
        Some(authorization) => Owner(Sha256::digest(authorization.as_bytes()).into()),
        None => Owner::default(),
    }
}

/// The model that its turns will ask for, where a handshake says so.
pub(crate) fn model(headers: &HeaderMap) -> Option<String> {
    model_named(headers.get(TURN_METADATA)?.to_str().ok()?)
}

impl Caller {
    /// Whose stored state it sees.
    pub(crate) fn owner_id(&self) -> OwnerId {
        OwnerId(self.owner.0)
    }

    /// Which conversation of which session the request is for, as its headers say.
    pub(crate) fn origin(&self, headers: &HeaderMap) -> Origin {
        // The few that came are compared with those that are known: to look each of them up costs its name's parsing.
        let known = headers.keys().filter(|name| HEADERS.contains(&name.as_str()));
        let told = known.filter_map(|name| Some((name.as_str(), headers.get(name)?.to_str().ok()?)));
        Origin { only: self.only, ..Origin::of_headers(&self.owner, told) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bearer_key_is_what_stands_behind_the_scheme() {
        assert_eq!(bearer(b"Bearer k"), Some(&b"k"[..]));
        assert_eq!(bearer(b"bearer  k "), Some(&b"k"[..]));
        for none in [&b"Bearer "[..], b"Bearer", b"Basic k", b"", b"k", b"Bearer\tk"] {
            assert_eq!(bearer(none), None);
        }
    }
}
