//! The fleets that are played, and how they are asked: the large one in virtual time, and a small one that real sockets can carry.
//! All paces and sizes are chosen; none is measured on hardware or on users.

use super::engine::{GpuPace, Pace, WaferPace};
use super::workload::{Spread, Workload};
use flashlane_engine::admission::limit::Limits;
use flashlane_engine::admission::{PerTier, Queueing, Settings};
use flashlane_engine::{Endpoint, Fleet, Route, Tier};
use std::num::NonZeroU32;
use std::sync::Arc;

/// A fleet, its settings, and who asks it.
#[derive(Debug, Clone)]
pub struct Scene {
    pub wafers: usize,
    pub wafer: WaferPace,
    pub gpus: usize,
    pub gpu: GpuPace,
    pub settings: Settings,
    pub workload: Workload,
}

/// A route, by what it shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    Spill,
    WaferAlone,
    GpuAlone,
}

impl Policy {
    pub const ALL: [Self; 3] = [Self::Spill, Self::WaferAlone, Self::GpuAlone];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Spill => "latency-first with spill",
            Self::WaferAlone => "wafer alone",
            Self::GpuAlone => "GPU alone",
        }
    }

    #[must_use]
    pub fn route(self) -> Route {
        match self {
            Self::Spill => Route::LatencyFirst,
            Self::WaferAlone => Route::LatencyOnly,
            Self::GpuAlone => Route::ThroughputOnly,
        }
    }
}

impl Scene {
    /// One wafer and eight GPU servers; 10,000 coding agents.
    #[must_use]
    pub fn large() -> Self {
        let queue = Queueing {
            concurrency_max: NonZeroU32::new(16),
            concurrency_min: NonZeroU32::new(4).unwrap_or(NonZeroU32::MIN),
            ..Queueing::default()
        };
        Self {
            wafers: 1,
            wafer: WaferPace {
                slots: 8,
                queue_max: 8,
                first_token_us: 30_000,
                prefill_tokens_per_s: 100_000,
                tokens_per_s: 1_500,
                // Five minutes' worth: as long as such services promise to keep a prompt.
                cache_tokens: 64_000_000,
            },
            gpus: 8,
            gpu: GpuPace {
                slots: 64,
                begin_us: 100_000,
                step_us: 15_000,
                step_us_per_turn: 250,
                prefill_tokens_per_s: 60_000,
                prefill_tokens_max: 4_096,
                cache_tokens: 4_000_000,
            },
            settings: settings(queue),
            workload: Workload {
                sessions: 10_000,
                keys: 6,
                think_ms_mean: 1_000_000.0,
                task_turns_mean: 8.0,
                pause_ms: Spread { median: 1_000.0, sigma: 1.0, max: 60_000.0 },
                input_tokens: Spread { median: 400.0, sigma: 1.2, max: 20_000.0 },
                output_tokens: Spread { median: 120.0, sigma: 1.0, max: 8_000.0 },
                shared_tokens: 8_000,
                kinds: 4,
                own_tokens_min: 2_000,
                own_tokens_max: 40_000,
                forgets: false,
            },
        }
    }

    /// One wafer and two GPU servers, all of them slow, and so few turns a second that a busy machine carries them without being
    /// noticed: a first token takes some tenths of a second.
    #[must_use]
    pub fn small() -> Self {
        let queue = Queueing {
            concurrency_max: NonZeroU32::new(8),
            concurrency_min: NonZeroU32::new(3).unwrap_or(NonZeroU32::MIN),
            ..Queueing::default()
        };
        Self {
            wafers: 1,
            wafer: WaferPace {
                slots: 4,
                queue_max: 2,
                first_token_us: 150_000,
                prefill_tokens_per_s: 2_000,
                tokens_per_s: 100,
                cache_tokens: 20_000,
            },
            gpus: 2,
            gpu: GpuPace {
                slots: 16,
                begin_us: 0,
                step_us: 50_000,
                step_us_per_turn: 5_000,
                prefill_tokens_per_s: 2_000,
                prefill_tokens_max: 256,
                cache_tokens: 30_000,
            },
            settings: settings(queue),
            workload: Workload {
                sessions: 40,
                keys: 3,
                think_ms_mean: 2_000.0,
                task_turns_mean: 4.0,
                pause_ms: Spread { median: 500.0, sigma: 0.7, max: 3_000.0 },
                input_tokens: Spread { median: 60.0, sigma: 0.7, max: 400.0 },
                output_tokens: Spread { median: 25.0, sigma: 0.6, max: 100.0 },
                shared_tokens: 200,
                kinds: 2,
                own_tokens_min: 100,
                own_tokens_max: 1_500,
                forgets: false,
            },
        }
    }

    /// As the gateway knows it; the wafers come first.
    #[must_use]
    pub fn fleet(&self, route: Route) -> Arc<Fleet> {
        let mut fleet = crate::fleet();
        let template = std::mem::take(&mut fleet.endpoints);
        let wafers = std::iter::repeat_n(Tier::Latency, self.wafers);
        for tier in wafers.chain(std::iter::repeat_n(Tier::Throughput, self.gpus)) {
            fleet.endpoints.extend(template.iter().cloned().map(|endpoint| Endpoint { tier, ..endpoint }));
        }
        fleet.models.iter_mut().for_each(|model| model.route = route);
        Arc::new(fleet)
    }

    /// Of each endpoint.
    #[must_use]
    pub fn paces(&self) -> Vec<Pace> {
        let wafers = std::iter::repeat_n(Pace::Wafer(self.wafer), self.wafers);
        wafers.chain(std::iter::repeat_n(Pace::Gpu(self.gpu), self.gpus)).collect()
    }
}

/// Limits that nobody reaches: what running turns reserve is counted, and must come to nothing.
fn settings(latency: Queueing) -> Settings {
    let limits = Limits { tokens_per_minute: NonZeroU32::new(4_000_000_000), ..Limits::default() };
    Settings {
        limits: PerTier { latency: limits, ..PerTier::default() },
        queue: PerTier { latency, ..PerTier::default() },
        ..Settings::default()
    }
}
