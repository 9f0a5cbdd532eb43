//! Hives called through the queen: templates, logs, stops, deadlines, and what happens when either end goes away.
// Everything here is a test or a part of one.
#![allow(clippy::unwrap_used)]

mod calls;
mod place;
mod verbs;
