//! Watch and staleness over real sockets: slow readers, silent hives, several queens, and the end.

#[cfg(test)]
// Shared with the tests in `../rpc`, which use more of it.
#[allow(dead_code)]
#[path = "../rpc/harness.rs"]
mod harness;
#[cfg(test)]
mod heart;
#[cfg(test)]
// Shared with the tests in `/tests`, which use more of it.
#[allow(dead_code, unused_imports)]
#[path = "../../../tests/harness/histories/mod.rs"]
mod histories;
#[cfg(test)]
#[allow(dead_code)]
#[path = "../../src/fleet/feed/mirror.rs"]
mod mirror;
#[cfg(test)]
mod recorded;
#[cfg(test)]
mod several;
#[cfg(test)]
mod slow;
#[cfg(test)]
mod stale;
#[cfg(test)]
mod stop;

/// Those that measure take turns.
#[cfg(test)]
static MEASURING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
