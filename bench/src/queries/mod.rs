//! 100,000 workers on 10,000 hives, in the registry of the document and in ours: within this process, without a wire.

mod document;
mod ours;
mod reserving;

pub use document::Document;
pub use ours::Ours;
pub use reserving::Reservations;

use cli::simulate::Random;

/// Hives of the fleet.
pub const HIVES: usize = 10_000;
/// Workers of each hive, each with a GPU of its own.
pub const WORKERS: usize = 10;
/// Of so many workers one is idle.
const IDLE_OF: u64 = 5;
/// Models of the fleet, evenly spread.
const MODELS: u64 = 20;
/// Every run measures the same fleet.
const SEED: u64 = 0x5eed;

/// One worker of the fleet, as both sides are told of it.
pub struct Being {
    /// The number of its hive.
    pub hive: usize,
    /// Which of its hive's workers.
    pub slot: usize,
    /// Whether it does nothing.
    pub idle: bool,
    /// The number of its model.
    pub model: u64,
    /// Bytes in use on its GPU.
    pub vram_used: u64,
}

/// The fleet.
pub fn beings() -> Vec<Being> {
    let mut random = Random::new(SEED, 0);
    let being = |at: usize| Being {
        hive: at / WORKERS,
        slot: at % WORKERS,
        idle: random.below(IDLE_OF) == 0,
        model: random.below(MODELS),
        vram_used: random.below(24 << 20) << 10,
    };
    (0..HIVES * WORKERS).map(being).collect()
}
