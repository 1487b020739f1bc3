//! Limits that the config changes where operators may have changed them since: field by field, what the config changed holds as it says now,
//! and all others hold as they were set. Knows nothing of what the fields mean.

use flashlane_engine::admission::Terms;
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// `terms` hold now, and the config says `after` where it said `before`. Where the fields of both cannot be held to together, the config's hold.
pub(crate) fn revised(terms: &Terms, before: &Terms, after: &Terms) -> Terms {
    let merged = merged(terms, before, after).and_then(|merged| serde_json::from_value::<Terms>(merged).ok());
    merged.filter(|terms| terms.check().is_ok()).unwrap_or_else(|| after.clone())
}

fn merged(terms: &Terms, before: &Terms, after: &Terms) -> Option<Value> {
    let [mut terms, before, after] =
        [serde_json::to_value(terms).ok()?, serde_json::to_value(before).ok()?, serde_json::to_value(after).ok()?];
    for (part, fields) in terms.as_object_mut()? {
        let of = |side: &'_ Value| side.get(part).and_then(Value::as_object).cloned().unwrap_or_default();
        let (before, after) = (of(&before), of(&after));
        let fields = fields.as_object_mut()?;
        for field in before.keys().chain(after.keys()) {
            match (before.get(field), after.get(field)) {
                (old, new) if old == new => {}
                (_, Some(new)) => drop(fields.insert(field.clone(), new.clone())),
                (_, None) => drop(fields.remove(field)),
            }
        }
    }
    Some(terms)
}

/// The fields that differ: `queue.concurrency_max none -> 32, limits.burst_ms 60000 -> 1000`.
pub(crate) fn told(before: &Terms, after: &Terms) -> String {
    let [before, after] = [before, after].map(|terms| serde_json::to_value(terms).unwrap_or_default());
    let mut told = Vec::new();
    for part in ["limits", "queue"] {
        let of = |side: &'_ Value| side.get(part).and_then(Value::as_object).cloned().unwrap_or_default();
        let (before, after) = (of(&before), of(&after));
        let fields: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        for field in fields {
            let value = |side: &Map<String, Value>| match side.get(field) {
                None | Some(Value::Null) => "none".to_owned(),
                Some(value) => value.to_string(),
            };
            let (before, after) = (value(&before), value(&after));
            told.extend((before != after).then(|| format!("{part}.{field} {before} -> {after}")));
        }
    }
    told.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use flashlane_engine::admission::Queueing;
    use flashlane_engine::admission::limit::Limits;
    use std::num::NonZeroU32;

    fn terms(requests: Option<u32>, wait_ms_max: u64, slots: Option<u32>) -> Terms {
        let limits = Limits { requests_per_minute: requests.and_then(NonZeroU32::new), ..Limits::default() };
        let queue = Queueing { wait_ms_max, concurrency_max: slots.and_then(NonZeroU32::new), ..Queueing::default() };
        Terms { limits, queue }
    }

    #[test]
    fn what_the_config_did_not_change_holds_as_it_was_set() {
        let (before, patched) = (terms(Some(10), 100, Some(4)), terms(Some(20), 100, None));
        assert_eq!(revised(&patched, &before, &before), patched);
        assert_eq!(revised(&patched, &before, &terms(Some(10), 300, Some(4))), terms(Some(20), 300, None));
    }

    #[test]
    fn what_differs_is_told_by_its_field() {
        let told = told(&terms(Some(10), 100, Some(4)), &terms(Some(20), 100, None));
        assert_eq!(told, "limits.requests_per_minute 10 -> 20, queue.concurrency_max 4 -> none");
    }

    #[test]
    fn what_it_changed_holds_as_it_says() {
        let (before, patched) = (terms(Some(10), 100, Some(4)), terms(Some(20), 100, None));
        assert_eq!(revised(&patched, &before, &terms(Some(11), 100, Some(5))), terms(Some(11), 100, Some(5)));
        assert_eq!(revised(&patched, &before, &terms(None, 100, Some(4))), terms(None, 100, None), "left out now");
    }

    #[test]
    fn what_cannot_be_held_to_together_is_the_configs() {
        let before = terms(None, 100, Some(4));
        let mut patched = before.clone();
        patched.queue.concurrency_min = NonZeroU32::new(4).unwrap();
        let after = terms(None, 100, Some(2));
        assert_eq!(revised(&patched, &before, &after), after);
    }
}
