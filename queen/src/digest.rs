//! A digest that every queen works out alike. Pure.

/// FNV-1a of 64 bits: the same on every machine and in every version, which the standard library's hashers are not.
#[derive(Debug, Clone, Copy)]
pub struct Digest(u64);

impl Digest {
    /// Of nothing.
    pub fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    /// The digest itself.
    pub fn value(self) -> u64 {
        self.0
    }

    /// Of two together, spread evenly over all numbers, which neither is by itself.
    pub fn mixed(self, other: u64) -> u64 {
        let both = self.0 ^ other;
        let mixed = (both ^ (both >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        let mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        mixed ^ (mixed >> 33)
    }

    fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    /// Adds a number.
    pub fn number(&mut self, number: u64) {
        self.bytes(&number.to_le_bytes());
    }

    /// With its length first, so that no two lists of texts read alike.
    pub fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.bytes(text.as_bytes());
    }
}
