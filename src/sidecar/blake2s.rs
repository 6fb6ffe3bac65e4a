//! BLAKE2s-256 without a key (RFC 7693): prefill and decode servers of MoRI-IO meet at the rank that it gives.

const IV: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

const SIGMA: [[usize; 16]; 10] = [
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
    [14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3],
    [11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4],
    [7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8],
    [9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13],
    [2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9],
    [12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11],
    [13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10],
    [6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5],
    [10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0],
];

/// Columns, then diagonals.
const MIXES: [[usize; 4]; 8] = [
    [0, 4, 8, 12],
    [1, 5, 9, 13],
    [2, 6, 10, 14],
    [3, 7, 11, 15],
    [0, 5, 10, 15],
    [1, 6, 11, 12],
    [2, 7, 8, 13],
    [3, 4, 9, 14],
];

/// The hash of `input`.
pub(super) fn blake2s(input: &[u8]) -> [u8; 32] {
    let mut state = IV;
    state[0] ^= 0x0101_0020;
    let mut done = 0_u64;
    let blocks = input.len().div_ceil(64).max(1);
    for index in 0..blocks {
        let part = input.get(index * 64..(index * 64 + 64).min(input.len())).unwrap_or_default();
        let mut block = [0; 64];
        for (to, from) in block.iter_mut().zip(part) {
            *to = *from;
        }
        done += part.len() as u64;
        compress(&mut state, &block, done, index + 1 == blocks);
    }
    let mut hash = [0; 32];
    for (bytes, word) in hash.chunks_exact_mut(4).zip(state) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    hash
}

fn compress(state: &mut [u32; 8], block: &[u8; 64], done: u64, last: bool) {
    let mut words = [0_u32; 16];
    for (word, bytes) in words.iter_mut().zip(block.chunks_exact(4)) {
        *word = bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u32::from(*byte));
    }
    let mut v = [0_u32; 16];
    v[..8].copy_from_slice(state);
    v[8..].copy_from_slice(&IV);
    v[12] ^= done as u32;
    v[13] ^= (done >> 32) as u32;
    if last {
        v[14] = !v[14];
    }
    for order in SIGMA {
        for (step, [a, b, c, d]) in MIXES.into_iter().enumerate() {
            let (x, y) = (words[order[2 * step]], words[order[2 * step + 1]]);
            v[a] = v[a].wrapping_add(v[b]).wrapping_add(x);
            v[d] = (v[d] ^ v[a]).rotate_right(16);
            v[c] = v[c].wrapping_add(v[d]);
            v[b] = (v[b] ^ v[c]).rotate_right(12);
            v[a] = v[a].wrapping_add(v[b]).wrapping_add(y);
            v[d] = (v[d] ^ v[a]).rotate_right(8);
            v[c] = v[c].wrapping_add(v[d]);
            v[b] = (v[b] ^ v[c]).rotate_right(7);
        }
    }
    for (index, word) in state.iter_mut().enumerate() {
        *word ^= v[index] ^ v[index + 8];
    }
}

/// The rank among `size` at which a transfer of this name happens: the first 8 bytes of the hash, big-endian, modulo
/// the size.
pub(super) fn rank_of(name: &str, size: u32) -> u32 {
    let hash = blake2s(name.as_bytes());
    let number = hash.iter().take(8).fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
    if size < 2 { 0 } else { (number % u64::from(size)) as u32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(input: &[u8]) -> String {
        blake2s(input).iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
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
    fn a_rank_is_below_the_size() {
        assert_eq!(rank_of("x", 1), 0);
        assert_eq!(rank_of("x", 0), 0);
        assert!((0..100).all(|name| rank_of(&name.to_string(), 8) < 8));
    }
}
