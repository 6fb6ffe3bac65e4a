//! Pseudo-tokens: four bytes of decoded prompt text make one. Nobody tokenizes here; equal text gives equal blocks,
//! which is all an approximate index needs.
//!
//! Text runs on across strings, messages and roles without separators. A media part starts at a token boundary and is
//! the low half of the XXH64 of its URL or data, repeated for as many tokens as it is taken to be. Prompts given as
//! token ids are taken as they are. Nothing is collected: the stream goes into the [`BlockHasher`] as it is read.

use std::borrow::Cow;
use std::cell::LazyCell;

use xxhash_rust::xxh64::xxh64;

use super::media::{self, VideoHints};
use super::{BlockHasher, BlockHashes, text};
use crate::request::{Canonical, Inference, JsonStr, MediaRules, Piece, packed_ids};

/// Most tokens of all media parts of a request together: a part of a few bytes may claim to be many.
pub(super) const MAX_MEDIA_TOKENS: u32 = 1 << 20;

/// How a request is cut into blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockShape {
    /// Tokens per block, at least 1.
    pub block_size: u32,
    /// Most blocks per prompt.
    pub max_blocks: usize,
}

/// Hashes of the blocks of a request for `model`. None if its body is not looked into.
pub fn block_hashes<'a>(
    model: &str,
    inference: &Inference,
    body: &[u8],
    rules: impl Into<MediaRules<'a>>,
    shape: BlockShape,
) -> BlockHashes {
    let rules = rules.into();
    let salt = inference.cache_salt.as_ref().map(|salt| salt.text(body)).unwrap_or_default();
    let expected = inference.prompt.pieces.iter().map(piece_bytes).sum();
    let mut hasher = BlockHasher::new(model, &salt, shape.block_size, shape.max_blocks, expected);
    let hints = LazyCell::new(|| VideoHints::read(rules.headers));
    let mut media_left = MAX_MEDIA_TOKENS;
    let mut canonical = Canonical::default();
    for piece in &inference.prompt.pieces {
        match piece {
            Piece::NextPrompt => hasher.end_prompt(),
            _ if hasher.is_full() => {}
            Piece::Text(string) => write_text(&mut hasher, string, body),
            Piece::Json(range) => {
                let value = body.get(range.start as usize..range.end as usize).unwrap_or_default();
                canonical.write(value, |span| {
                    hasher.write(span);
                    !hasher.is_full()
                });
            }
            Piece::Tokens(range) => {
                write_tokens(
                    &mut hasher,
                    body.get(range.start as usize..range.end as usize).unwrap_or_default(),
                );
            }
            Piece::PackedTokens(range) => {
                hasher.align();
                for id in packed_ids(body, range.clone()) {
                    if hasher.is_full() {
                        break;
                    }
                    hasher.write_token(id);
                }
            }
            Piece::Media(kind, string) => {
                let content = decoded(string, body);
                hasher.align();
                let count = media::tokens(*kind, &content, *hints, rules.estimate).min(media_left.max(1));
                media_left = media_left.saturating_sub(count);
                hasher.write_repeated(xxh64(&content, 0) as u32, count);
            }
        }
    }
    hasher.finish()
}

/// Bytes of the body that a piece spans; an upper bound for text, a guess for the rest.
fn piece_bytes(piece: &Piece) -> usize {
    match piece {
        Piece::Text(string) => string.end.saturating_sub(string.start) as usize,
        Piece::Json(range) | Piece::Tokens(range) => range.len(),
        Piece::PackedTokens(range) => size_of::<u32>() * range.len(),
        Piece::Media(..) => 1024,
        Piece::NextPrompt => 0,
    }
}

fn write_text(hasher: &mut BlockHasher, string: &JsonStr, body: &[u8]) {
    text::decode(string.raw(body), string.escaped, |span| {
        hasher.write(span);
        !hasher.is_full()
    });
}

