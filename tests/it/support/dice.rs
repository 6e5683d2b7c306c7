//! Chance that can be had again.

/// SplitMix64: enough for choosing faults, and the same everywhere.
#[derive(Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    /// The seed is printed: `SLIPSTREAM_CHAOS_SEED` sets it, to have the same again.
    pub(crate) fn take() -> Self {
        let seed = std::env::var("SLIPSTREAM_CHAOS_SEED").ok();
        let seed = seed.and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(|| std::process::id().into());
        println!("SLIPSTREAM_CHAOS_SEED={seed}");
        Self(seed)
    }

    /// One of 0 to `sides` - 1.
    pub(crate) fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % sides as u64) as usize
    }
}
