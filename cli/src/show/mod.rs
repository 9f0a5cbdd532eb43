//! How answers are printed.

pub mod json;
pub mod reservations;
pub mod table;
pub mod units;
pub mod workers;
