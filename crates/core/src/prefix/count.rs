//! How many pseudo-tokens a prompt has, as the approximate index cuts it.

use std::cell::LazyCell;

use super::media::{self, VideoHints};
use super::text;
use super::tokens::{MAX_MEDIA_TOKENS, decoded};
use crate::request::{Canonical, Inference, MediaRules, Piece, packed_ids, token_ids};

/// Bytes of text that make a token.
const BYTES_PER_TOKEN: u64 = 4;

/// Pseudo-tokens of all prompts of a request together; 0 if its body is not looked into.
pub fn prompt_tokens<'a>(inference: &Inference, body: &[u8], rules: impl Into<MediaRules<'a>>) -> u64 {
    let rules = rules.into();
    let hints = LazyCell::new(|| VideoHints::read(rules.headers));
    let mut media_left = MAX_MEDIA_TOKENS;
    let mut canonical = Canonical::default();
    let (mut tokens, mut bytes) = (0, 0);
    for piece in &inference.prompt.pieces {
        match piece {
            Piece::Text(string) => text::decode(string.raw(body), string.escaped, |span| {
                bytes += span.len() as u64;
                true
            }),
            Piece::Json(range) => {
                let value = body.get(range.start as usize..range.end as usize).unwrap_or_default();
                canonical.write(value, |span| {
                    bytes += span.len() as u64;
                    true
                });
            }
            _ => tokens += std::mem::take(&mut bytes).div_ceil(BYTES_PER_TOKEN),
        }
        match piece {
            Piece::PackedTokens(range) => tokens += packed_ids(body, range.clone()).count() as u64,
            Piece::Tokens(range) => tokens += token_ids(body, range.clone()).count() as u64,
            Piece::Media(kind, string) => {
                let count = media::tokens(*kind, &decoded(string, body), *hints, rules.estimate)
                    .min(media_left.max(1));
                media_left = media_left.saturating_sub(count);
                tokens += u64::from(count);
            }
            _ => {}
        }
    }
    tokens + bytes.div_ceil(BYTES_PER_TOKEN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{Headers, JsonStr, MediaKind, Prompt};

    fn count(body: &str, pieces: &[Piece]) -> u64 {
        let prompt = Prompt { pieces: pieces.iter().cloned().collect() };
        let inference = Inference { prompt, ..Inference::opaque() };
        prompt_tokens(&inference, body.as_bytes(), &Headers::new())
    }

    fn all(body: &str, escaped: bool) -> JsonStr {
        JsonStr { start: 0, end: body.len() as u32, escaped }
    }

    #[test]
    fn four_bytes_of_decoded_text_are_a_token_and_text_runs_on() {
        let body = "abcdef";
        let text = Piece::Text(all(body, false));
        assert_eq!(count(body, &[]), 0);
        assert_eq!(count(body, std::slice::from_ref(&text)), 2);
        assert_eq!(count(body, &[text.clone(), text.clone()]), 3);
        // A prompt of its own begins a token of its own.
        assert_eq!(count(body, &[text.clone(), Piece::NextPrompt, text]), 4);
        let escaped = r"\n\n\n\n\u00e9";
        assert_eq!(count(escaped, &[Piece::Text(all(escaped, true))]), 2);
        assert_eq!(count(body, &[Piece::Json(0..5)]), 2);
        // What a value is spelt like makes no difference.
        let (short, long) = (r#"{"a":"é","b":12}"#, r#"{ "b" : 12.0, "a" : "\u00e9" }"#);
        let json = |body: &str| count(body, &[Piece::Json(0..body.len() as u32)]);
        assert_eq!((json(short), json(long)), (5, 5));
    }

    #[test]
    fn ids_count_as_they_are_and_media_as_what_it_is_taken_for() {
        assert_eq!(count("[1, 22,333]", &[Piece::Tokens(0..11)]), 3);
        let url = "https://x/y.png";
        assert_eq!(count(url, &[Piece::Media(MediaKind::Image, all(url, false))]), 225);
        assert_eq!(count("", &[Piece::Text(JsonStr { start: 5, end: 9, escaped: false })]), 0);
    }
}
