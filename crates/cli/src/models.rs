//! Which models a gateway offers, by its `GET /v1/models`. Knows no transport.

use crate::address::Address;
use crate::gateway::{Gateway, Untrusted};
use flashlane_backend::Way;
use flashlane_backend::detect::{self, Look, detect};
use std::path::PathBuf;

const WAIT_MS_MAX: u64 = 5_000;
/// What the TLS library says of an answer in plain text.
pub(crate) const NO_TLS: &str = "InvalidContentType";
const BAD_REQUEST: u16 = 400;

/// Why there is no list.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{reason}: is flashlane running? Start it with `flashlane serve`")]
    NotRunning { reason: String },
    #[error("{reason}: to trust a private authority, name its certificate by --cacert")]
    Certificate { reason: String },
    #[error("{url} wants another key (HTTP {status}): set FLASHLANE_API_KEY, or name a variable with --api-key-env")]
    Key { url: String, status: u16 },
    #[error("{url} answered with status {status}: does it speak TLS? Its URL then begins with https:// or wss://")]
    Plain { url: String, status: u16 },
    #[error("{reason}: does it speak TLS? Without, its URL begins with http:// or ws://")]
    Tls { reason: String },
    #[error(transparent)]
    Untrusted(#[from] Untrusted),
    #[error("cannot list the models, name one with --model: {0}")]
    Unlisted(detect::Error),
    #[error("{0} lists no model: name one with --model")]
    None(Address),
}

/// The models' names, in the gateway's order.
///
/// # Errors
/// When nothing answers, or what answers is no list of models.
pub async fn list(gateway: &Gateway) -> Result<Vec<String>, Error> {
    gateway.tls()?;
    let base_url = gateway.address.http();
    let is_plain = base_url.starts_with("http://");
    let look = Look {
        base_url,
        api_key: gateway.api_key.clone(),
        // As the WebSocket's roots do, and as curl and Python do.
        way: Way::trusting(gateway.cacert.clone().or_else(|| std::env::var_os("SSL_CERT_FILE").map(PathBuf::from))),
        wait_ms_max: WAIT_MS_MAX,
    };
    match detect(&look).await {
        Ok(detected) => Ok(detected.models.into_iter().map(|model| model.name).collect()),
        Err(detect::Error::Unreachable { reason }) if reason.contains("certificate") => {
            Err(Error::Certificate { reason })
        }
        Err(detect::Error::Unreachable { reason }) if reason.contains(NO_TLS) => Err(Error::Tls { reason }),
        Err(detect::Error::Unreachable { reason }) => Err(Error::NotRunning { reason }),
        Err(detect::Error::Key { url, status }) => Err(Error::Key { url, status }),
        Err(detect::Error::Status { url, status: BAD_REQUEST }) if is_plain => {
            Err(Error::Plain { url, status: BAD_REQUEST })
        }
        Err(error) => Err(Error::Unlisted(error)),
    }
}

/// The first model of the list.
///
/// # Errors
/// As [`list`]; also when the list is empty.
pub async fn first(gateway: &Gateway) -> Result<String, Error> {
    list(gateway).await?.into_iter().next().ok_or_else(|| Error::None(gateway.address.clone()))
}
