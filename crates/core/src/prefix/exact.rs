//! Blocks of exact tokens: the ids that the model server will see, cut and chained like pseudo-tokens.
//!
//! Placeholders of two different pictures are the same tokens. So that the pictures are not taken for one, the tokens
//! of a media part count as the low half of the XXH64 of its hash.

use xxhash_rust::xxh64::xxh64;

use super::{BlockHasher, BlockHashes, BlockShape};
use crate::request::{Inference, Tokenized, TokenizedPrompt};

/// Hashes of the blocks of a request for `model`, of which these are the tokens. Of `inference`, the salt counts.
pub fn token_block_hashes(
    model: &str,
    inference: &Inference,
    body: &[u8],
    tokens: &Tokenized,
    shape: BlockShape,
) -> BlockHashes {
    let salt = inference.cache_salt.as_ref().map(|salt| salt.text(body)).unwrap_or_default();
    let expected = usize::try_from(tokens.count()).unwrap_or(usize::MAX).saturating_mul(size_of::<u32>());
    let mut hasher = BlockHasher::new(model, &salt, shape.block_size, shape.max_blocks, expected);
    for prompt in &tokens.prompts {
        write(&mut hasher, prompt);
        hasher.end_prompt();
    }
    hasher.finish()
}

/// Writes a prompt. Spans that overlap or lie outside the prompt are cut to what is left of it.
fn write(hasher: &mut BlockHasher, prompt: &TokenizedPrompt) {
    let (ids, mut at) = (&prompt.ids, 0);
    for span in &prompt.media {
        let start = (span.offset as usize).clamp(at, ids.len());
        let end = start.saturating_add(span.length as usize).min(ids.len());
        write_ids(hasher, ids.get(at..start).unwrap_or_default());
        hasher.write_repeated(xxh64(span.hash.as_bytes(), 0) as u32, (end - start) as u32);
        at = end;
    }
    write_ids(hasher, ids.get(at..).unwrap_or_default());
}

/// Ids that are turned into bytes at a time.
const IDS_AT_ONCE: usize = 256;

fn write_ids(hasher: &mut BlockHasher, ids: &[u32]) {
    let mut bytes = [0; IDS_AT_ONCE * size_of::<u32>()];
    for ids in ids.chunks(IDS_AT_ONCE) {
        if hasher.is_full() {
            return;
        }
        for (four, id) in bytes.chunks_exact_mut(size_of::<u32>()).zip(ids) {
            four.copy_from_slice(&id.to_le_bytes());
        }
        hasher.write(bytes.get(..size_of_val(ids)).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prefix::block_hashes;
    use crate::request::{Headers, MediaKind, MediaSpan, Piece, Prompt};

    const SHAPE: BlockShape = BlockShape { block_size: 16, max_blocks: 1000 };

    fn hashes(prompts: Vec<TokenizedPrompt>) -> BlockHashes {
        token_block_hashes("m", &Inference::opaque(), b"", &Tokenized { prompts }, SHAPE)
    }

    fn prompt(ids: impl IntoIterator<Item = u32>, media: &[(&str, u32, u32)]) -> TokenizedPrompt {
        let span = |&(hash, offset, length): &(&str, u32, u32)| MediaSpan {
            kind: MediaKind::Image,
            hash: hash.into(),
            offset,
            length,
        };
        TokenizedPrompt { ids: ids.into_iter().collect(), media: media.iter().map(span).collect() }
    }

    #[test]
    fn the_published_blocks_of_forty_tokens_come_out() {
        let blocks = hashes(vec![prompt(1..=40, &[])]);
        let chain: Vec<u64> = blocks.chains().flatten().copied().collect();
        assert_eq!(chain, [0xa417_3e7e_d915_9bc8, 0x6bb0_a3a4_c587_5d6e, 0x994f_65ff_0663_e275]);
    }

    #[test]
    fn tokens_made_elsewhere_hash_like_those_that_a_client_sends() {
        let ids: Vec<u32> = (0..1000).collect();
        let body = format!("{ids:?}");
        let pieces = [Piece::Tokens(0..body.len() as u32)].into_iter().collect();
        let inference = Inference { prompt: Prompt { pieces }, ..Inference::opaque() };
        let sent = block_hashes("m", &inference, body.as_bytes(), &Headers::new(), SHAPE);
        assert_eq!(hashes(vec![prompt(ids, &[])]), sent);
    }

    #[test]
    fn different_pictures_with_the_same_placeholders_differ_from_where_they_stand() {
        let picture = |hash| hashes(vec![prompt([7; 64], &[(hash, 20, 30)])]);
        let (one, other) = (picture("one"), picture("other"));
        let same = |index: usize| {
            let at = |blocks: &BlockHashes| blocks.chains().flatten().nth(index).copied();
            at(&one) == at(&other)
        };
        assert_eq!([0, 1, 2, 3].map(same), [true, false, false, false]);
        assert_eq!(one, picture("one"));
    }

    #[test]
    fn spans_beyond_the_prompt_are_cut_to_it() {
        for media in [&[("a", 90, 5)][..], &[("a", 60, u32::MAX)], &[("a", 30, 10), ("b", 10, 40)]] {
            assert_eq!(hashes(vec![prompt([7; 64], media)]).len(), 4, "{media:?}");
        }
    }
}
