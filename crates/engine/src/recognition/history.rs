//! What the first items of an input came to, whole and ready to be gone on from.

use crate::chain::{Chain, MediaParts, Rendered};
use crate::seal::Opener;
use flashlane_wire::responses::ParseError;
use std::sync::Arc;

/// Items read and rendered, up to where a new message begins.
#[derive(Debug, Clone, Default)]
pub struct History {
    pub chain: Chain,
    /// The ids of the outputs among them whose call is not.
    pub outputs: Vec<Arc<str>>,
    pub media: MediaParts,
}

impl History {
    /// This history and what came after it.
    ///
    /// # Errors
    /// A compaction whose key is not there any more.
    pub fn and(&self, rendered: Rendered, opener: Opener<'_>) -> Result<Self, ParseError> {
        let mut chain = self.chain.clone();
        chain.join(&Arc::new(rendered.piece), opener)?;
        if let Some(tools) = &rendered.tools {
            chain.add_tools(tools);
        }
        let outputs = chain.orphans(self.outputs.iter().cloned().chain(rendered.outputs).collect());
        Ok(Self { outputs, media: self.media.or(&rendered.media), chain })
    }

    /// What it holds beside the bytes of its items, which the tree's nodes hold.
    #[must_use]
    pub fn weight(&self) -> usize {
        let tools = self.chain.tools().and_then(|tools| tools.array.as_ref());
        self.chain.message_bytes() + 2 * tools.map_or(0, bytes::Bytes::len)
    }
}
