//! What a certificate says of itself: for whom it is, and until when. Verifies nothing.

use crate::calendar::{DAY_S, days};
use std::net::{Ipv4Addr, Ipv6Addr};

pub use crate::calendar::date;

const SEQUENCE: u8 = 0x30;
const OCTETS: u8 = 0x04;
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
const DNS_NAME: u8 = 0x82;
const IP_ADDRESS: u8 = 0x87;
/// 2.5.29.17, subjectAltName.
const OTHER_NAMES: &[u8] = &[0x55, 0x1d, 0x11];
/// 2.5.4.3, commonName.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
/// Names of one certificate that are told.
const NAMES_MAX: usize = 8;

/// The end of a certificate's validity. `None`: it is no certificate as X.509 writes one.
pub fn expiry(certificate: &[u8]) -> Option<i64> {
    let (_, validity, _) = value(validity_on(certificate)?)?;
    let (_, _, not_before_on) = value(validity)?;
    let (tag, not_after, _) = value(not_before_on)?;
    time(tag, std::str::from_utf8(not_after).ok()?)
}

/// For whom it is: its names and addresses, or else its subject's common name. Empty: it does not say, or is none.
#[must_use]
pub fn names(certificate: &[u8]) -> Vec<String> {
    let names = other_names(certificate).unwrap_or_default();
    let names = if names.is_empty() { common_name(certificate).into_iter().collect() } else { names };
    names.into_iter().map(|name| name.chars().filter(|c| !c.is_control()).collect()).take(NAMES_MAX).collect()
}

fn other_names(certificate: &[u8]) -> Option<Vec<String>> {
    let (_, extensions, _) = values(validity_on(certificate)?).find(|(tag, ..)| *tag == EXTENSIONS)?;
    let (_, extensions, _) = value(extensions)?;
    let of_names =
        |(_, extension, _): &(u8, &[u8], &[u8])| value(extension).is_some_and(|(_, id, _)| id == OTHER_NAMES);
    let (_, extension, _) = values(extensions).find(of_names)?;
    let (_, octets, _) = values(extension).find(|(tag, ..)| *tag == OCTETS)?;
    let (_, names, _) = value(octets)?;
    Some(values(names).filter_map(|(tag, name, _)| told(tag, name)).collect())
}

fn told(tag: u8, name: &[u8]) -> Option<String> {
    match tag {
        DNS_NAME => Some(String::from_utf8_lossy(name).into_owned()),
        IP_ADDRESS => {
            let four = <[u8; 4]>::try_from(name).map(|octets| Ipv4Addr::from(octets).to_string());
            four.or_else(|_| <[u8; 16]>::try_from(name).map(|octets| Ipv6Addr::from(octets).to_string())).ok()
        }
        _ => None,
    }
}

fn common_name(certificate: &[u8]) -> Option<String> {
    let (_, subject, _) = values(validity_on(certificate)?).nth(1)?;
    let attributes = values(subject).filter_map(|(_, set, _)| Some(value(set)?.1));
    let mut names = attributes.filter_map(|attribute| {
        let (_, id, rest) = value(attribute)?;
        (id == COMMON_NAME).then(|| value(rest)).flatten()
    });
    names.next().map(|(_, name, _)| String::from_utf8_lossy(name).into_owned())
}

/// What is signed, from its validity on: then its subject, its key, its extensions.
fn validity_on(certificate: &[u8]) -> Option<&[u8]> {
    let (tag, certificate, _) = value(certificate)?;
    let (inner_tag, to_be_signed, _) = value(certificate)?;
    if (tag, inner_tag) != (SEQUENCE, SEQUENCE) {
        return None;
    }
    let mut rest = to_be_signed;
    if let (VERSION, _, after) = value(rest)? {
        rest = after;
    }
    // Serial number, algorithm, issuer.
    for _ in 0..3 {
        rest = value(rest)?.2;
    }
    Some(rest)
}

/// One value after the other.
fn values(der: &[u8]) -> impl Iterator<Item = (u8, &[u8], &[u8])> {
    std::iter::successors(value(der), |(_, _, behind)| value(behind))
}

/// One value of DER: its tag, its content, and what stands behind it.
fn value(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (bytes.iter().fold(0, |length, &byte| length << 8 | usize::from(byte)), rest)
        }
        _ => return None,
    };
    let (content, behind) = rest.split_at_checked(length)?;
    Some((tag, content, behind))
}

/// UTCTime `YYMMDDHHMMSSZ`, or GeneralizedTime with the year in full.
fn time(tag: u8, text: &str) -> Option<i64> {
    let digits = text.strip_suffix('Z')?;
    let (year, rest) = match tag {
        0x17 => {
            let (year, rest) = digits.split_at_checked(2)?;
            let year: i64 = year.parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        0x18 => {
            let (year, rest) = digits.split_at_checked(4)?;
            (year.parse().ok()?, rest)
        }
        _ => return None,
    };
    let number = |at: usize| rest.get(at..at + 2)?.parse::<i64>().ok();
    let clock_s = number(4)? * 3600 + number(6)? * 60 + number(8)?;
    Some(days(year, number(0)?, number(2)?) * DAY_S + clock_s)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_for_whom_it_is() {
        let key = rcgen::KeyPair::generate().unwrap();
        let named = |names: &[&str], common_name: Option<&str>| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let mut params = rcgen::CertificateParams::new(names).unwrap();
            params.distinguished_name = rcgen::DistinguishedName::new();
            if let Some(name) = common_name {
                params.distinguished_name.push(rcgen::DnType::OrganizationName, "Example");
                params.distinguished_name.push(rcgen::DnType::CommonName, name);
            }
            let certificate = params.self_signed(&key).unwrap();
            for cut in 0..certificate.der().len() {
                let _ = super::names(&certificate.der()[..cut]);
            }
            super::names(certificate.der())
        };
        assert_eq!(named(&["flash.example", "10.0.0.5", "::1"], Some("other")), ["flash.example", "10.0.0.5", "::1"]);
        assert_eq!(named(&[], Some("flash.example")), ["flash.example"]);
        assert!(named(&[], None).is_empty() && super::names(b"-----BEGIN").is_empty());
    }

    #[test]
    fn a_certificates_end_is_read_and_what_is_none_is_not() {
        let key = rcgen::KeyPair::generate().unwrap();
        for (year, expected) in [(2030, "2030-05-06"), (2061, "2061-05-06")] {
            let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
            params.not_after = rcgen::date_time_ymd(year, 5, 6);
            let certificate = params.self_signed(&key).unwrap();
            let der: &[u8] = certificate.der();
            assert_eq!(expiry(der).map(date).as_deref(), Some(expected));
            for cut in 0..der.len().min(200) {
                assert_eq!(expiry(&der[..cut]), None, "{cut}");
            }
        }
        assert_eq!(expiry(b"-----BEGIN"), None);
    }
}
