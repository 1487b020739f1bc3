//! Who is measured: the engine itself, and each gateway before it, in every way that it answers to.

use super::child::Serve;
use super::clock::Clock;
use super::connection::Trust;
use super::load::{self, Aim};
use super::process::Process;
use super::target::{Gateway, Place, Protocol};
use super::upstream::Upstream;
use super::{Args, Error};

/// A gateway, and one aim for each protocol that it speaks.
pub struct Subject {
    pub name: String,
    pub aims: Vec<Aim>,
}

/// All that are asked for; the engine without a gateway is the first.
///
/// # Errors
/// When one of them speaks none of the protocols.
pub fn all(args: &Args, own: Option<&Serve>, upstream: &Upstream, clock: Clock) -> Result<Vec<Subject>, Error> {
    let trust = args.ca.as_deref().map(Trust::load).transpose()?;
    let probe = |gateway: &Gateway, pid| {
        let place = Place::of(&gateway.address, trust.as_ref())?;
        let (mut aims, mut first) = (Vec::new(), None);
        for &protocol in &args.protocol {
            let aim = Aim { place: place.clone(), protocol, process: Process(pid) };
            match load::probe(&aim, upstream, clock) {
                Ok(()) => aims.push(aim),
                Err(error) => first = first.or(Some(error)),
            }
        }
        let name = gateway.name.clone();
        match first {
            Some(source) if aims.is_empty() => Err(Error::Silent { name, source: Box::new(source) }),
            _ => Ok(Subject { name, aims }),
        }
    };
    let url = format!("http://{}", upstream.address);
    let direct = Gateway { name: "direct".to_owned(), address: url.parse().map_err(|_| Error::Tls { url })? };
    let mut subjects = Vec::new();
    match probe(&direct, None) {
        Ok(direct) => subjects.push(direct),
        // The engine has no WebSocket; nothing else keeps it from answering.
        Err(Error::Silent { .. }) => {}
        Err(other) => return Err(other),
    }
    if let Some(own) = own {
        subjects.push(probe(&own.gateway, Some(own.pid()))?);
    }
    let pids = args.pid.iter().copied().map(Some).chain(std::iter::repeat(None));
    for (gateway, pid) in args.url.iter().zip(pids) {
        match probe(gateway, pid) {
            // Where ways were chosen, not everybody has one of them.
            Err(Error::Silent { .. }) if args.protocol.len() < Protocol::ALL.len() => {}
            probed => subjects.push(probed?),
        }
    }
    Ok(subjects)
}
