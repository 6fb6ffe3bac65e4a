//! Cutting a token stream into blocks and chaining their hashes, so that a block's hash stands for the whole prompt up
//! to its end.
//!
//! A chain starts with `XXH64(model ‖ salt)`. A block of tokens, each a little-endian `u32`, has the digest `d =
//! XXH64(tokens)` and the hash `XXH64(LE64(d) ‖ LE64(hash before))`; a shorter last block counts like a full one. All
//! seeds are 0.

use smallvec::SmallVec;
use xxhash_rust::xxh64::{Xxh64, xxh64};

/// Most blocks of one request, in all its prompts: four million tokens in blocks of 64. It holds where the
/// configuration sets no bound.
const MAX_REQUEST_BLOCKS: usize = 65_536;

/// Bytes of a token in the stream.
const TOKEN_BYTES: usize = 4;

/// Hashes of a request's blocks: one chain for each of its prompts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockHashes {
    hashes: Vec<u64>,
    /// Where the chains end.
    ends: SmallVec<[u32; 2]>,
    block_size: u32,
}

impl BlockHashes {
    /// Chains of ready hashes. For tests and for indexes that hash elsewhere.
    pub fn from_chains(block_size: u32, chains: &[&[u64]]) -> Self {
        let mut blocks = Self { block_size, ..Self::default() };
        for chain in chains {
            blocks.hashes.extend_from_slice(chain);
            blocks.ends.push(blocks.hashes.len() as u32);
        }
        blocks
    }

    /// The same, where they lie in one piece: `ends` says where each chain ends. Ends that are out of order or too large
    /// are cut to what there is; hashes behind the last end are left out.
    pub fn from_parts(block_size: u32, mut hashes: Vec<u64>, ends: impl IntoIterator<Item = u32>) -> Self {
        let mut last = 0;
        let ends: SmallVec<[u32; 2]> = ends
            .into_iter()
            .map(|end| {
                last = end.min(hashes.len() as u32).max(last);
                last
            })
            .collect();
        hashes.truncate(last as usize);
        Self { hashes, ends, block_size }
    }

    /// All hashes, chain after chain.
    pub fn hashes(&self) -> &[u64] {
        &self.hashes
    }

    /// Where the chains end in [`BlockHashes::hashes`].
    pub fn ends(&self) -> &[u32] {
        &self.ends
    }

    /// Tokens per block.
    pub fn block_size(&self) -> u32 {
        self.block_size
    }

    /// Number of blocks in all chains.
    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    /// True if there is no block: no prompt, or none that may be hashed.
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// The chains, each in prompt order.
    pub fn chains(&self) -> impl Iterator<Item = &[u64]> {
        let mut start = 0;
        self.ends.iter().filter_map(move |&end| {
            let chain = self.hashes.get(start..end as usize);
            start = end as usize;
            chain
        })
    }
}

/// Hashes a token stream block by block as it is written. Whole blocks inside one written slice are hashed where they
/// lie.
#[derive(Debug)]
pub struct BlockHasher {
    blocks: BlockHashes,
    block_bytes: usize,
    max_blocks: usize,
    /// Blocks that this chain may have: `max_blocks`, and no more than are left of all chains'.
    room: usize,
    seed: u64,
    /// Hash of the block before, or the seed.
    previous: u64,
    /// Blocks of this chain so far.
    in_chain: usize,
    /// Start of a block whose end has not been written yet.
    partial: Vec<u8>,
}

impl BlockHasher {
    /// A hasher for blocks of `block_size` tokens (at least 1), of which at most `max_blocks` are made per prompt.
    /// `expected_bytes` is what will be written, about.
    pub fn new(model: &str, salt: &str, block_size: u32, max_blocks: usize, expected_bytes: usize) -> Self {
        let mut seed = Xxh64::new(0);
        seed.update(model.as_bytes());
        seed.update(salt.as_bytes());
        let seed = seed.digest();
        let block_size = block_size.max(1);
        let block_bytes = block_size as usize * TOKEN_BYTES;
        let room = max_blocks.min(MAX_REQUEST_BLOCKS);
        let hashes = Vec::with_capacity((expected_bytes / block_bytes + 1).min(room));
        Self {
            blocks: BlockHashes { hashes, ends: SmallVec::new(), block_size },
            block_bytes,
            max_blocks,
            room,
            seed,
            previous: seed,
            in_chain: 0,
            partial: Vec::new(),
        }
    }

