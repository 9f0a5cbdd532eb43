//! The hive's way to talk: to the queens over `uplink` and `tunnel`, to this machine over the unix socket. `services` is
//! what it answers.

pub mod grants;
pub mod services;
pub mod socket;
pub mod tunnel;
pub mod uplink;
pub mod workers;
