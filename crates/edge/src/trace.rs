//! Which trace a request or a handshake belongs to, by its headers. Exports nothing, and samples nothing.

use crate::state::State;
use flashlane_engine::trace::{Parent, Tracing};
use http::HeaderMap;

/// None: turns are not traced here.
pub(crate) fn tracing(state: &State, headers: &HeaderMap) -> Option<Tracing> {
    let sample_percent = state.trace_sample_percent?;
    Some(Tracing { parent: parent(headers), sample_percent })
}

/// Two of the first header are none; of the second, all are one list.
fn parent(headers: &HeaderMap) -> Option<Parent> {
    let mut parents = headers.get_all("traceparent").iter();
    let (parent, None) = (parents.next()?, parents.next()) else { return None };
    let states: Vec<_> = headers.get_all("tracestate").iter().filter_map(|state| state.to_str().ok()).collect();
    let state = (!states.is_empty()).then(|| states.join(","));
    Parent::read(parent.to_str().ok()?, state.as_deref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn one_parent_is_read_with_all_of_its_state() {
        const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let mut headers = HeaderMap::new();
        assert_eq!(parent(&headers), None);
        headers.append("tracestate", HeaderValue::from_static("a=1"));
        headers.append("tracestate", HeaderValue::from_static("b=2"));
        headers.append("traceparent", HeaderValue::from_static(PARENT));
        assert_eq!(parent(&headers), Parent::read(PARENT, Some("a=1,b=2")));
        headers.append("traceparent", HeaderValue::from_static(PARENT));
        assert_eq!(parent(&headers), None);
    }
}
