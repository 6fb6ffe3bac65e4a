//! Answers that are not texts.

use super::ask::EmbeddingAsk;
use super::json::quoted;
use crate::config::SimConfig;
use crate::engine::tokens;

/// The number of values in an embedding.
const DIMENSIONS: u64 = 8;

/// The body of `/v1/models`, with the served names and the adapters.
pub(crate) fn models(config: &SimConfig, created: u64, context_tokens: usize) -> String {
    let root = quoted(config.model_name());
    let card = |name: &str, parent: &str, length: &str| {
        let id = quoted(name);
        format!(
            r#"{{"id":{id},"object":"model","created":{created},"owned_by":"vllm","root":{root},"parent":{parent},"max_model_len":{length},"permission":[]}}"#
        )
    };
    let length = context_tokens.to_string();
    let bases = config.models.iter().map(|name| card(name, "null", &length));
    let adapters = config.adapters.iter().map(|name| card(name, &root, "null"));
    format!(r#"{{"object":"list","data":[{}]}}"#, bases.chain(adapters).collect::<Vec<_>>().join(","))
}

/// The body of `/v1/embeddings`.
pub(crate) fn embeddings(ask: &EmbeddingAsk, unique: &str, created: u64) -> String {
    let data = ask.inputs.iter().enumerate().map(|(index, input)| {
        let seed = tokens::answer_seed(input, 0);
        let numbers = (0..DIMENSIONS).map(|i| {
            let number = tokens::mix(seed ^ i) as f64 / u64::MAX as f64 * 2.0 - 1.0;
            format!("{number:.6}")
        });
        let numbers = numbers.collect::<Vec<_>>().join(",");
        format!(r#"{{"index":{index},"object":"embedding","embedding":[{numbers}]}}"#)
    });
    let data = data.collect::<Vec<_>>().join(",");
    let (id, model) = (quoted(&format!("embd-{unique}")), quoted(&ask.model));
    let count = ask.submission.prompt.len();
    format!(
        r#"{{"id":{id},"object":"list","created":{created},"model":{model},"data":[{data}],"usage":{{"prompt_tokens":{count},"total_tokens":{count},"completion_tokens":0,"prompt_tokens_details":null}}}}"#
    )
}

/// The body of `/tokenize`.
pub(crate) fn tokenized(tokens: &[u32], context_tokens: usize) -> String {
    let count = tokens.len();
    let tokens = tokens.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    format!(r#"{{"count":{count},"max_model_len":{context_tokens},"tokens":[{tokens}],"token_strs":null}}"#)
}

/// The answer of Mooncake's bootstrap server, with the engines by rank.
pub(crate) fn bootstrap(config: &SimConfig) -> String {
    let name = &config.name;
    let rank = |rank: usize| format!(r#""{rank}":{{"engine_id":{}}}"#, quoted(&format!("{name}-{rank}")));
    let ranks: Vec<String> = (0..config.engines.max(1)).map(rank).collect();
    format!("{{{}}}", ranks.join(","))
}
