//! Another config's endpoints in the place of those before: who stays keeps its id and its connections, who is new gets a free place, who is
//! gone is retired until nothing runs there. Decides nothing of turns.

use crate::backends::{Backends, ENDPOINTS_MAX, Place};
use flashlane_engine::EndpointId;
use std::sync::Arc;

/// What became of an endpoint, for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Added(Arc<str>),
    /// Its table is another one, or what a file holds that it names: turns that run there run on at the one before.
    Changed(Arc<str>),
    Removed(Arc<str>),
}

/// As many endpoints as there may be, with those that turns still run at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more than {ENDPOINTS_MAX} endpoints, with those of configs before that turns still run at: try again later")]
pub struct Full;

impl Backends {
    /// These endpoints with those of another config in their place. Both may be used: whoever still has this one finds the same there.
    ///
    /// # Errors
    /// There is no place left.
    pub fn succeeded_by(&self, next: Self) -> Result<(Self, Vec<Change>), Full> {
        let mut places: Vec<Place> = self.places.clone();
        let next_guards = Arc::new(next.guards.succeeding(&self.guards));
        let is_live = |place: &Place| !place.endpoint.retired;
        let mut free: Vec<usize> =
            (0..).zip(&places).filter(|(_, place)| place.backend.is_none()).map(|(at, _)| at).collect();
        free.reverse();
        let (stay, new): (Vec<_>, Vec<_>) = next
            .places
            .into_iter()
            .partition(|next| self.places.iter().any(|place| is_live(place) && place.made_of == next.made_of));
        let stays = |place: &Place| stay.iter().any(|stay| stay.made_of == place.made_of);
        let gone: Vec<Arc<str>> = places
            .iter_mut()
            .filter(|place| !place.endpoint.retired && !stays(place))
            .map(|place| {
                place.endpoint.retired = true;
                Arc::clone(&place.endpoint.name)
            })
            .collect();
        let mut changes = Vec::new();
        for place in new {
            let name = Arc::clone(&place.endpoint.name);
            match free.pop() {
                Some(at) => places.get_mut(at).into_iter().for_each(|empty| *empty = place.clone()),
                None if places.len() < ENDPOINTS_MAX => places.push(place),
                None => return Err(Full),
            }
            changes.push(if gone.contains(&name) { Change::Changed(name) } else { Change::Added(name) });
        }
        let is_back = |name: &Arc<str>| changes.contains(&Change::Changed(Arc::clone(name)));
        let removed: Vec<_> = gone.into_iter().filter(|name| !is_back(name)).map(Change::Removed).collect();
        changes.extend(removed);
        Ok((Self { places, guards: next_guards }, changes))
    }

    /// Retired endpoints that still have connections.
    pub fn retired(&self) -> impl Iterator<Item = EndpointId> {
        self.open_endpoints().filter(|(_, endpoint)| endpoint.retired).map(|(id, _)| id)
    }

    /// The same without the connections of these: nothing runs there.
    #[must_use]
    pub fn without(&self, idle: &[EndpointId]) -> Self {
        let mut places = self.places.clone();
        for id in idle {
            if let Some(place) = places.get_mut(usize::from(id.0)).filter(|place| place.endpoint.retired) {
                place.backend = None;
            }
        }
        Self { places, guards: Arc::clone(&self.guards) }
    }

