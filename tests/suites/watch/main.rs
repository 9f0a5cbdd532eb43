//! Watch and staleness with the real binary: half-open links, queens that stand still, restart or are several.
// Everything in this file is a test or a part of one.
#![allow(clippy::unwrap_used)]

#[cfg(test)]
mod links;
#[cfg(test)]
mod pauses;
#[cfg(test)]
mod queens;
