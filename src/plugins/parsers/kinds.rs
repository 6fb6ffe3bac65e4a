//! One row a parser. None takes parameters.

use crate::plugins::{BuildCx, BuildError, PluginType, Roles, Stability};
use crate::request::ParserKind;

/// `openai-parser`: chat completions, completions, embeddings, responses and the like.
pub static OPENAI: PluginType = row("openai-parser", |cx| Ok(parser(cx, ParserKind::OpenAi)));

/// `anthropic-parser`: messages and their token count.
pub static ANTHROPIC: PluginType = row("anthropic-parser", |cx| Ok(parser(cx, ParserKind::Anthropic)));

/// `vllmhttp-parser`: vLLM's generate API.
pub static VLLM_HTTP: PluginType = row("vllmhttp-parser", |cx| Ok(parser(cx, ParserKind::VllmHttp)));

/// `passthrough-parser`: takes what no other parser wants, and looks into nothing.
pub static PASSTHROUGH: PluginType = row("passthrough-parser", |cx| Ok(parser(cx, ParserKind::Passthrough)));

const fn row(name: &'static str, build: fn(&mut BuildCx<'_>) -> Result<Roles, BuildError>) -> PluginType {
    PluginType { name, reports_as: name, stability: Stability::Beta, superseded: None, build }
}

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