    /// The ids that are another endpoint's here than they were before.
    pub fn other_than<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = EndpointId> + 'a {
        let is_other = |at: usize, place: &Place| {
            before.places.get(at).is_none_or(|before: &Place| !Arc::ptr_eq(&before.made_of, &place.made_of))
        };
        let others = (0u16..).zip(&self.places).filter(move |(at, place)| is_other(usize::from(*at), place));
        others.map(|(at, _)| EndpointId(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{EndpointConfig, Kind, Tier};
    use flashlane_engine::Endpoint;

    fn config(name: &str, rate: u32) -> EndpointConfig {
        let config = EndpointConfig::new(name, Tier::Latency, Kind::Simulator);
        EndpointConfig { tokens_per_second: Some(rate), ..config }
    }

    fn backends(configs: &[EndpointConfig]) -> Backends {
        Backends::new(configs).unwrap()
    }

    /// Name, whether it is retired, and whether it has connections, by id.
    fn table(backends: &Backends) -> Vec<(&str, bool, bool)> {
        let row = |place: &'_ Place| (place.endpoint.retired, place.backend.is_some());
        let names = backends.endpoints().map(|endpoint: &Endpoint| &*endpoint.name);
        names.zip(backends.places.iter().map(row)).map(|(name, (retired, open))| (name, retired, open)).collect()
    }

    fn same(a: &Backends, b: &Backends, at: usize) -> bool {
        let backend = |of: &Backends| of.places[at].backend.clone().unwrap();
        Arc::ptr_eq(&backend(a), &backend(b))
    }

    #[test]
    fn who_stays_keeps_id_and_connections_wherever_its_table_stands() {
        let first = backends(&[config("a", 1), config("b", 1)]);
        let (second, changes) =
            first.succeeded_by(backends(&[config("c", 1), config("b", 1), config("a", 1)])).unwrap();
        assert_eq!(table(&second), [("a", false, true), ("b", false, true), ("c", false, true)]);
        assert!(same(&first, &second, 0) && same(&first, &second, 1));
        assert_eq!(changes, [Change::Added("c".into())]);
        assert_eq!(second.other_than(&first).collect::<Vec<_>>(), [EndpointId(2)]);
        let (third, changes) =
            second.succeeded_by(backends(&[config("a", 1), config("b", 1), config("c", 1)])).unwrap();
        assert!(changes.is_empty() && third.other_than(&second).next().is_none());
    }

    #[test]
    fn who_changes_leaves_its_place_when_nothing_runs_there_and_not_before() {
        let first = backends(&[config("a", 1), config("b", 1)]);
        let (second, changes) = first.succeeded_by(backends(&[config("a", 2)])).unwrap();
        assert_eq!(changes, [Change::Changed("a".into()), Change::Removed("b".into())]);
        assert_eq!(table(&second), [("a", true, true), ("b", true, true), ("a", false, true)]);
        assert!(same(&first, &second, 0), "turns that run there run on");
        assert_eq!(second.retired().collect::<Vec<_>>(), [EndpointId(0), EndpointId(1)]);
        // Nothing runs at `b`; who is not retired is left alone.
        let second = second.without(&[EndpointId(1), EndpointId(2)]);
        assert_eq!(table(&second), [("a", true, true), ("b", true, false), ("a", false, true)]);
        let (third, changes) =
            second.succeeded_by(backends(&[config("a", 2), config("d", 1), config("e", 1)])).unwrap();
        assert_eq!(changes, [Change::Added("d".into()), Change::Added("e".into())]);
        assert_eq!(
            table(&third),
            [("a", true, true), ("d", false, true), ("a", false, true), ("e", false, true)],
            "a place that was left is another's"
        );
        assert_eq!(third.other_than(&second).collect::<Vec<_>>(), [EndpointId(1), EndpointId(3)]);
    }

    #[test]
    fn what_a_file_holds_is_part_of_who_names_it() {
        let path = std::env::temp_dir().join(format!("flashlane-succession-{}", std::process::id()));
        let keyed = EndpointConfig {
            base_url: Some("http://127.0.0.1:9/v1".to_owned()),
            api_key_file: Some(path.clone()),
            ..EndpointConfig::new("keyed", Tier::Latency, Kind::OpenAi)
        };
        let read = |key: &str| {
            std::fs::write(&path, key).unwrap();
            backends(std::slice::from_ref(&keyed))
        };
        let first = read("one");
        let (same_key, changes) = first.succeeded_by(read("one")).unwrap();
        assert!(changes.is_empty());
        let (_, changes) = same_key.succeeded_by(read("two")).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(changes, [Change::Changed("keyed".into())]);
    }

    #[test]
    fn there_is_a_bound_that_the_retired_count_to() {
        let mut backends_now = backends(&[config("a", 1)]);
        for rate in 2..1025 {
            backends_now = backends_now.succeeded_by(backends(&[config("a", rate)])).unwrap().0;
        }
        let next = || backends(&[config("a", 2000)]);
        assert_eq!(backends_now.succeeded_by(next()).err(), Some(Full));
        assert!(backends_now.without(&[EndpointId(7)]).succeeded_by(next()).is_ok());
    }
}
