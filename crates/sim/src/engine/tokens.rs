//! Turns text into token ids, and makes the words of an answer.
//!
//! There is no vocabulary. A token is a piece of at most four characters, and pieces begin again after every space. The
//! id of a token is a hash of the piece. The pieces of a text therefore do not depend on the text before a space. An
//! answer that comes back in the next prompt gives the same tokens, and can hit the prefix cache.

use xxhash_rust::xxh64::xxh64;

/// The characters of a token, without the space before it.
const CHARS_PER_TOKEN: usize = 4;

/// The words of all answers. A word has at most four letters, so that it is one token.
const WORDS: [&str; 32] = [
    "rail", "line", "sign", "box", "lamp", "bell", "gate", "yard", "coal", "iron", "axle", "bolt", "frog",
    "tie", "spur", "loop", "dock", "hut", "mast", "wire", "cab", "tank", "fire", "ash", "dome", "horn",
    "fog", "post", "mile", "ton", "load", "stop",
];

/// The hash seed for ordinary text.
const TEXT: u64 = 0;
/// The hash seed for the marks that a chat template puts around messages, so that no text can imitate a mark.
const MARK: u64 = 1;

/// Appends the tokens of `text` to `tokens`.
pub(crate) fn push_text(text: &str, tokens: &mut Vec<u32>) {
    let mut start = 0;
    let mut letters = 0;
    for (at, character) in text.char_indices() {
        let blank = character.is_whitespace();
        if at > start && (letters == CHARS_PER_TOKEN || blank) {
            tokens.push(token_id(text.get(start..at).unwrap_or_default(), TEXT));
            start = at;
            letters = 0;
        }
        letters += usize::from(!blank);
    }
    if let Some(rest) = text.get(start..)
        && !rest.is_empty()
    {
        tokens.push(token_id(rest, TEXT));
    }
}

/// Appends the one token of a template mark such as `user`.
pub(crate) fn push_mark(mark: &str, tokens: &mut Vec<u32>) {
    tokens.push(token_id(mark, MARK));
}

fn token_id(piece: &str, seed: u64) -> u32 {
    xxh64(piece.as_bytes(), seed) as u32
}

/// The seed of the answer to a prompt.
pub(crate) fn answer_seed(prompt: &[u32], seed: u64) -> u64 {
    prompt.iter().fold(seed, |hash, token| mix(hash ^ u64::from(*token)))
}

/// The word with this index in the answer of `answer_seed`.
pub(crate) fn word(answer_seed: u64, index: u32) -> &'static str {
    let at = mix(answer_seed ^ (u64::from(index) << 32)) as usize % WORDS.len();
    WORDS.get(at).copied().unwrap_or("rail")
}

/// The token id of the word with this index. It equals the id that [`push_text`] gives the word after a space.
pub(crate) fn word_token(answer_seed: u64, index: u32) -> u32 {
    let mut piece = String::with_capacity(1 + CHARS_PER_TOKEN);
    piece.push(' ');
    piece.push_str(word(answer_seed, index));
    token_id(&piece, TEXT)
}

/// The finalizer of splitmix64, which spreads neighbouring numbers over all 64 bits.
pub(crate) fn mix(number: u64) -> u64 {
    let mut x = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tokens(text: &str) -> Vec<u32> {
        let mut tokens = Vec::new();
        push_text(text, &mut tokens);
        tokens
    }

    #[test]
    fn a_run_without_blanks_has_a_token_per_four_characters() {
        assert_eq!(tokens(&"a".repeat(400)).len(), 100);
        assert_eq!(tokens("abcde").len(), 2);
        assert_eq!(tokens("").len(), 0);
    }

    #[test]
    fn every_word_of_an_answer_is_one_token_wherever_it_is_read_again() {
        let answer: String = (0..64).flat_map(|i| [" ", word(7, i)]).collect();
        let expected: Vec<u32> = (0..64).map(|i| word_token(7, i)).collect();
        assert_eq!(tokens(&answer), expected);
    }

    #[test]
    fn a_mark_is_not_the_token_of_its_text() {
        let mut mark = Vec::new();
        push_mark("user", &mut mark);
        assert_ne!(mark, tokens("user"));
    }

    proptest! {
        #[test]
        fn text_cut_at_a_blank_has_the_same_tokens_in_one_piece_and_in_two(a in ".{0,40}", b in "[a-z]{1,20}") {
            let second = format!(" {b}");
            let whole = tokens(&format!("{a}{second}"));
            let mut parts = tokens(&a);
            parts.extend(tokens(&second));
            // If the first part ends in a space, the space is a token of its own, and the second part begins again.
            prop_assert_eq!(whole, parts);
        }
    }
}
