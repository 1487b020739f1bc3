//! What a client says on a WebSocket: one JSON object a text message.

use super::error::{ParseError, Reason};
use super::fields::Fields;
use super::request::CreateRequest;
use std::borrow::Cow;

/// One message from a client.
#[derive(Debug)]
pub enum ClientEvent<'a> {
    /// A wrong one, too, has its place in the lane.
    Create(Result<Box<CreateRequest<'a>>, ParseError>),
    Interrupt {
        response_id: Cow<'a, str>,
    },
    Steer {
        previous_response_id: Option<Cow<'a, str>>,
        /// Raw JSON, to be handed back.
        input: Option<&'a str>,
    },
}

impl<'a> ClientEvent<'a> {
    /// Reads one text message.
    ///
    /// # Errors
    /// Not an object, an unknown `type`, or a wrong field of an event that is no request.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let fields = Fields::parse(bytes)?;
        match &*fields.required_string("type")? {
            "response.create" => Ok(Self::Create(CreateRequest::parse(&fields).map(Box::new))),
            "response.interrupt" => {
                fields.choice("mode", &["discard_partial_items"])?;
                Ok(Self::Interrupt { response_id: fields.required_string("response_id")? })
            }
            "response.steer" => Ok(Self::Steer {
                previous_response_id: fields.string("previous_response_id")?,
                input: fields.raw("input").map(|raw| raw.get()),
            }),
            other => {
                let message = format!(
                    "Invalid value: '{other}'. Supported values for 'type' are: 'response.create', 'response.interrupt' and 'response.steer'."
                );
                Err(ParseError { reason: Reason::UnknownEvent, message, param: Some("type".to_owned()) })
            }
        }
    }
}
