//! The queen over real sockets: hives, watchers, schedulers and browsers as plain clients.

#[cfg(test)]
mod bounds;
#[cfg(test)]
mod columns;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod masks;
#[cfg(test)]
#[path = "../../src/fleet/feed/mirror.rs"]
mod mirror;
#[cfg(test)]
mod pages;
#[cfg(test)]
mod papers;
#[cfg(test)]
mod questions;
#[cfg(test)]
mod reservations;
#[cfg(test)]
mod secure;
#[cfg(test)]
mod telemetry;
#[cfg(test)]
mod tunnel;
#[cfg(test)]
mod watch;
