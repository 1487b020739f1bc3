//! Which models a gateway offers, by its `GET /v1/models`. Knows no transport.

use crate::address::Address;
use flashlane_backend::Secret;
use flashlane_backend::detect::{self, Look, detect};
use std::path::PathBuf;

const WAIT_MS_MAX: u64 = 5_000;

/// Why there is no list.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{reason}: is flashlane running? Start it with `flashlane serve`")]
    NotRunning { reason: String },
    #[error("{reason}: to trust a private authority, name its certificate in SSL_CERT_FILE")]
    Certificate { reason: String },
    #[error("{url} wants another key (HTTP {status}): set FLASHLANE_API_KEY, or name a variable with --api-key-env")]
    Key { url: String, status: u16 },
    #[error("cannot list the models, name one with --model: {0}")]
    Unlisted(detect::Error),
    #[error("{0} lists no model: name one with --model")]
    None(Address),
}

/// The models' names, in the gateway's order.
///
/// # Errors
/// When nothing answers, or what answers is no list of models.
pub async fn list(address: &Address, api_key: Option<&str>) -> Result<Vec<String>, Error> {
    let look = Look {
        base_url: address.http(),
        api_key: api_key.map(|key| Secret::new(key.to_owned())),
        // As the WebSocket's roots do, and as curl and Python do.
        ca_file: std::env::var_os("SSL_CERT_FILE").map(PathBuf::from),
        wait_ms_max: WAIT_MS_MAX,
    };
    match detect(&look).await {
        Ok(detected) => Ok(detected.models.into_iter().map(|model| model.name).collect()),
        Err(detect::Error::Unreachable { reason }) if reason.contains("certificate") => {
            Err(Error::Certificate { reason })
        }
        Err(detect::Error::Unreachable { reason }) => Err(Error::NotRunning { reason }),
        Err(detect::Error::Key { url, status }) => Err(Error::Key { url, status }),
        Err(error) => Err(Error::Unlisted(error)),
    }
}

/// The first model of the list.
///
/// # Errors
/// As [`list`]; also when the list is empty.
pub async fn first(address: &Address, api_key: Option<&str>) -> Result<String, Error> {
    list(address, api_key).await?.into_iter().next().ok_or_else(|| Error::None(address.clone()))
}
