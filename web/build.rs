//! Rebuilds the crate when the dashboard was built anew.

fn main() {
    println!("cargo:rerun-if-changed=dist");
}
