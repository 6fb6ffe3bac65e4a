//! The data-parallel rank at which the prefill and the decode server of MoRI-IO exchange a cache.

use blake2::{Blake2s256, Digest};

/// Returns the rank among `size` ranks at which the transfer `name` happens. It is the first 8 bytes of the BLAKE2s-256
/// hash of the name (RFC 7693), read as a big-endian number, modulo `size`. Every server computes the same rank from
/// the same name.
pub(super) fn rank_of(name: &str, size: u32) -> u32 {
    let hash = Blake2s256::digest(name);
    let number = hash.iter().take(8).fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
    if size < 2 { 0 } else { (number % u64::from(size)) as u32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(input: &[u8]) -> String {
        Blake2s256::digest(input).iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
    }

    /// RFC 7693, appendix B, and the reference implementation's hash of nothing; the longer one is that of Python's
    /// `hashlib`.
    #[test]
    fn hashes_are_those_of_the_standard() {
        assert_eq!(hex(b"abc"), "508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982");
        assert_eq!(hex(b""), "69217a3079908094e11121d042354a7c1f55b6482ca1a51e1b250dfd1ed0eef9");
        assert_eq!(hex(&[b'a'; 200]), LONG);
    }

    const LONG: &str = "2b033f9f5ba9cf20671da79e492f41545e673b562603945ffed09662fd92321a";

    #[test]
    fn ranks_are_those_of_the_standards_hash() {
        let long = "a".repeat(200);
        for (name, number) in
            [("abc", 0x508c_5e8c_327c_14e2_u64), ("", 0x6921_7a30_7990_8094), (&long, 0x2b03_3f9f_5ba9_cf20)]
        {
            for size in [2, 8, 1000, u32::MAX] {
                assert_eq!(u64::from(rank_of(name, size)), number % u64::from(size), "{name} of {size}");
            }
        }
    }

    #[test]
    fn a_rank_is_below_the_size() {
        assert_eq!(rank_of("x", 1), 0);
        assert_eq!(rank_of("x", 0), 0);
        assert!((0..100).all(|name| rank_of(&name.to_string(), 8) < 8));
    }
}
