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
