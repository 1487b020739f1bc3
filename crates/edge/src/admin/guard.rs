//! Who may ask what on the admin listener. On loopback all is open but what shows or ends the server (`/config`, `/drain`), and, where the
//! config has a token or an authority for certificates, what changes it; beyond loopback everything is asked for the admin token or a
//! client certificate, but for the health of the process, and the metrics where the config opens them. Whoever passes as one who may is no
//! guest of the listener any more. Knows nothing of what is behind the doors.

use crate::config::AdminConfig;
use crate::drain::Phase;
use crate::listen::Permit;
use crate::peer::Peer;
use crate::reply::Refused;
use crate::state::State;
use crate::{auth, origin};
use axum::extract::{self, Request};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use flashlane_engine::ErrorKind;
use flashlane_engine::router::Digest;
use http::header::AUTHORIZATION;
use sha2::{Digest as _, Sha256};
use std::sync::Arc;
use subtle::ConstantTimeEq as _;

/// What is behind a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Door {
    /// Open to this machine, and to all where `metrics_open` is set.
    Metrics,
    /// Open to this machine.
    Guarded,
    /// Open to this machine as long as nobody can prove anything.
    Changing,
    /// As [`Self::Guarded`]; but proof may come later, since a browser's WebSocket sends none: its handler looks for [`Proof`].
    Late,
    /// Open to nobody without proof.
    Always,
}

/// Behind [`Door::Late`]: whether proof is asked for yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    Needless,
    AskedFor,
}

impl Proof {
    /// Whether one with this token comes in.
    pub(super) fn is_given(self, state: &State, token: Option<&str>) -> bool {
        match self {
            Self::Needless => true,
            Self::AskedFor => {
                token.is_some_and(|token| is_token(&state.current().config.admin.token_sha256, token.as_bytes()))
            }
        }
    }
}

/// A door of one listener.
#[derive(Clone)]
pub(super) struct Gate {
    pub(super) state: Arc<State>,
    pub(super) door: Door,
    /// Whether only this machine reaches the listener.
    pub(super) is_private: bool,
}

/// The layer. No page of another site comes further, whatever its visitor can prove.
pub(super) async fn guard(extract::State(gate): extract::State<Gate>, mut request: Request, next: Next) -> Response {
    match check(&gate, &request) {
        Ok(proof) => {
            request.extensions_mut().insert(proof);
            next.run(request).await
        }
        Err(refused) => refused.into_response(),
    }
}

fn check(gate: &Gate, request: &Request) -> Result<Proof, Refused> {
    let current = gate.state.current();
    let config = &current.config;
    let peer = request.extensions().get::<Peer>().copied();
    let is_from_here = gate.is_private && peer.is_some_and(|peer| peer.is_loopback());
    let is_open = is_open(gate.door, &config.admin, is_from_here);
    origin::check_admin(config, request, is_open)?;
    if !is_open && peer.is_none_or(|peer| !peer.has_certificate) {
        if gate.door == Door::Late {
            return Ok(Proof::AskedFor);
        }
        let token = request.headers().get(AUTHORIZATION).and_then(|value| auth::bearer(value.as_bytes()));
        prove(&config.admin, token, request.uri().path())?;
    }
    // After a hand-over a kept connection leads here still: its operator would believe to have told the successor.
    if gate.door == Door::Changing && gate.state.connections.phase() > Phase::Serving {
        let message = "This process is ending and takes no orders any more. Connect again: whoever serves now answers.";
        return Err(Refused::new(ErrorKind::ShuttingDown, message.to_owned()));
    }
    // What is open to all proves nothing.
    if (!is_open || is_from_here)
        && let Some(permit) = request.extensions().get::<Permit>()
    {
        permit.prove();
    }
    Ok(Proof::Needless)
}

fn is_open(door: Door, config: &AdminConfig, is_from_here: bool) -> bool {
    match door {
        Door::Metrics => is_from_here || config.metrics_open,
        Door::Guarded | Door::Late => is_from_here,
        Door::Changing => is_from_here && !config.can_ask(),
        Door::Always => false,
    }
}

fn prove(config: &AdminConfig, token: Option<&[u8]>, path: &str) -> Result<(), Refused> {
    let refused = |message: String| Err(Refused::new(ErrorKind::InvalidApiKey, message));
    let takes_certificates = config.takes_certificates();
    if config.token_sha256.is_empty() && !takes_certificates {
        return refused(format!(
            "{path} asks for the admin token, and none is configured: make one by `flashlane keys create --admin`, and put what it \
             prints into the server's config."
        ));
    }
    match token {
        Some(token) if is_token(&config.token_sha256, token) => Ok(()),
        Some(_) => refused("The admin token is not this server's.".to_owned()),
        None => {
            let or = if takes_certificates { ", or connect with a client certificate" } else { "" };
            refused(format!("{path} asks for the admin token. Send it as `Authorization: Bearer TOKEN`{or}."))
        }
    }
}

/// Takes as long whichever it is, and whether it is one.
fn is_token(digests: &[Digest], token: &[u8]) -> bool {
    let sent: [u8; 32] = Sha256::digest(token).into();
    digests.iter().fold(subtle::Choice::from(0), |found, digest| found | digest.0.0.ct_eq(&sent)).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use flashlane_engine::Owner;

    fn config(tokens: &[&str]) -> AdminConfig {
        let digest = |token: &&str| Digest(Owner(Sha256::digest(token).into()));
        AdminConfig { token_sha256: tokens.iter().map(digest).collect(), ..AdminConfig::default() }
    }

    #[test]
    fn a_door_is_open_to_those_who_need_no_proof() {
        let closed = config(&[]);
        let opened = AdminConfig { metrics_open: true, ..config(&[]) };
        let with_token = config(&["token"]);
        for (door, open_here, asked_here, open_there, opened_there) in [
            (Door::Metrics, true, true, false, true),
            (Door::Guarded, true, true, false, false),
            (Door::Changing, true, false, false, false),
            (Door::Late, true, true, false, false),
            (Door::Always, false, false, false, false),
        ] {
            assert_eq!(is_open(door, &closed, true), open_here, "{door:?}");
            assert_eq!(is_open(door, &with_token, true), asked_here, "{door:?}");
            assert_eq!(is_open(door, &closed, false), open_there, "{door:?}");
            assert_eq!(is_open(door, &opened, false), opened_there, "{door:?}");
        }
    }

    #[test]
    fn either_of_two_tokens_is_proof_and_no_other() {
        let config = config(&["old-token", "new-token"]);
        for token in ["old-token", "new-token"] {
            assert!(prove(&config, Some(token.as_bytes()), "/config").is_ok());
        }
        for token in [None, Some(&b"other-token"[..]), Some(b"")] {
            let Refused(refusal) = prove(&config, token, "/config").unwrap_err();
            assert_eq!(refusal.kind, ErrorKind::InvalidApiKey);
        }
    }

    #[test]
    fn where_no_token_is_configured_the_refusal_says_how_to_get_one() {
        let Refused(refusal) = prove(&config(&[]), Some(b"any"), "/drain").unwrap_err();
        assert!(refusal.message.contains("/drain") && refusal.message.contains("keys create --admin"), "{refusal}");
    }
}
