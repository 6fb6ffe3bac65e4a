//! From a parser, a path and a body to an [`Inference`].

use super::error::ParseError;
use super::media_type::BodyKind;
use super::paths::ParserKind;
use super::types::{Api, Inference};
use super::{anthropic, lenient, openai, other, sglang, vertex, vllm, vllm_grpc};

/// The API that `path` means to the parser `kind`. To a parser that does not claim the path it means what the parser
/// is for in the first place: completions, messages, generate, or nothing it looks into.
pub fn api_of(kind: ParserKind, path: &str) -> Api {
    kind.api(path).unwrap_or(match kind {
        ParserKind::OpenAi => Api::Completions,
        ParserKind::Anthropic => Api::Messages,
        ParserKind::VllmHttp => Api::Generate,
        ParserKind::SglangHttp => Api::SglangGenerate,
        ParserKind::VllmGrpc | ParserKind::Vertex | ParserKind::Passthrough => Api::Opaque,
    })
}

/// Reads `body` by its `content_type`, which is empty if there is none, and as [`parse`] does. Of a form, and of a body
/// whose API has no reader, the model alone is read. JSON that is no object, or is not in UTF-8, goes on unread.
pub fn read(kind: ParserKind, path: &str, content_type: &[u8], body: &[u8]) -> Result<Inference, ParseError> {
    let api = api_of(kind, path);
    match api {
        Api::Opaque => return Ok(other::read(content_type, body)),
        Api::CountTokens => {
            let read = other::read(content_type, body);
            return Ok(Inference { api: Api::CountTokens, ..read });
        }
        Api::GrpcGenerate | Api::GrpcEmbed | Api::VertexChat | Api::VertexRaw => {
            return parse_as(api, body);
        }
        _ => {}
    }
    match BodyKind::of_body(content_type, body) {
        BodyKind::Form => return Ok(other::read(content_type, body)),
        BodyKind::Pairs => {
            let form = other::read(content_type, body);
            // Some clients say this of any body.
            if form.is_rewritable() {
                return Ok(form);
            }
        }
        BodyKind::Json | BodyKind::Unsaid | BodyKind::Other => {}
    }
    refuse_unclaimed(kind, path)?;
    parse_as(api, body).or_else(|error| {
        let ParseError::Json { fault, .. } = &error else { return Err(error) };
        let unread = lenient::unread(body, *fault).ok_or(error)?;
        Ok(Inference { unread: Some(unread), ..Inference::opaque() })
    })
}

/// Reads `body` with the parser `kind`; `path` tells which of its APIs it is (see [`api_of`]). The Anthropic parser
/// refuses a path that it does not claim.
pub fn parse(kind: ParserKind, path: &str, body: &[u8]) -> Result<Inference, ParseError> {
    refuse_unclaimed(kind, path)?;
    parse_as(api_of(kind, path), body)
}

/// The Anthropic parser alone knows no API of its own.
fn refuse_unclaimed(kind: ParserKind, path: &str) -> Result<(), ParseError> {
    if kind == ParserKind::Anthropic && kind.api(path).is_none() {
        return Err(ParseError::UnsupportedPath(path.to_owned()));
    }
    Ok(())
}

fn parse_as(api: Api, body: &[u8]) -> Result<Inference, ParseError> {
    match api {
        Api::Opaque => Ok(Inference::opaque()),
        Api::CountTokens => Ok(Inference { api: Api::CountTokens, ..Inference::opaque() }),
        Api::Messages => anthropic::parse(body),
        Api::Generate => vllm::parse(body),
        Api::SglangGenerate => sglang::parse(body),
        api @ (Api::GrpcGenerate | Api::GrpcEmbed) => Ok(vllm_grpc::parse(api, body)),
        api @ (Api::VertexChat | Api::VertexRaw) => Ok(vertex::parse(api, body)),
        api => openai::parse(api, body),
    }
}
