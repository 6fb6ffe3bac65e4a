//! In which form a client wants to be told of an error: that of the API it calls.

use super::headers::Headers;
use super::paths::{ParserKind, routing_path};

/// Form of an error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ErrorForm {
    /// OpenAI's JSON, and that of everything that follows it.
    #[default]
    OpenAi,
    /// Anthropic's JSON.
    Anthropic,
    /// A gRPC status.
    Grpc,
    /// A gRPC status in the form of gRPC-Web: in headers and in a frame of trailers, under HTTP status 200.
    GrpcWeb,
    /// The same with a body in base64, for clients that read bodies as text.
    GrpcWebText,
}

impl ErrorForm {
    /// The form for the client that sent these request headers: gRPC's by the content type; Anthropic's on the paths of
    /// its parser, on those behind `/v1/messages/`, and on paths of no parser if the client names a version of that
    /// API, as its libraries do on every path.
    pub fn of(headers: &Headers) -> Self {
        if let Some(form) = headers.get("content-type").and_then(|kind| grpc_form(kind)) {
            return form;
        }
        let path = routing_path(headers);
        let claims = |kind: ParserKind| kind.api(&path).is_some();
        let is_anthropic = claims(ParserKind::Anthropic)
            || path.contains("/v1/messages/")
            || (headers.get("anthropic-version").is_some()
                && !claims(ParserKind::OpenAi)
                && !claims(ParserKind::VllmHttp));
        if is_anthropic { Self::Anthropic } else { Self::OpenAi }
    }
}

/// The form for a content type of gRPC or gRPC-Web, with any message format and parameter.
fn grpc_form(content_type: &[u8]) -> Option<ErrorForm> {
    const TYPES: [(&[u8], ErrorForm); 3] = [
        (b"application/grpc", ErrorForm::Grpc),
        (b"application/grpc-web", ErrorForm::GrpcWeb),
        (b"application/grpc-web-text", ErrorForm::GrpcWebText),
    ];
    TYPES.into_iter().find_map(|(name, form)| {
        let (kind, rest) = content_type.split_at_checked(name.len())?;
        let is_it =
            kind.eq_ignore_ascii_case(name) && matches!(rest.first(), None | Some(b'+' | b';' | b' '));
        is_it.then_some(form)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_that_of_the_api_that_is_called() {
        use ErrorForm::{Anthropic, Grpc, GrpcWeb, GrpcWebText, OpenAi};
        for (path, further, form) in [
            ("/v1/messages", ("x", ""), Anthropic),
            ("/v1/messages/?beta=true", ("x", ""), Anthropic),
            ("/tenant/v1/messages/count_tokens", ("x", ""), Anthropic),
            ("/v1/messages/batches/b_1/results", ("x", ""), Anthropic),
            ("/v1/models", ("anthropic-version", "2023-06-01"), Anthropic),
            ("/anthropic/v1/messages", ("x", ""), Anthropic),
            ("/anthropic/v1/messages/count_tokens?beta=true", ("x", ""), Anthropic),
            ("/v1/complete", ("anthropic-version", "2023-06-01"), Anthropic),
            ("/v1/models", ("x", ""), OpenAi),
            ("/v1/chat/completions", ("anthropic-version", "2023-06-01"), OpenAi),
            ("/v1/my-messages", ("x", ""), OpenAi),
            ("/v1/messages", ("content-type", "application/grpc+proto"), Grpc),
            ("/inference.Inference/Infer", ("content-type", "Application/gRPC"), Grpc),
            ("/inference.Inference/Infer", ("content-type", "application/grpc-web"), GrpcWeb),
            ("/inference.Inference/Infer", ("content-type", "application/gRPC-Web+proto; x=y"), GrpcWeb),
            ("/inference.Inference/Infer", ("content-type", "application/grpc-web-text+proto"), GrpcWebText),
            ("/inference.Inference/Infer", ("content-type", "application/grpc-websocket"), OpenAi),
        ] {
            let headers = Headers::from([(":path", path), further]);
            assert_eq!(ErrorForm::of(&headers), form, "{path} {further:?}");
        }
    }
}