    /// True if this chain has all the blocks it may have; what else is written to it has no effect.
    pub fn is_full(&self) -> bool {
        self.in_chain >= self.room
    }

    /// Appends bytes to the stream.
    pub fn write(&mut self, mut bytes: &[u8]) {
        if !self.partial.is_empty() {
            let missing = self.block_bytes - self.partial.len();
            let Some((head, rest)) = bytes.split_at_checked(missing) else {
                self.partial.extend_from_slice(bytes);
                return;
            };
            self.partial.extend_from_slice(head);
            let partial = std::mem::take(&mut self.partial);
            self.block(&partial);
            self.partial = partial;
            self.partial.clear();
            bytes = rest;
        }
        let mut whole = bytes.chunks_exact(self.block_bytes);
        for block in whole.by_ref() {
            if self.is_full() {
                return;
            }
            self.block(block);
        }
        if !self.is_full() {
            self.partial.reserve_exact(self.block_bytes);
            self.partial.extend_from_slice(whole.remainder());
        }
    }

    /// Fills the current token with zeros.
    pub fn align(&mut self) {
        let over = self.partial.len() % TOKEN_BYTES;
        if over != 0 {
            self.write(&[0; TOKEN_BYTES][over..]);
        }
    }

    /// Appends one token; the stream must be aligned.
    pub fn write_token(&mut self, token: u32) {
        self.write(&token.to_le_bytes());
    }

    /// Appends a token `count` times; the stream must be aligned.
    pub fn write_repeated(&mut self, token: u32, count: u32) {
        let mut left = count as usize;
        while left > 0 && !self.partial.is_empty() && !self.is_full() {
            self.write_token(token);
            left -= 1;
        }
        // Whole blocks of one token have one digest.
        let tokens = self.block_bytes / TOKEN_BYTES;
        if left >= tokens {
            let digest = xxh64(&token.to_le_bytes().repeat(tokens), 0);
            while left >= tokens && !self.is_full() {
                self.link(digest);
                left -= tokens;
            }
        }
        while left > 0 && !self.is_full() {
            self.write_token(token);
            left -= 1;
        }
    }

    /// Ends the prompt: what is left makes a last, shorter block. The next one starts from the seed again.
    pub fn end_prompt(&mut self) {
        self.align();
        if !self.partial.is_empty() {
            let partial = std::mem::take(&mut self.partial);
            self.block(&partial);
        }
        if self.in_chain > 0 {
            self.blocks.ends.push(self.blocks.hashes.len() as u32);
        }
        self.previous = self.seed;
        self.in_chain = 0;
        self.room = self.max_blocks.min(MAX_REQUEST_BLOCKS.saturating_sub(self.blocks.hashes.len()));
    }

    /// Ends the last prompt and returns the hashes.
    pub fn finish(mut self) -> BlockHashes {
        self.end_prompt();
        self.blocks
    }

    fn block(&mut self, tokens: &[u8]) {
        if self.is_full() {
            return;
        }
        self.link(xxh64(tokens, 0));
    }

