//! A response's head: status and fields, what they say of where the body ends and whether the connection may be used again.
//!
//! Knows nothing of how the head's bytes came together. What two readers could understand differently is refused rather than guessed:
//! lengths that disagree, codings other than one `chunked`, folded lines.

use bytes::Bytes;

use super::response::Error;

/// The head of a final response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// 200 to 999, and never 1xx.
    pub status: u16,
    /// In order, names in lower case, values without the blanks around them.
    pub headers: Vec<(Bytes, Bytes)>,
    pub keep_alive: KeepAlive,
}

/// The `Keep-Alive` field: how long, and for how many requests more, the upstream means to keep an idle connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeepAlive {
    pub timeout_s: Option<u64>,
    pub requests_max: Option<u64>,
}

/// Where the body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    Length(u64),
    Chunked,
    UntilClose,
}

pub(super) enum Parsed {
    /// 1xx other than 101: the final response is still to come.
    Interim,
    Final {
        head: Head,
        framing: Framing,
        reusable: bool,
    },
}

impl Head {
    /// The first field of that name, which is given in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_ref())
    }
}

/// `head` ends with its empty line.
pub(super) fn parse(head: &[u8], headers_max: usize) -> Result<Parsed, Error> {
    let mut headers = vec![httparse::EMPTY_HEADER; headers_max];
    let mut response = httparse::Response::new(&mut headers);
    match response.parse(head) {
        Ok(httparse::Status::Complete(bytes)) if bytes == head.len() => {}
        Ok(httparse::Status::Complete(_) | httparse::Status::Partial) => return Err(Error::HeadCut),
        Err(httparse::Error::TooManyHeaders) => return Err(Error::HeadersTooMany { headers_max }),
        Err(error) => return Err(Error::Head(error)),
    }
    let status = response.code.unwrap_or_default();
    match status {
        101 => return Err(Error::Upgrade),
        100..=199 => return Ok(Parsed::Interim),
        200..=999 => {}
        _ => return Err(Error::Status(status)),
    }
    let fields = Fields::read(response.headers)?;
    let (framing, reusable) = fields.framing(status, response.version == Some(0))?;
    let head = Head { status, headers: owned(response.headers), keep_alive: fields.keep_alive };
    Ok(Parsed::Final { head, framing, reusable })
}

/// One allocation for all names and values.
fn owned(headers: &[httparse::Header<'_>]) -> Vec<(Bytes, Bytes)> {
    let mut block = Vec::with_capacity(headers.iter().map(|header| header.name.len() + header.value.len()).sum());
    for header in headers {
        block.extend(header.name.bytes().map(|byte| byte.to_ascii_lowercase()));
        block.extend_from_slice(header.value);
    }
    let mut block = Bytes::from(block);
    headers.iter().map(|header| (block.split_to(header.name.len()), block.split_to(header.value.len()))).collect()
}

/// The fields that decide about framing and reuse.
#[derive(Default)]
struct Fields {
    content_length: Option<u64>,
    chunked: bool,
    close: bool,
    stay: bool,
    keep_alive: KeepAlive,
}

impl Fields {
    fn read(headers: &[httparse::Header<'_>]) -> Result<Self, Error> {
        let mut fields = Self::default();
        for header in headers {
            let elements = header.value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
            if header.name.eq_ignore_ascii_case("content-length") {
                for length in elements {
                    fields.content_length(length)?;
                }
            } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
                for coding in elements {
                    fields.coding(coding)?;
                }
            } else if header.name.eq_ignore_ascii_case("connection") {
                for option in elements {
                    fields.close |= option.eq_ignore_ascii_case(b"close");
                    fields.stay |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            } else if header.name.eq_ignore_ascii_case("keep-alive") {
                for parameter in elements {
                    fields.keep_alive(parameter);
                }
            }
        }
        Ok(fields)
    }

    /// Repeated, it has to say the same.
    fn content_length(&mut self, value: &[u8]) -> Result<(), Error> {
        let length = decimal(value).ok_or(Error::ContentLength)?;
        match self.content_length.replace(length) {
            Some(before) if before != length => Err(Error::ContentLength),
            Some(_) | None => Ok(()),
        }
    }

    fn coding(&mut self, value: &[u8]) -> Result<(), Error> {
        if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
            return Err(Error::TransferEncoding);
        }
        self.chunked = true;
        Ok(())
    }

    fn keep_alive(&mut self, parameter: &[u8]) {
        let mut sides = parameter.splitn(2, |&byte| byte == b'=').map(<[u8]>::trim_ascii);
        let (name, value) = (sides.next().unwrap_or_default(), sides.next().and_then(decimal));
        if name.eq_ignore_ascii_case(b"timeout") {
            self.keep_alive.timeout_s = value;
        } else if name.eq_ignore_ascii_case(b"max") {
            self.keep_alive.requests_max = value;
        }
    }

    /// RFC 9112, sections 6.3 and 9.3. A connection whose response spoke in two voices about its end is not used again.
    fn framing(&self, status: u16, http10: bool) -> Result<(Framing, bool), Error> {
        if self.chunked && http10 {
            return Err(Error::TransferEncoding);
        }
        let stays = !self.close && (self.stay || !http10);
        match (status, self.chunked, self.content_length) {
            (204, chunked, length) => Ok((Framing::Length(0), stays && !chunked && length.unwrap_or(0) == 0)),
            (304, chunked, _) => Ok((Framing::Length(0), stays && !chunked)),
            (_, true, length) => Ok((Framing::Chunked, stays && length.is_none())),
            (_, false, Some(length)) => Ok((Framing::Length(length), stays)),
            (_, false, None) => Ok((Framing::UntilClose, false)),
        }
    }
}

/// Digits and nothing else.
fn decimal(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0_u64, |sum, byte| {
        let digit = char::from(*byte).to_digit(10)?;
        sum.checked_mul(10)?.checked_add(u64::from(digit))
    })
}
