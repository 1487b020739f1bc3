//! The binary `flashlane`.
fn main() {}
