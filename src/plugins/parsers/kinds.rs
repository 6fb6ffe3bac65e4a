//! One row a parser. None takes parameters.

use crate::plugins::{BuildCx, PluginType, Roles, Stability};
use crate::request::ParserKind;

/// `openai-parser`: chat completions, completions, embeddings, responses and the like.
pub static OPENAI: PluginType =
    PluginType::new("openai-parser", Stability::Beta, |cx| Ok(parser(cx, ParserKind::OpenAi))).about(
        "Reads bodies of the OpenAI APIs: chat, completions, responses, embeddings and others.",
        "Use it to say which APIs are read; without any parser in the configuration all of them are. It \
         costs one pass over the body.",
    );

/// `anthropic-parser`: messages and their token count.
pub static ANTHROPIC: PluginType =
    PluginType::new("anthropic-parser", Stability::Beta, |cx| Ok(parser(cx, ParserKind::Anthropic))).about(
        "Reads bodies of Anthropic's messages API.",
        "Use it to say which APIs are read; without any parser in the configuration all of them are. It \
         costs one pass over the body.",
    );

/// `vllmhttp-parser`: vLLM's generate API.
pub static VLLM_HTTP: PluginType =
    PluginType::new("vllmhttp-parser", Stability::Beta, |cx| Ok(parser(cx, ParserKind::VllmHttp))).about(
        "Reads bodies of vLLM's own HTTP API.",
        "Use it where clients call vLLM's own paths with prompts as token ids. It costs one pass over the \
         body.",
    );

/// `sglanghttp-parser`: SGLang's generate API.
pub static SGLANG_HTTP: PluginType = PluginType::new("sglanghttp-parser", Stability::Beta, |cx| {
    Ok(parser(cx, ParserKind::SglangHttp))
})
.about(
    "Reads bodies of SGLang's own path `/generate`.",
    "Use it where clients call SGLang's own path, with token ids or a text. It costs one pass over the body.",
);

/// `vllmgrpc-parser`: vLLM's gRPC service.
pub static VLLM_GRPC: PluginType =
    PluginType::new("vllmgrpc-parser", Stability::Beta, |cx| Ok(parser(cx, ParserKind::VllmGrpc))).about(
        "Reads messages of vLLM's gRPC service, `vllm.grpc.engine.VllmEngine`.",
        "Use it where model servers speak gRPC, in a pool whose protocol is `kubernetes.io/h2c`. It costs a walk over \
         the fields of the message.",
    );

/// `vertexai-parser`: Vertex AI's prediction service.
pub static VERTEX_AI: PluginType =
    PluginType::new("vertexai-parser", Stability::Beta, |cx| Ok(parser(cx, ParserKind::Vertex))).about(
        "Reads messages of Vertex AI's `PredictionService`, which hold bodies of the OpenAI APIs.",
        "Use it where clients call Vertex AI's gRPC service, in a pool whose protocol is `kubernetes.io/h2c`. It costs \
         one pass over the body inside.",
    );

/// `passthrough-parser`: takes what no other parser wants, and looks into nothing.
pub static PASSTHROUGH: PluginType =
    PluginType::new("passthrough-parser", Stability::Beta, |cx| Ok(parser(cx, ParserKind::Passthrough)))
        .about(
            "Takes requests that no other parser wants, and does not look into them.",
            "Use it where paths that nobody can read should still be routed by load. It costs nothing.",
        );

fn parser(cx: &mut BuildCx<'_>, kind: ParserKind) -> Roles {
    cx.no_params();
    Roles { parser: Some(kind), ..Roles::default() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn each_row_makes_the_parser_it_is_named_after() {
        let metrics = Arc::new(Metrics::new());
        let rows = [
            (&OPENAI, ParserKind::OpenAi),
            (&ANTHROPIC, ParserKind::Anthropic),
            (&VLLM_HTTP, ParserKind::VllmHttp),
            (&SGLANG_HTTP, ParserKind::SglangHttp),
            (&VLLM_GRPC, ParserKind::VllmGrpc),
            (&VERTEX_AI, ParserKind::Vertex),
            (&PASSTHROUGH, ParserKind::Passthrough),
        ];
        for (row, kind) in rows {
            let mut columns = Vec::new();
            let mut cx = BuildCx::new("p", None, &metrics, &mut columns, 0);
            let roles = (row.build)(&mut cx).unwrap();
            assert_eq!(roles.parser, Some(kind));
            assert_eq!(roles.names(), ["parser"]);
        }
    }

    #[test]
    fn parameters_are_ignored_with_a_warning() {
        let metrics = Arc::new(Metrics::new());
        let (mut columns, params) = (Vec::new(), serde_json::json!({"any": 1}));
        let mut cx = BuildCx::new("p", Some(&params), &metrics, &mut columns, 0);
        assert!((OPENAI.build)(&mut cx).is_ok());
        assert_eq!(cx.warnings.len(), 1);
    }
}
