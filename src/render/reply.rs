//! Token ids from the answer of a render endpoint: one object a prompt.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::request::{MediaKind, MediaSpan, Tokenized, TokenizedPrompt, cut};

/// Longest hash of a picture that is kept, in bytes.
const MAX_HASH: usize = 256;
/// Most pictures, videos and sounds of a prompt that are told apart.
const MAX_MEDIA: usize = 4096;

#[derive(Deserialize)]
struct Rendered {
    token_ids: Vec<u32>,
    #[serde(default)]
    features: Option<Features>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Features {
    mm_hashes: BTreeMap<String, Vec<String>>,
    mm_placeholders: BTreeMap<String, Vec<Place>>,
}

#[derive(Clone, Copy, Deserialize)]
struct Place {
    offset: u32,
    length: u32,
}

/// The tokens that an answer holds.
pub(super) fn read(answer: &[u8]) -> Result<Tokenized, String> {
    // An answer is decided by its first byte, so that a fault in it is told as what it is.
    let rendered = match answer.trim_ascii_start().first() {
        Some(b'[') => serde_json::from_slice::<Vec<Rendered>>(answer).map_err(|error| error.to_string())?,
        _ => vec![serde_json::from_slice::<Rendered>(answer).map_err(|error| error.to_string())?],
    };
    if rendered.iter().all(|prompt| prompt.token_ids.is_empty()) {
        return Err("the answer has no token ids".to_owned());
    }
    let prompts = rendered.into_iter().map(|prompt| {
        let media = prompt.features.as_ref().map(spans).unwrap_or_default();
        TokenizedPrompt { ids: prompt.token_ids, media }
    });
    Ok(Tokenized { prompts: prompts.collect() })
}

fn spans(features: &Features) -> Vec<MediaSpan> {
    let mut spans = Vec::new();
    for (modality, places) in &features.mm_placeholders {
        let kind = MediaKind::named(modality).unwrap_or(MediaKind::Image);
        let hashes = features.mm_hashes.get(modality).map_or(&[][..], Vec::as_slice);
        for (place, hash) in places.iter().zip(hashes).take(MAX_MEDIA) {
            let hash = cut(hash, MAX_HASH).into();
            spans.push(MediaSpan { kind, hash, offset: place.offset, length: place.length });
        }
    }
    spans.sort_by_key(|span| span.offset);
    spans
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chat_is_one_object_and_completions_are_a_list() {
        let one =
            read(br#" {"request_id":"x","token_ids":[1,2,4294967295],"sampling_params":{"n":1}}"#).unwrap();
        assert_eq!(one.prompts, [TokenizedPrompt { ids: vec![1, 2, u32::MAX], media: Vec::new() }]);
        let two = read(br#"[{"token_ids":[1]},{"token_ids":[],"features":null}]"#).unwrap();
        assert_eq!((two.prompts.len(), two.count()), (2, 1));
    }

    #[test]
    fn media_spans_are_ordered_by_their_place() {
        let answer = br#"{"token_ids":[1,2,3,4,5,6],"features":{
            "mm_hashes":{"image":["ab"],"audio":["cd","never placed"],"video":[]},
            "mm_placeholders":{"image":[{"offset":4,"length":2}],"audio":[{"offset":1,"length":1}],
                "video":[{"offset":0,"length":1}]},
            "kwargs_data":{"image":["AAAA"]}}}"#;
        let tokens = read(answer).unwrap();
        let span = |kind, hash: &str, offset, length| MediaSpan { kind, hash: hash.into(), offset, length };
        let expected = [span(MediaKind::Audio, "cd", 1, 1), span(MediaKind::Image, "ab", 4, 2)];
        assert_eq!(tokens.prompts[0].media, expected);
    }

    #[test]
    fn an_answer_without_ids_is_a_fault() {
        for answer in [
            &b"[]"[..],
            br#"{"token_ids":[]}"#,
            br#"{"ids":[1]}"#,
            br#"{"token_ids":[-1]}"#,
            br#"{"token_ids":[4294967296]}"#,
            br#"{"token_ids":[1"#,
            b"<html>",
            b"",
        ] {
            assert!(read(answer).is_err(), "{}", String::from_utf8_lossy(answer));
        }
    }
}
