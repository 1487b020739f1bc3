//! How a model is to work, as the file says it: for both tiers, and for one. Knows nothing of requests.

use super::ModelConfig;
use super::routing::AtTier;
use flashlane_engine::{Appended, Profile, Profiles};
use std::sync::Arc;

/// A text of more costs each turn more than it can save.
const INSTRUCTIONS_BYTES_MAX: usize = 16_384;

/// A field of the model at fault, and what is wrong with it.
type Fault = (String, String);

pub fn of_model(config: &ModelConfig) -> Result<Profiles, Fault> {
    let texts = [("", &config.instructions_append)];
    let at_tiers = [("latency.", &config.latency), ("throughput.", &config.throughput)];
    for (part, text) in texts.into_iter().chain(at_tiers.map(|(part, at)| (part, &at.instructions_append))) {
        let bytes = text.as_ref().map_or(0, String::len);
        if bytes > INSTRUCTIONS_BYTES_MAX {
            let message = format!("has {bytes} bytes: expected at most {INSTRUCTIONS_BYTES_MAX}");
            return Err((format!("{part}instructions_append"), message));
        }
    }
    Ok(Profiles { latency: at_tier(config, &config.latency), throughput: at_tier(config, &config.throughput) })
}

/// What is said of the tier goes before what is said of the model.
fn at_tier(config: &ModelConfig, at: &AtTier) -> Profile {
    let text = at.instructions_append.as_ref().or(config.instructions_append.as_ref());
    let appended = text.and_then(|text| Appended::new(text)).map(Arc::new);
    Profile { appended, effort: at.effort.or(config.effort) }
}
