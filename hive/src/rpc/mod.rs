//! The hive's way to talk: to the queens over `uplink`, to this machine over the unix socket.

pub mod grants;
pub mod socket;
pub mod uplink;
pub mod workers;
