//! What keeps clients from choosing where their hashes lie.

/// A permutation of hashes that nobody can predict without it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Secret {
    mask: u64,
    /// Odd, so that nothing is lost.
    factor: u64,
}

impl Secret {
    /// The secret that follows from `seed`, which should be one.
    pub(super) fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        Self { mask: rng.u64(..), factor: rng.u64(..) | 1 }
    }

    /// Where a hash goes. High bits decide about places, so they go through last.
    pub(super) fn mix(self, hash: u64) -> u64 {
        let spread = (hash ^ self.mask).wrapping_mul(self.factor);
        (spread ^ (spread >> 32)).wrapping_mul(self.factor)
    }
}
