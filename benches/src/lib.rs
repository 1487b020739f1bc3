//! Counts and measurements.
