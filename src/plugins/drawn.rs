//! Chance that comes out the same again.

use xxhash_rust::xxh64::xxh64;

/// A number in 0..1 that the request id `id` and `seed` decide, evenly spread over the ids.
pub(super) fn drawn(id: &str, seed: u64) -> f64 {
    (xxh64(id.as_bytes(), seed) >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_spread_evenly_and_each_comes_out_the_same_again() {
        let all: Vec<f64> = (0..10_000).map(|id| drawn(&format!("id-{id}"), 7)).collect();
        assert!(all.iter().all(|drawn| (0.0..1.0).contains(drawn)));
        let below = all.iter().filter(|drawn| **drawn < 0.3).count();
        assert!((2_800..3_200).contains(&below), "{below}");
        assert!((drawn("id-0", 7) - all[0]).abs() < f64::EPSILON && (drawn("id-0", 8) - all[0]).abs() > 0.0);
    }
}
