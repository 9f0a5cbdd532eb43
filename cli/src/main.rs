//! The binary `rbee`.

fn main() {}