    /// Adds a block with this digest.
    fn link(&mut self, digest: u64) {
        let mut link = [0; 16];
        link[..8].copy_from_slice(&digest.to_le_bytes());
        link[8..].copy_from_slice(&self.previous.to_le_bytes());
        self.previous = xxh64(&link, 0);
        self.blocks.hashes.push(self.previous);
        self.in_chain += 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hash_all(hasher: impl FnOnce() -> BlockHasher, writes: &[&[u8]]) -> BlockHashes {
        let mut hasher = hasher();
        for bytes in writes {
            hasher.write(bytes);
        }
        hasher.finish()
    }

    #[test]
    fn hashes_equal_the_published_vectors() {
        let mut hasher = BlockHasher::new("m", "", 16, usize::MAX, 160);
        assert_eq!(hasher.seed, 0xba2e_5670_83a2_b2e8);
        for token in 1..=40 {
            hasher.write_token(token);
        }
        let blocks = hasher.finish();
        let expected = [0xa417_3e7e_d915_9bc8, 0x6bb0_a3a4_c587_5d6e, 0x994f_65ff_0663_e275];
        assert_eq!(blocks, BlockHashes::from_chains(16, &[&expected]));
        assert_eq!(BlockHasher::new("m", "s1", 16, 1, 0).seed, 0xd8d6_f4ca_4a32_90cd);
    }

    #[test]
    fn each_prompt_is_a_chain_of_its_own_with_its_own_cap() {
        let mut hasher = BlockHasher::new("m", "", 1, 2, 0);
        hasher.write(b"aaaabbbbcccc");
        hasher.end_prompt();
        hasher.end_prompt();
        hasher.write(b"aaaabb");
        let blocks = hasher.finish();
        let chains: Vec<_> = blocks.chains().collect();
        assert_eq!(chains.iter().map(|chain| chain.len()).collect::<Vec<_>>(), [2, 2]);
        assert_eq!(chains[0][0], chains[1][0]);
        assert_ne!(chains[0][1], chains[1][1]);
    }

    #[test]
    fn a_request_has_no_more_blocks_than_the_bound_in_all_its_prompts() {
        let mut hasher = BlockHasher::new("m", "", 1, usize::MAX, 0);
        hasher.write_repeated(7, 60_000);
        hasher.end_prompt();
        hasher.write_repeated(7, 60_000);
        hasher.end_prompt();
        hasher.write_repeated(7, 60_000);
        assert_eq!(hasher.finish().len(), MAX_REQUEST_BLOCKS);
    }

    #[test]
    fn a_cap_of_no_blocks_hashes_nothing() {
        let blocks = hash_all(|| BlockHasher::new("m", "", 1, 0, 100), &[b"aaaabbbb", b"c"]);
        assert!(blocks.is_empty());
        assert_eq!(blocks.chains().count(), 0);
    }

    #[test]
    fn a_tail_is_filled_with_zeros() {
        let short = hash_all(|| BlockHasher::new("m", "", 4, 9, 0), &[b"hello"]);
        let padded = hash_all(|| BlockHasher::new("m", "", 4, 9, 0), &[b"hello\0\0\0"]);
        assert_eq!(short, padded);
        let mut tokens = BlockHasher::new("m", "", 4, 9, 0);
        tokens.write_token(1_819_043_176);
        tokens.write_token(111);
        assert_eq!(tokens.finish(), short);
    }

    proptest! {
        #[test]
        fn a_repeated_token_is_hashed_as_if_it_were_written_one_by_one(
            block_size in 1_u32..70,
            before in 0_usize..70,
            counts in proptest::collection::vec((any::<u32>(), 0_u32..300), 1..4),
            max_blocks in 0_usize..12,
        ) {
            let mut fast = BlockHasher::new("m", "", block_size, max_blocks, 0);
            let mut slow = BlockHasher::new("m", "", block_size, max_blocks, 0);
            for hasher in [&mut fast, &mut slow] {
                for _ in 0..before {
                    hasher.write_token(1);
                }
            }
            for (token, count) in counts {
                fast.write_repeated(token, count);
                for _ in 0..count {
                    slow.write_token(token);
                }
            }
            prop_assert_eq!(fast.finish(), slow.finish());
        }

        #[test]
        fn hashes_do_not_depend_on_how_the_stream_was_cut(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
            cuts in prop::collection::vec(0usize..300, 0..8),
            block_size in 1u32..9,
            max_blocks in 0usize..20,
        ) {
            let whole = hash_all(|| BlockHasher::new("m", "s", block_size, max_blocks, 0), &[&bytes]);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let writes: Vec<&[u8]> = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect();
            prop_assert_eq!(hash_all(|| BlockHasher::new("m", "s", block_size, max_blocks, 0), &writes), whole.clone());
            prop_assert_eq!(whole.len(), bytes.len().div_ceil(block_size as usize * 4).min(max_blocks));
        }
    }
}