pub(super) fn decoded<'b>(string: &JsonStr, body: &'b [u8]) -> Cow<'b, [u8]> {
    let raw = string.raw(body);
    if !string.escaped {
        return Cow::Borrowed(raw);
    }
    let mut content = Vec::with_capacity(raw.len());
    text::decode(raw, true, |span| {
        content.extend_from_slice(span);
        true
    });
    Cow::Owned(content)
}

/// Every number of a JSON array as one token, in whatever notation it stands. Ids beyond 32 bits wrap around; what is
/// no number separates.
fn write_tokens(hasher: &mut BlockHasher, array: &[u8]) {
    hasher.align();
    let mut rest = array;
    while let Some(start) = rest.iter().position(u8::is_ascii_digit) {
        let number = rest.get(start..).unwrap_or_default();
        let mut token = 0_u32;
        let mut length = 0;
        while let Some(digit) = number.get(length).filter(|byte| byte.is_ascii_digit()) {
            token = token.wrapping_mul(10).wrapping_add(u32::from(digit - b'0'));
            length += 1;
        }
        if let Some(b'.' | b'e' | b'E') = number.get(length) {
            length = number.iter().position(|byte| !is_of_number(*byte)).unwrap_or(number.len());
            let whole = std::str::from_utf8(&number[..length]).ok().and_then(|text| text.parse::<f64>().ok());
            // The cast saturates; no engine has ids beyond 32 bits.
            token = whole.map_or(token, |whole| whole as u32);
        }
        hasher.write_token(token);
        if hasher.is_full() {
            return;
        }
        rest = number.get(length..).unwrap_or_default();
    }
}

