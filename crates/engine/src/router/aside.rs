//! What an endpoint has said of one model: that it does not have it (404), or that it takes nothing for so long (429 with a time). Turns of
//! that model go elsewhere meanwhile; those of others are none the wiser. Knows nothing of how well an endpoint is.

use super::health::Verdict;
use super::settings::Routing;
use crate::fleet::EndpointId;
use crate::time::Now;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The models that endpoints are left alone with for a while. Bounded by the config's endpoints and models.
#[derive(Debug)]
pub struct Asides {
    by_endpoint: BTreeMap<EndpointId, BTreeMap<Arc<str>, Aside>>,
    pause_ms_min: u64,
    pause_ms_max: u64,
}

#[derive(Debug, Clone, Copy)]
struct Aside {
    until_ns: u64,
    /// For how long each turn that tries it puts it aside: 0, where it said when it would take turns again.
    pause_ms: u64,
}

impl Asides {
    #[must_use]
    pub fn new(routing: &Routing) -> Self {
        let pause_ms_min = routing.breaker_pause_ms_min.max(1);
        Self {
            by_endpoint: BTreeMap::new(),
            pause_ms_min,
            pause_ms_max: routing.breaker_pause_ms_max.max(pause_ms_min),
        }
    }

    /// Other bounds from here on.
    pub fn adopt(&mut self, routing: &Routing) {
        let by_endpoint = std::mem::take(&mut self.by_endpoint);
        *self = Self { by_endpoint, ..Self::new(routing) };
    }

    /// Nothing is known of these endpoints.
    pub fn forget(&mut self, is_gone: impl Fn(EndpointId) -> bool) {
        self.by_endpoint.retain(|endpoint, _| !is_gone(*endpoint));
    }

    /// Until when turns of the model should go elsewhere.
    #[must_use]
    pub fn until(&self, endpoint: EndpointId, model: &str, now: Now) -> Option<u64> {
        // The usual case costs no search.
        if self.by_endpoint.is_empty() {
            return None;
        }
        let aside = self.by_endpoint.get(&endpoint)?.get(model)?;
        Some(aside.until_ns).filter(|until_ns| *until_ns > now.mono_ns)
    }

    /// A turn goes there: if it finds out whether the model is there by now, it is the only one for another pause.
    pub fn try_out(&mut self, endpoint: EndpointId, model: &str, now: Now) {
        let aside = self.by_endpoint.get_mut(&endpoint).and_then(|models| models.get_mut(model));
        if let Some(aside) = aside.filter(|aside| aside.pause_ms > 0) {
            aside.until_ns = now.after_ms(aside.pause_ms);
        }
    }

    /// How a turn of the model ended there.
    pub fn learn(&mut self, endpoint: EndpointId, model: &Arc<str>, verdict: Verdict, now: Now) {
        match verdict {
            Verdict::Served { .. } if self.by_endpoint.is_empty() => {}
            Verdict::Served { .. } => {
                self.by_endpoint.entry(endpoint).or_default().remove(model);
                self.by_endpoint.retain(|_, models| !models.is_empty());
            }
            Verdict::Absent => {
                let (min, max) = (self.pause_ms_min, self.pause_ms_max);
                let aside = self.aside(endpoint, model);
                aside.pause_ms = aside.pause_ms.saturating_mul(2).clamp(min, max);
                aside.until_ns = now.after_ms(aside.pause_ms);
            }
            Verdict::Refused { wait_ms: Some(wait_ms) } => {
                let until_ns = now.after_ms(wait_ms.min(self.pause_ms_max));
                *self.aside(endpoint, model) = Aside { until_ns, pause_ms: 0 };
            }
            Verdict::Refused { wait_ms: None } | Verdict::Failed | Verdict::Outrun { .. } | Verdict::Nothing => {}
        }
    }

    fn aside(&mut self, endpoint: EndpointId, model: &Arc<str>) -> &mut Aside {
        let models = self.by_endpoint.entry(endpoint).or_default();
        models.entry(Arc::clone(model)).or_insert(Aside { until_ns: 0, pause_ms: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::at;
    use super::*;

    const THERE: EndpointId = EndpointId(1);

    fn asides() -> Asides {
        Asides::new(&Routing { breaker_pause_ms_min: 1000, breaker_pause_ms_max: 4000, ..Routing::default() })
    }

    fn is_aside(asides: &Asides, model: &str, ms: u64) -> bool {
        asides.until(THERE, model, at(ms)).is_some()
    }

    #[test]
    fn a_model_that_is_not_there_is_tried_by_one_turn_in_each_pause() {
        let (mut asides, model) = (asides(), Arc::from("a"));
        let mut now_ms = 0;
        for pause_ms in [1000, 2000, 4000, 4000] {
            asides.learn(THERE, &model, Verdict::Absent, at(now_ms));
            assert!(is_aside(&asides, "a", now_ms + pause_ms - 1) && !is_aside(&asides, "a", now_ms + pause_ms));
            now_ms += pause_ms;
            asides.try_out(THERE, "a", at(now_ms));
            assert!(is_aside(&asides, "a", now_ms), "a second turn tries it");
        }
        assert!(!is_aside(&asides, "b", 0) && asides.until(EndpointId(0), "a", at(0)).is_none());
        asides.learn(THERE, &model, Verdict::Served { ttft_ns: None }, at(now_ms));
        assert!(!is_aside(&asides, "a", now_ms) && asides.by_endpoint.is_empty());
    }

    #[test]
    fn one_that_says_when_it_takes_turns_again_gets_none_before_and_all_after() {
        let (mut asides, model) = (asides(), Arc::from("a"));
        for (wait_ms, held_ms) in [(500, 500), (60_000, 4000)] {
            asides.learn(THERE, &model, Verdict::Refused { wait_ms: Some(wait_ms) }, at(0));
            assert!(is_aside(&asides, "a", held_ms - 1) && !is_aside(&asides, "a", held_ms));
            asides.try_out(THERE, "a", at(held_ms));
            assert!(!is_aside(&asides, "a", held_ms));
        }
        for verdict in [Verdict::Refused { wait_ms: None }, Verdict::Failed, Verdict::Nothing] {
            asides.learn(EndpointId(0), &model, verdict, at(0));
            assert!(asides.until(EndpointId(0), "a", at(0)).is_none());
        }
    }
}
