//! Counts and measurements: the pieces that the programs in `bin` share.

pub mod textbook;
