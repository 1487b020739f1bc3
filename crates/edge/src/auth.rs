//! Who asks, and what they say of themselves. No keys are configured yet, so every caller is served; but callers with different keys never see each other's state.

use flashlane_engine::Owner;
use flashlane_engine::router::{HEADERS, Origin, TURN_METADATA, model_named};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use sha2::{Digest, Sha256};

/// The owner of what a request makes: the digest of the `Authorization` sent, so that nothing can be read back. All who send none are one.
pub(crate) fn owner(headers: &HeaderMap) -> Owner {
    match headers.get(AUTHORIZATION) {
        Some(authorization) => Owner(Sha256::digest(authorization.as_bytes()).into()),
        None => Owner::default(),
    }
}

/// The model that its turns will ask for, where a handshake says so.
pub(crate) fn model(headers: &HeaderMap) -> Option<String> {
    model_named(headers.get(TURN_METADATA)?.to_str().ok()?)
}

/// Which conversation of which session the request is for, as its headers say.
pub(crate) fn origin(owner: &Owner, headers: &HeaderMap) -> Origin {
    let told = HEADERS.iter().filter_map(|name| Some((*name, headers.get(*name)?.to_str().ok()?)));
    Origin::of_headers(owner, told)
}
