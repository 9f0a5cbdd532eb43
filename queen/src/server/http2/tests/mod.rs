//! A connection against peers that know the protocol, peers that break it, and a library that others wrote.

mod abuse;
mod flow;
mod lane;
mod ours;
mod peer;
mod theirs;
