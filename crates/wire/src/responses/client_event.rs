//! What a client says on a WebSocket: one JSON object a text message.

use super::error::{ParseError, Reason};
use super::fields::Fields;
use super::request::CreateRequest;
use super::split::Known;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// One message from a client.
#[derive(Debug)]
pub enum ClientEvent<'a> {
    Create {
        /// The lane that was asked for.
        stream_id: Option<Cow<'a, str>>,
        /// What it goes on from, known for a wrong request as well.
        previous_response_id: Option<Cow<'a, str>>,
        /// A wrong one, too, has its place in the lane.
        request: Result<Box<CreateRequest<'a>>, ParseError>,
    },
    Interrupt {
        response_id: Cow<'a, str>,
    },
    Cancel {
        response_id: Cow<'a, str>,
    },
    Steer {
        /// Empty when it was left out.
        previous_response_id: Cow<'a, str>,
        input: Option<&'a RawValue>,
    },
}

impl<'a> ClientEvent<'a> {
    /// Reads one text message. `known` is as for [`Fields::parse_request`].
    ///
    /// # Errors
    /// Not an object, an unknown `type`, or a wrong field of an event that is no request.
    pub fn parse(bytes: &'a [u8], known: impl FnOnce(&'a [u8]) -> Known) -> Result<Self, ParseError> {
        let mut fields = Fields::parse_request(bytes, known)?;
        if fields.input().is_some() && fields.required_string("type")? != "response.create" {
            fields = Fields::parse(bytes)?;
        }
        match &*fields.required_string("type")? {
            "response.create" => Ok(Self::Create {
                stream_id: fields.string("stream_id")?,
                previous_response_id: fields.string("previous_response_id").unwrap_or_default(),
                request: CreateRequest::parse(&fields).map(Box::new),
            }),
            "response.interrupt" => {
                fields.choice("mode", &["discard_partial_items"])?;
                Ok(Self::Interrupt { response_id: fields.required_string("response_id")? })
            }
            "response.cancel" => Ok(Self::Cancel { response_id: fields.required_string("response_id")? }),
            "response.steer" => Ok(Self::Steer {
                previous_response_id: fields.string("previous_response_id").unwrap_or_default().unwrap_or_default(),
                input: fields.raw("input"),
            }),
            other => {
                let message = format!(
                    "Invalid value: '{other}'. Supported values for 'type' are: 'response.create', 'response.steer', 'response.interrupt' and 'response.cancel'."
                );
                Err(ParseError { reason: Reason::UnknownEvent, message, param: Some("type".to_owned()) })
            }
        }
    }
}
