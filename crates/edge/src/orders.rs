//! What operators have said since the start, and no config says: endpoints that are cordoned, drained or weighed, limits that are patched. For
//! the process that takes this one's place, and for the log of one that ends. Knows nothing of how they get there.

use crate::revised::{revised, told};
use crate::state::State;
use flashlane_engine::Tier;
use flashlane_engine::admission::Terms;
use flashlane_engine::router::{Order, WEIGHT_MAX};
use flashlane_telemetry::log;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;

/// As many as there are endpoints and tiers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Orders {
    /// By the endpoint's name.
    pub endpoints: BTreeMap<String, Order>,
    /// By the tier's name.
    pub limits: BTreeMap<String, Patched>,
}

/// What a tier holds its turns to, where that is not what the config said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Patched {
    pub set: Terms,
    pub config: Terms,
}

impl Orders {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.endpoints.is_empty() && self.limits.is_empty()
    }
}

/// `endpoint gpu-2: draining, weight 3; latency: queue.concurrency_max none -> 32`.
impl fmt::Display for Orders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let endpoints = self.endpoints.iter().map(|(name, order)| {
            let weight = order.weight.map(|weight| format!(", weight {weight}")).unwrap_or_default();
            format!("endpoint {name}: {}{weight}", order.duty.name())
        });
        let limits = self.limits.iter().map(|(tier, Patched { set, config })| format!("{tier}: {}", told(config, set)));
        f.write_str(&endpoints.chain(limits).collect::<Vec<_>>().join("; "))
    }
}

impl State {
    /// What holds now, and is not the config's.
    #[must_use]
    pub fn orders(&self) -> Orders {
        let current = self.current();
        let endpoints = current.shared.fleet.all_live().map(|(id, endpoint)| (&endpoint.name, self.desk.order(id)));
        let limits =
            Tier::ALL.map(|tier| (tier, Patched { set: self.desk.terms(tier), config: current.admission.of(tier) }));
        Orders {
            endpoints: endpoints
                .filter(|(_, order)| *order != Order::default())
                .map(|(name, order)| (name.to_string(), order))
                .collect(),
            limits: limits
                .into_iter()
                .filter(|(_, Patched { set, config })| set != config)
                .map(|(tier, patched)| (tier.name().to_owned(), patched))
                .collect(),
        }
    }

    /// Goes on with those of another process. As after a reload: of limits, what this config says otherwise than that process's did holds.
    pub fn obey(&self, orders: Orders) {
        let (current, now) = (self.current(), self.clock.now());
        for (name, order) in orders.endpoints {
            let Some((id, _)) = current.shared.fleet.all_live().find(|(_, endpoint)| *endpoint.name == *name) else {
                tracing::warn!(endpoint = name, "an order is forgotten: its endpoint is not in this config");
                continue;
            };
            let order = Order { weight: order.weight.map(|weight| weight.min(WEIGHT_MAX)), ..order };
            let Ok(order) = self.desk.obey(id, |_| Ok::<_, Infallible>(order), now);
            log::ordered(&name, order);
        }
        for tier in Tier::ALL {
            let Some(Patched { set, config }) = orders.limits.get(tier.name()) else { continue };
            let configured = current.admission.of(tier);
            let terms = revised(set, config, &configured);
            let changed = told(&configured, &terms);
            let Ok((_, is_change)) = self.desk.adopt(tier, |_| Ok::<_, Infallible>(terms), now);
            if is_change {
                tracing::info!(tier = tier.name(), changed, "limits changed");
            }
        }
    }
}
