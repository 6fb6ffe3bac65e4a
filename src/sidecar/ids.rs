//! The names that the sidecar makes up: for requests, transfers and rooms.

/// A source of random names.
#[derive(Clone, Debug)]
pub(super) struct Ids(fastrand::Rng);

impl Ids {
    /// A source with a random seed.
    pub(super) fn new() -> Self {
        Self(fastrand::Rng::new())
    }

    /// A source that makes the same names for the same seed.
    #[cfg(test)]
    pub(super) fn seeded(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    /// A random UUID (version 4 of RFC 9562).
    pub(super) fn uuid(&mut self) -> String {
        let bits = self.0.u128(..);
        let (high, low) = ((bits >> 64) as u64, bits as u64);
        format!(
            "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
            high >> 32,
            (high >> 16) & 0xffff,
            high & 0xfff,
            0x8000 | ((low >> 48) & 0x3fff),
            low & 0xffff_ffff_ffff
        )
    }

    /// The number of an SGLang room, from 1 to 2^63 - 1.
    pub(super) fn room(&mut self) -> u64 {
        self.0.u64(1..=i64::MAX as u64)
    }

    /// An index below `count`. It is 0 if `count` is 0 or 1.
    pub(super) fn index(&mut self, count: usize) -> usize {
        if count < 2 { 0 } else { self.0.usize(..count) }
    }
}

impl Default for Ids {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_has_its_version_and_variant() {
        let mut ids = Ids::seeded(1);
        for _ in 0..100 {
            let uuid = ids.uuid();
            let parts: Vec<usize> = uuid.split('-').map(str::len).collect();
            assert_eq!(parts, [8, 4, 4, 4, 12], "{uuid}");
            assert_eq!(&uuid[14..15], "4");
            assert!("89ab".contains(&uuid[19..20]), "{uuid}");
            assert!(ids.room() > 0);
        }
    }
}
