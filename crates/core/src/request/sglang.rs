//! Bodies of SGLang's own endpoint `/generate`.

use super::envelope::read_body;
use super::error::{ParseError, Unread};
use super::openai::{BODY_CONTEXT, read_json};
use super::pieces::{Objects, Pieces, count_in, read_prompt, read_tokens};
use super::scan::Kind;
use super::types::{Api, Inference};

/// Reads a `generate` body: ids, a text, or embeddings, of one prompt or of several. It has no model that could be
/// replaced.
pub(super) fn parse(body: &[u8]) -> Result<Inference, ParseError> {
    let (mut ids, mut text, mut embeds) = (Pieces::default(), Pieces::default(), Pieces::default());
    let (mut cap, mut key, mut any) = (None, None, false);
    let mut inference = read_body(body, Api::SglangGenerate, &mut |name, cursor| {
        match name {
            b"input_ids" if cursor.peek()? != Kind::Null => {
                (ids, any) = (Pieces::default(), true);
                if cursor.peek()? == Kind::Array {
                    ids = read_prompt(cursor, Objects::Unknown)?;
                } else {
                    read_tokens(cursor, &mut ids)?;
                }
            }
            b"text" if matches!(cursor.peek()?, Kind::String | Kind::Array) => {
                text = read_prompt(cursor, Objects::Unknown)?;
            }
            b"input_embeds" => embeds = read_json(cursor)?,
            b"extra_key" => key = cursor.string_or_skip()?,
            b"sampling_params" => cap = count_in(cursor, b"max_new_tokens")?,
            _ => return Ok(false),
        }
        Ok(true)
    })
    .map_err(|fault| ParseError::Json { context: BODY_CONTEXT, fault })?;
    inference.max_output_tokens = cap;
    inference.cache_salt = key;
    (inference.model, inference.insert_at) = (None, None);
    inference.model_values.clear();
    let prompt = match (any, text.len()) {
        (true, _) => ids,
        (false, 0) => embeds,
        (false, _) => text,
    };
    (inference.prompt, inference.unread) = prompt.into_prompt();
    if inference.prompt.pieces.is_empty() {
        let missing = if any {
            "invalid generate request: input_ids cannot be empty"
        } else {
            "invalid generate request: input_ids must be provided"
        };
        inference.unread.get_or_insert(Unread::Missing(missing));
    }
    Ok(inference)
}

#[cfg(test)]
mod tests {
    use super::super::types::Piece;
    use super::*;

    #[test]
    fn ids_the_cap_and_the_key_of_the_cache_are_read() {
        let body =
            br#"{"input_ids":[1,2,3],"sampling_params":{"max_new_tokens":0},"stream":true,"extra_key":"k"}"#;
        let inference = parse(body).unwrap();
        assert_eq!((inference.max_output_tokens, inference.stream), (Some(0), true));
        assert_eq!(inference.cache_salt.unwrap().text(body), "k");
        assert!(matches!(inference.prompt.pieces.as_slice(), [Piece::Tokens(_)]));
        assert!(!inference.is_rewritable());
        let text = parse(br#"{"text":"hello","model":"m"}"#).unwrap();
        assert!(matches!(text.prompt.pieces.as_slice(), [Piece::Text(_)]) && text.unread.is_none());
        assert!(text.model.is_none() && text.model_values.is_empty());
    }

    #[test]
    fn missing_and_malformed_ids_are_told_apart_and_go_on() {
        for (body, expected) in [
            (r#"{"sampling_params":7}"#, "invalid generate request: input_ids must be provided"),
            (r#"{"input_ids":null}"#, "invalid generate request: input_ids must be provided"),
            (r#"{"input_ids":[]}"#, "invalid generate request: input_ids cannot be empty"),
            (r#"{"input_ids":7}"#, "expected an array of token ids at byte 13"),
            (r#"{"input_ids":[[1],["a"]]}"#, "expected an array of token ids at byte 19"),
            (r#"{"input_ids":[-1]}"#, "expected a token id from 0 to 4294967295 at byte 14"),
        ] {
            assert_eq!(parse(body.as_bytes()).unwrap().unread.unwrap().to_string(), expected, "{body}");
        }
        assert!(parse(b"[1]").is_err());
    }
}
