//! The real binary, built for the tests of this crate.

fn main() {}
