//! Messages of vLLM's gRPC service `vllm.grpc.engine.VllmEngine`.
//!
//! | message | field | what |
//! |---|---|---|
//! | `GenerateRequest`, `EmbedRequest` | 2 `tokenized`, 3 `text` (generate alone) | the prompt |
//! | `GenerateRequest` | 4 `sampling_params`, 5 `stream` | of the parameters 8, `max_tokens` |
//! | `TokenizedInput` | 2 `input_ids` | packed |

use std::ops::Range;

use super::error::Unread;
use super::protobuf::{Fields, Value, framed};
use super::types::{Api, Inference, JsonStr, Piece};

/// The message for a body without a whole frame. The text is the reference's.
pub(super) const NO_FRAME: &str = "invalid or unsupported gRPC payload";

const TOKENIZED: u32 = 2;
const TEXT: u32 = 3;
const SAMPLING_PARAMS: u32 = 4;
const STREAM: u32 = 5;
const INPUT_IDS: u32 = 2;
const MAX_TOKENS: u32 = 8;

/// Reads a request. A body that is no such message goes on as it came.
pub(super) fn parse(api: Api, body: &[u8]) -> Inference {
    let mut inference = Inference { api, ..Inference::opaque() };
    let Some(message) = framed(body) else {
        inference.unread = Some(Unread::Missing(NO_FRAME));
        return inference;
    };
    let mut fields = Fields::within(body, message);
    for (field, value) in fields.by_ref() {
        match (field, value) {
            (TEXT, Value::Range(range)) if api == Api::GrpcGenerate => {
                let text = JsonStr { start: range.start as u32, end: range.end as u32, escaped: false };
                inference.prompt.pieces = [Piece::Text(text)].into_iter().collect();
            }
            (TOKENIZED, Value::Range(range)) => {
                let ids =
                    input_ids(body, range).map(|ids| Piece::PackedTokens(ids.start as u32..ids.end as u32));
                inference.prompt.pieces = ids.into_iter().collect();
            }
            (SAMPLING_PARAMS, Value::Range(range)) if api == Api::GrpcGenerate => {
                inference.max_output_tokens = max_tokens(body, range);
            }
            (STREAM, Value::Number(stream)) if api == Api::GrpcGenerate => inference.stream = stream != 0,
            _ => {}
        }
    }
    if fields.is_broken() {
        inference.prompt.pieces.clear();
    }
    if inference.prompt.pieces.is_empty() {
        inference.unread = Some(Unread::Missing(match api {
            Api::GrpcEmbed => "missing tokenized input in EmbedRequest",
            _ => "not supported request inputType",
        }));
    }
    inference
}

/// Where the ids of a tokenized input lie, if they lie together.
fn input_ids(body: &[u8], message: Range<usize>) -> Option<Range<usize>> {
    let mut fields = Fields::within(body, message);
    let mut found = None;
    for (field, value) in fields.by_ref() {
        match value {
            Value::Range(range) if field == INPUT_IDS && found.is_none() && !range.is_empty() => {
                found = Some(range);
            }
            // Ids that lie apart: no client of this service writes them so.
            _ if field == INPUT_IDS => return None,
            _ => {}
        }
    }
    found.filter(|_| !fields.is_broken())
}

fn max_tokens(body: &[u8], message: Range<usize>) -> Option<u64> {
    Fields::within(body, message).filter(|(field, _)| *field == MAX_TOKENS).find_map(|(_, value)| match value
    {
        Value::Number(tokens) => Some(tokens),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::packed_ids;
    use super::super::protobuf::{bytes_field, frame, number_field, put_varint};
    use super::*;

    fn packed(ids: &[u32]) -> Vec<u8> {
        let mut packed = Vec::new();
        for id in ids {
            put_varint(&mut packed, u64::from(*id));
        }
        packed
    }

    #[test]
    fn ids_the_cap_and_the_wish_for_a_stream_are_read() {
        let ids = [1, 300, u32::MAX];
        let tokenized = [bytes_field(1, b"the text"), bytes_field(2, &packed(&ids))].concat();
        let message = [
            bytes_field(1, b"request id"),
            bytes_field(2, &tokenized),
            bytes_field(4, &[number_field(3, 5), number_field(8, 7)].concat()),
            number_field(5, 1),
        ];
        let body = frame(&message.concat());
        let inference = parse(Api::GrpcGenerate, &body);
        assert_eq!((inference.max_output_tokens, inference.stream, inference.unread), (Some(7), true, None));
        let [Piece::PackedTokens(range)] = inference.prompt.pieces.as_slice() else {
            panic!("{inference:?}")
        };
        assert_eq!(packed_ids(&body, range.clone()).collect::<Vec<_>>(), ids);
        assert!(!inference.is_rewritable());
        let embed = parse(Api::GrpcEmbed, &frame(&bytes_field(2, &tokenized)));
        assert!(matches!(embed.prompt.pieces.as_slice(), [Piece::PackedTokens(_)]));
    }

    #[test]
    fn text_is_a_prompt_too_and_a_cap_of_0_counts() {
        let message = [bytes_field(3, "grüß".as_bytes()), bytes_field(4, &number_field(8, 0))].concat();
        let body = frame(&message);
        let inference = parse(Api::GrpcGenerate, &body);
        let [Piece::Text(text)] = inference.prompt.pieces.as_slice() else { panic!("{inference:?}") };
        assert_eq!((&*text.text(&body), inference.max_output_tokens), ("grüß", Some(0)));
    }

    #[test]
    fn what_is_no_such_message_goes_on_unread() {
        let said = |api, body: &[u8]| {
            let inference = parse(api, body);
            assert!(inference.prompt.pieces.is_empty());
            inference.unread.map(|unread| unread.to_string())
        };
        let compressed = [&[1][..], &frame(b"")[1..]].concat();
        assert_eq!(said(Api::GrpcGenerate, &compressed).as_deref(), Some(NO_FRAME));
        assert_eq!(said(Api::GrpcGenerate, b"").as_deref(), Some(NO_FRAME));
        let none = Some("not supported request inputType");
        assert_eq!(said(Api::GrpcGenerate, &frame(b"")).as_deref(), none);
        assert_eq!(said(Api::GrpcGenerate, &frame(&bytes_field(2, b"\xff"))).as_deref(), none);
        // A broken end makes all of it doubtful.
        let broken = [bytes_field(3, b"text"), vec![0xff]].concat();
        assert_eq!(said(Api::GrpcGenerate, &frame(&broken)).as_deref(), none);
        let text = frame(&bytes_field(3, b"text"));
        assert_eq!(said(Api::GrpcEmbed, &text).as_deref(), Some("missing tokenized input in EmbedRequest"));
    }
}
