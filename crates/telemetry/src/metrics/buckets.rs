//! The bounds of every histogram, in one place, so that families of one kind can be laid over each other.

/// Seconds from a turn's first byte to its first token: from a cached wafer's to a cold GPU's.
pub(super) const TTFT_SECONDS: &[f64] = &[
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
    10.0, 30.0, 60.0,
];
/// Seconds a whole turn takes.
pub(super) const TURN_SECONDS: &[f64] =
    &[0.000_1, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0];
/// Seconds of the gateway's own time in a turn: microseconds, when all is well.
pub(super) const OVERHEAD_SECONDS: &[f64] = &[
    0.000_001,
    0.000_002_5,
    0.000_005,
    0.000_01,
    0.000_025,
    0.000_05,
    0.000_1,
    0.000_25,
    0.000_5,
    0.001,
    0.002_5,
    0.005,
    0.01,
    0.1,
    1.0,
];
/// Seconds between two output tokens: 20,000 tokens/s down to 1.
pub(super) const TPOT_SECONDS: &[f64] =
    &[0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0];

/// Seconds of one stage of a turn: from the microseconds of our own to a long answer.
pub(super) const STAGE_SECONDS: &[f64] =
    &[0.000_01, 0.000_05, 0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0, 600.0];

/// Seconds that the store takes to keep a response: memory, or a flush of the disk, or a disk that fails.
pub(super) const COMMIT_SECONDS: &[f64] =
    &[0.000_01, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0];

/// Lanes of a connection: the one without a name, and up to 16 that have one.
pub(super) const LANES: &[f64] = &[1.0, 2.0, 3.0, 5.0, 9.0, 17.0];
