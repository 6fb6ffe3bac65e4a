//! Bodies of vLLM's token-in, token-out endpoint.

use super::envelope::read_body;
use super::error::{ParseError, Unread};
use super::openai::BODY_CONTEXT;
use super::pieces::{Pieces, count_in, read_tokens};
use super::scan::Kind;
use super::types::{Api, Inference};

/// Reads an `inference/v1/generate` body.
pub(super) fn parse(body: &[u8]) -> Result<Inference, ParseError> {
    let mut tokens = Pieces::default();
    let mut cap = None;
    let mut inference = read_body(body, Api::Generate, &mut |name, cursor| {
        match name {
            b"token_ids" => {
                tokens = Pieces::default();
                if cursor.peek()? == Kind::Null {
                    cursor.skip()?;
                } else {
                    read_tokens(cursor, &mut tokens)?;
                }
            }
            b"sampling_params" => cap = count_in(cursor, b"max_tokens")?,
            _ => return Ok(false),
        }
        Ok(true)
    })
    .map_err(|fault| ParseError::Json { context: BODY_CONTEXT, fault })?;

    inference.max_output_tokens = cap;
    (inference.prompt, inference.unread) = tokens.into_prompt();
    if inference.prompt.pieces.is_empty() {
        let missing = "invalid generate request: must have non-empty token_ids field";
        inference.unread.get_or_insert(Unread::Missing(missing));
    }
    Ok(inference)
}

#[cfg(test)]
mod tests {
    use super::super::types::Piece;
    use super::*;

    #[test]
    fn token_ids_and_the_nested_cap_are_read() {
        let body =
            br#"{"model":"m","token_ids":[1, 2,3],"sampling_params":{"n":1,"max_tokens":7},"stream":true}"#;
        let inference = parse(body).unwrap();
        assert_eq!(inference.max_output_tokens, Some(7));
        assert!(inference.stream && inference.is_rewritable());
        let [Piece::Tokens(range)] = inference.prompt.pieces.as_slice() else { panic!("{inference:?}") };
        assert_eq!(&body[range.start as usize..range.end as usize], b"[1, 2,3]");
    }

    #[test]
    fn missing_and_malformed_token_ids_are_told_apart_and_go_on() {
        let missing = "invalid generate request: must have non-empty token_ids field";
        for (body, expected) in [
            (r#"{"model":"m"}"#, missing),
            (r#"{"token_ids":[]}"#, missing),
            (r#"{"token_ids":null}"#, missing),
            (r#"{"token_ids":[4294967296]}"#, "expected a token id from 0 to 4294967295 at byte 14"),
            (r#"{"token_ids":"x"}"#, "expected an array of token ids at byte 13"),
            (r#"{"token_ids":[[1]]}"#, "expected an array of token ids at byte 14"),
        ] {
            assert_eq!(parse(body.as_bytes()).unwrap().unread.unwrap().to_string(), expected, "{body}");
        }
        let cut = parse(br#"{"token_ids":[1]"#).unwrap_err().to_string();
        assert_eq!(cut, "error unmarshaling request bodyMap: unexpected end at byte 16");
    }
}
