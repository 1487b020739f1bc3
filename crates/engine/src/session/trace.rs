//! What a session's turns are found by elsewhere: their request's id, and the trace that they belong to.

use super::Session;
use crate::trace::{Parent, Tracing};
use flashlane_wire::responses::CreateRequest;
use std::sync::Arc;

impl Session {
    /// Its errors name the request.
    #[must_use]
    pub fn with_request_id(self, request_id: Arc<str>) -> Self {
        Self { request_id: Some(request_id), ..self }
    }

    /// Its turns take part in traces.
    #[must_use]
    pub fn with_tracing(self, tracing: Option<Tracing>) -> Self {
        Self { tracing: tracing.map(Box::new), ..self }
    }

    /// What a request itself says that it belongs to, where that matters.
    pub(super) fn parent_of(&self, request: &CreateRequest<'_>) -> Option<Box<Parent>> {
        self.tracing.as_ref()?;
        Parent::of_client_metadata(request.client_metadata?.get()).map(Box::new)
    }
}