fn is_of_number(byte: u8) -> bool {
    byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{Headers, MediaKind, Prompt};

    const SHAPE: BlockShape = BlockShape { block_size: 2, max_blocks: 1000 };

    /// A body made of the given strings, each between quotes, and their places in it.
    fn body(strings: &[&str]) -> (Vec<u8>, Vec<JsonStr>) {
        let mut bytes = Vec::new();
        let mut places = Vec::new();
        for string in strings {
            bytes.push(b'"');
            let start = bytes.len() as u32;
            bytes.extend_from_slice(string.as_bytes());
            places.push(JsonStr { start, end: bytes.len() as u32, escaped: string.contains('\\') });
            bytes.push(b'"');
        }
        (bytes, places)
    }

    fn hashes(body: &[u8], pieces: &[Piece], salt: Option<JsonStr>) -> BlockHashes {
        let prompt = Prompt { pieces: pieces.iter().cloned().collect() };
        let inference = Inference { prompt, cache_salt: salt, ..Inference::opaque() };
        block_hashes("m", &inference, body, &Headers::new(), SHAPE)
    }

    fn expected(salt: &str, chains: &[&[u8]]) -> BlockHashes {
        let mut hasher = BlockHasher::new("m", salt, SHAPE.block_size, SHAPE.max_blocks, 0);
        for chain in chains {
            hasher.write(chain);
            hasher.end_prompt();
        }
        hasher.finish()
    }

    #[test]
    fn text_runs_on_across_strings_and_escapes() {
        let (body, at) = body(&["user", "a\\nb \\u00e9", "{\"x\":1}", ""]);
        let json = at[2].start..at[2].end;
        let pieces = [Piece::Text(at[0]), Piece::Text(at[1]), Piece::Json(json), Piece::Text(at[3])];
        assert_eq!(hashes(&body, &pieces, None), expected("", &["usera\nb é{\"x\":1}".as_bytes()]));
    }

    #[test]
    fn tokens_of_media_have_a_bound_for_the_whole_request() {
        // A picture that claims 65535 × 65535 pixels.
        let png = base64::Engine::encode(
            &base64::engine::general_purpose::STANDARD,
            b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\xff\xff\0\0\xff\xff\x08\0",
        );
        let (body, at) = body(&[&format!("data:image/png;base64,{png}")]);
        let prompt = Prompt { pieces: vec![Piece::Media(MediaKind::Image, at[0]); 4000].into() };
        let inference = Inference { prompt, ..Inference::opaque() };
        let shape = BlockShape { block_size: 64, max_blocks: usize::MAX };
        let blocks = block_hashes("m", &inference, &body, &Headers::new(), shape);
        let most = MAX_MEDIA_TOKENS as usize / 64 + 4000 / 64 + 1;
        assert!((most - 70..=most).contains(&blocks.len()), "{} of {most}", blocks.len());
    }

    #[test]
    fn several_prompts_are_several_chains() {
        let (body, at) = body(&["one prompt", "another"]);
        let pieces = [Piece::Text(at[0]), Piece::NextPrompt, Piece::Text(at[1])];
        assert_eq!(hashes(&body, &pieces, None), expected("", &[b"one prompt", b"another"]));
    }

    #[test]
    fn a_salt_changes_every_block() {
        let (body, at) = body(&["some prompt", "pep\\u0070er"]);
        let salted = hashes(&body, &[Piece::Text(at[0])], Some(at[1]));
        assert_eq!(salted, expected("pepper", &[b"some prompt"]));
        assert_ne!(salted, expected("", &[b"some prompt"]));
    }

    #[test]
    fn token_ids_are_taken_as_they_are() {
        let body = b"[1, 22 ,4294967295\n,7]";
        let pieces = [Piece::Tokens(0..body.len() as u32)];
        let stream: Vec<u8> = [1u32, 22, u32::MAX, 7].iter().flat_map(|id| id.to_le_bytes()).collect();
        assert_eq!(hashes(body, &pieces, None), expected("", &[&stream]));
    }

    #[test]
    fn token_ids_are_the_same_in_any_notation() {
        let stream: Vec<u8> = [1u32, 10, 120, 7].iter().flat_map(|id| id.to_le_bytes()).collect();
        for body in ["[1,10,120,7]", "[1.0,1e1,1.2E+2,7.000]", "[1, 100e-1 ,120.0,7]"] {
            let pieces = [Piece::Tokens(0..body.len() as u32)];
            assert_eq!(hashes(body.as_bytes(), &pieces, None), expected("", &[&stream]), "{body}");
        }
    }

    #[test]
    fn json_parts_are_the_same_in_any_spelling() {
        let spellings = [
            r#"[{"type":"function","function":{"name":"f","parameters":{"a/b":1}}}]"#,
            r#"[ {"function" : {"parameters":{ "a\/b": 1.0}, "name":"\u0066"}, "type":"function" } ]"#,
        ];
        let all = spellings.map(|body| hashes(body.as_bytes(), &[Piece::Json(0..body.len() as u32)], None));
        assert!(!all[0].is_empty());
        assert_eq!(all[0], all[1]);
    }

    #[test]
    fn a_media_part_is_aligned_and_repeats_its_hash() {
        let (body, at) = body(&["hello", "https:\\/\\/x/i.png", "after"]);
        let pieces = [Piece::Text(at[0]), Piece::Media(MediaKind::Image, at[1]), Piece::Text(at[2])];
        let mut stream = b"hello\0\0\0".to_vec();
        let token = (xxh64(b"https://x/i.png", 0) as u32).to_le_bytes();
        stream.extend(token.repeat(225));
        stream.extend_from_slice(b"after");
        assert_eq!(hashes(&body, &pieces, None), expected("", &[&stream]));
    }

    #[test]
    fn ranges_outside_the_body_are_empty() {
        let outside = JsonStr { start: 90, end: 95, escaped: true };
        let pieces = [
            Piece::Text(outside),
            Piece::Json(70..73),
            Piece::Tokens(90..99),
            Piece::Media(MediaKind::Audio, outside),
        ];
        assert_eq!(hashes(b"{}", &pieces, None).len(), 1);
    }
}
