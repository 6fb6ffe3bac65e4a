//! What a render endpoint is asked about a request: the request as it came, for the model that the endpoint has.

use bytes::Bytes;
use smallvec::SmallVec;

use super::anthropic;
use crate::request::{Api, Inference, Piece, splice_model};

/// A question: a path of the endpoint and a body for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) path: &'static str,
    /// The body in pieces, most of which share the request's memory.
    pub(super) body: SmallVec<[Bytes; 3]>,
    /// The prompt has images, videos or sounds, which the endpoint has to fetch.
    pub(super) media: bool,
}

pub(super) const COMPLETIONS: &str = "/v1/completions/render";
const CHAT: &str = "/v1/chat/completions/render";

/// The question about a request; `None` if there is nothing to ask: the API has no such endpoint, the body was not
/// understood, or it has token ids already.
pub(super) fn question(inference: &Inference, body: &Bytes, model: &str) -> Option<Question> {
    let pieces = &inference.prompt.pieces;
    let has_ids = pieces.iter().any(|piece| matches!(piece, Piece::Tokens(_) | Piece::PackedTokens(_)));
    if pieces.is_empty() || has_ids || inference.unread.is_some() {
        return None;
    }
    let media = inference.prompt.has_media();
    let path = match inference.api {
        Api::Completions => COMPLETIONS,
        Api::ChatCompletions => CHAT,
        Api::Messages => {
            let chat = anthropic::as_chat(body, model)?;
            return Some(Question { path: CHAT, body: SmallVec::from_iter([chat.into()]), media });
        }
        _ => return None,
    };
    inference.is_rewritable().then(|| Question { path, body: splice_model(body, inference, model), media })
}

/// The smallest question there is.
pub(super) fn smallest(model: &str) -> Question {
    let body = serde_json::json!({"model": model, "prompt": "probe", "max_tokens": 1}).to_string();
    Question { path: COMPLETIONS, body: SmallVec::from_iter([body.into()]), media: false }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{ParserKind, parse};

    fn ask(kind: ParserKind, path: &str, body: &'static str) -> Option<(&'static str, String, bool)> {
        let body = Bytes::from_static(body.as_bytes());
        let inference = parse(kind, path, &body).unwrap();
        let question = question(&inference, &body, "org/model")?;
        Some((question.path, String::from_utf8(question.body.concat()).unwrap(), question.media))
    }

    #[test]
    fn the_body_is_asked_about_as_it_came_for_the_model_of_the_endpoint() {
        use ParserKind::{Anthropic, OpenAi, VllmHttp};
        let (text, chat) = ("/v1/completions", "/v1/chat/completions");
        assert_eq!(
            ask(OpenAi, text, r#"{"prompt": ["a", "b"] ,"model":"alias"}"#),
            Some((COMPLETIONS, r#"{"prompt": ["a", "b"] ,"model":"org/model"}"#.to_owned(), false))
        );
        assert_eq!(
            ask(OpenAi, chat, r#"{"messages":[{"role":"user","content":"hi"}]}"#),
            Some((
                CHAT,
                r#"{"model":"org/model","messages":[{"role":"user","content":"hi"}]}"#.to_owned(),
                false
            ))
        );
        let picture =
            r#"{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"u"}}]}]}"#;
        assert!(ask(OpenAi, chat, picture).unwrap().2);
        let messages = r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#;
        assert_eq!(ask(Anthropic, "/v1/messages", messages).unwrap().0, CHAT);
        // Nothing to ask, or nobody who would know.
        assert_eq!(ask(OpenAi, text, r#"{"prompt":[1,2,3]}"#), None);
        assert_eq!(ask(VllmHttp, "/inference/v1/generate", r#"{"token_ids":[1,2]}"#), None);
        assert_eq!(ask(OpenAi, "/v1/embeddings", r#"{"input":"x"}"#), None);
        assert_eq!(ask(OpenAi, "/v1/responses", r#"{"input":"x"}"#), None);
        assert_eq!(ask(OpenAi, chat, r#"{"messages":[]}"#), None);
    }
}
