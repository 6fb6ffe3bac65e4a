//! Keys of blocks. A key covers the key of the block before, the tokens, and everything else that identifies the block.
//!
//! The formula is that of the reference's `xxh64` algorithm: XXH64 of the key before (8 bytes, little-endian), the
//! tokens (4 bytes each, little-endian), and each extra (its length in 8 bytes, then its bytes). Keys never leave the
//! process, so nothing outside depends on the algorithm.

use xxhash_rust::xxh64::Xxh64;

use crate::request::TokenizedPrompt;

/// Most blocks of a prompt that have keys: a million tokens in blocks of 16.
const MAX_BLOCKS: usize = 1 << 16;

/// Makes the keys of one index.
#[derive(Clone, Copy, Debug)]
pub struct BlockKeys {
    seed: u64,
}

/// Keys of the whole blocks of a prompt, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PromptKeys(pub Vec<u64>);

impl BlockKeys {
    /// Keys that start from this text.
    pub fn new(seed: &str) -> Self {
        Self { seed: xxhash_rust::xxh64::xxh64(seed.as_bytes(), 0) }
    }

    /// The parent key of the first block of a prompt for this model or adapter.
    pub fn root(self, name: &str) -> u64 {
        Self::next(self.seed, &[], [name.as_bytes()])
    }

    /// The key of a block behind the block `parent`.
    pub fn next<'e>(parent: u64, tokens: &[u32], extras: impl IntoIterator<Item = &'e [u8]>) -> u64 {
        let mut hasher = Xxh64::new(0);
        hasher.update(&parent.to_le_bytes());
        for tokens in tokens.chunks(AT_ONCE) {
            let mut bytes = [0; AT_ONCE * 4];
            for (four, token) in bytes.chunks_exact_mut(4).zip(tokens) {
                four.copy_from_slice(&token.to_le_bytes());
            }
            hasher.update(bytes.get(..tokens.len() * 4).unwrap_or_default());
        }
        for extra in extras {
            hasher.update(&(extra.len() as u64).to_le_bytes());
            hasher.update(extra);
        }
        hasher.digest()
    }

    /// Keys of a prompt for `name`, which is an adapter or "". Blocks have `block_size` tokens. A media item belongs to
    /// each block that it touches, in the order of the items. The salt belongs to the first block, after the items. If
    /// a prompt has more than 65,536 blocks, only the first ones have keys.
    pub fn of_prompt(self, name: &str, prompt: &TokenizedPrompt, salt: &str, block_size: u32) -> PromptKeys {
        let size = (block_size as usize).max(1);
        let mut parent = self.root(name);
        let mut media = prompt.media.as_slice();
        let keys = prompt.ids.chunks_exact(size).take(MAX_BLOCKS).enumerate().map(|(index, tokens)| {
            let (start, end) = (index * size, (index + 1) * size);
            let ends = |span: &crate::request::MediaSpan| {
                (span.offset as usize).saturating_add(span.length as usize)
            };
            // Items are in order, and those that end before this block concern no later one.
            while media.first().is_some_and(|span| ends(span) <= start) {
                media = media.get(1..).unwrap_or_default();
            }
            let touching = media
                .iter()
                .take_while(|span| (span.offset as usize) < end)
                .filter(|span| ends(span) > start)
                .map(|span| span.hash.as_bytes());
            let salt = (index == 0 && !salt.is_empty()).then_some(salt.as_bytes());
            parent = Self::next(parent, tokens, touching.chain(salt));
            parent
        });
        PromptKeys(keys.collect())
    }
}

/// Tokens that are converted to bytes at once.
const AT_ONCE: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{MediaKind, MediaSpan};

    fn prompt(tokens: impl IntoIterator<Item = u32>) -> TokenizedPrompt {
        TokenizedPrompt { ids: tokens.into_iter().collect(), media: Vec::new() }
    }

    #[test]
    fn the_published_keys_come_out() {
        for (seed, root, first, second) in [
            ("", 0xc90c_bf54_21a4_994b, 0xd514_60f1_ea95_8847, 0xece4_7350_a160_b095),
            ("42", 0x2c60_3108_d209_fa99, 0xac9f_fb17_38d1_0a48, 0x61af_3ec5_9df1_5c5e_u64),
        ] {
            let keys = BlockKeys::new(seed);
            assert_eq!(keys.root("m"), root, "{seed}");
            assert_eq!(keys.of_prompt("m", &prompt(1..=40), "", 16).0, [first, second], "{seed}");
        }
        let keys = BlockKeys::new("");
        assert_eq!(keys.of_prompt("m", &prompt(1..=16), "abc", 16).0, [0x6f9b_6a68_bc26_366b]);
    }

    #[test]
    fn a_media_item_belongs_to_each_block_that_it_touches() {
        let span = |hash: &str, offset, length| MediaSpan {
            kind: MediaKind::Image,
            hash: hash.into(),
            offset,
            length,
        };
        let plain = prompt([7; 64]);
        let with = |media| TokenizedPrompt { media, ..plain.clone() };
        let keys = |prompt: &TokenizedPrompt| BlockKeys::new("").of_prompt("", prompt, "", 16).0;
        let one = keys(&with(vec![span("a", 20, 20)]));
        assert_eq!(one[0], keys(&plain)[0]);
        assert_ne!(one[1], keys(&plain)[1]);
        let expected = BlockKeys::next(one[0], &[7; 16], [&b"a"[..]]);
        assert_eq!(one[1], expected);
        assert_eq!(one[2], BlockKeys::next(expected, &[7; 16], [&b"a"[..]]));
        assert_eq!(one[3], BlockKeys::next(one[2], &[7; 16], []));
        // Odd spans are no trouble.
        keys(&with(vec![span("a", 60, u32::MAX), span("b", 1000, 5), span("c", 0, 0)]));
    }

    #[test]
    fn a_prompt_below_a_block_has_no_keys() {
        assert_eq!(BlockKeys::new("").of_prompt("", &prompt(0..15), "s", 16), PromptKeys::default());
    }
}
