//! Children of a response: work that a request hands to background responses, or fans out to lanes. PROTOCOL clauses 14 and 15.

use super::Session;
use crate::error::{ErrorKind, Refusal};
use flashlane_wire::responses::{Children, CreateRequest};

impl Session {
    /// # Errors
    /// Children that this server does not run, or not for such a request.
    pub(super) fn may_have_children(
        &self,
        request: &CreateRequest<'_>,
        children: &Children<'_>,
    ) -> Result<(), Refusal> {
        let max = self.shared.settings.children_max;
        let refuse = |kind, message: String| Err(Refusal::new(kind, message).with_param("flashlane"));
        if max == 0 {
            let message = "'flashlane' asks for children of the response, and this server runs none. Leave it out.";
            return refuse(ErrorKind::UnsupportedParameter, message.to_owned());
        }
        if children.len() > max {
            let message =
                format!("Invalid 'flashlane': it asks for {} children, and at most {max} run at once.", children.len());
            return refuse(ErrorKind::InvalidValue, message);
        }
        if request.warm_up {
            let message = "A warm-up makes nothing: 'flashlane' needs a request that generates.";
            return refuse(ErrorKind::InvalidValue, message.to_owned());
        }
        if !children.delegate.is_empty() {
            return refuse(
                ErrorKind::UnsupportedParameter,
                "'flashlane.delegate' is not supported by this server yet.".to_owned(),
            );
        }
        Ok(())
    }
}
