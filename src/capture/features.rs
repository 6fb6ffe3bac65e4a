//! The features of a request that a capture keeps: sizes, hashes, and the headers that decisions depend on. The text of
//! a prompt is never kept.

use std::collections::HashSet;

use xxhash_rust::xxh64::xxh64;

use super::exact::Chains;
use super::lines::{BASE_BLOCK, MediaLine, RequestLine};
use crate::prefix::{BlockShape, block_hashes, prompt_tokens, token_block_hashes};
use crate::request::{Headers, Piece};
use crate::scheduling::RequestView;

/// The longest header value, in bytes, that is kept as it is. Of a longer value only a hash is kept.
const LONGEST_VALUE: usize = 256;
/// The most headers of a request that are kept.
const MOST_HEADERS: usize = 32;
/// The most images, videos and sounds of a request that are kept.
const MOST_MEDIA: usize = 256;
/// The prefixes of the names of headers that pickers read.
const FAMILIES: [&str; 6] = ["x-llm-d-", "x-gateway-", "x-slo-", "x-session", "x-prefiller-", "x-encoder-"];
/// The names of further headers that pickers read.
const KNOWN: [&str; 5] =
    ["prefer", "test-epp-endpoint-selection", "x-data-parallel-host-port", "x-model-name", "cookie"];
/// The names of headers that are never kept.
const SECRET: [&str; 6] =
    ["authorization", "proxy-authorization", "api-key", "x-api-key", "x-goog-api-key", "set-cookie"];

/// Which headers are kept: those that the configuration names, and those that pickers read anyway.
#[derive(Clone, Debug, Default)]
pub struct HeaderRule {
    named: HashSet<String>,
    /// The key of the hashes. It is not written anywhere.
    key: u64,
}

impl HeaderRule {
    /// Makes the rule of a configuration. `key` keeps readers of a capture from finding a value by hashing guesses.
    pub fn new(document: &str, key: u64) -> Self {
        let words = document.split(|c: char| !(c.is_ascii_alphanumeric() || "-_".contains(c)));
        let named = words.filter(|word| word.len() > 1).map(str::to_ascii_lowercase).collect();
        Self { named, key }
    }

    /// The headers that are kept. Of a cookie, the name and a hash of the value are kept.
    fn kept(&self, headers: &Headers) -> Vec<(String, String)> {
        let wanted = headers.iter().filter_map(|(name, value)| {
            let name = std::str::from_utf8(name).ok()?;
            self.wants(name).then(|| (name.to_owned(), self.value(name, value)))
        });
        wanted.take(MOST_HEADERS).collect()
    }

    fn wants(&self, name: &str) -> bool {
        !SECRET.contains(&name)
            && (self.named.contains(name)
                || KNOWN.contains(&name)
                || FAMILIES.iter().any(|family| name.starts_with(family)))
    }

    fn value(&self, name: &str, value: &[u8]) -> String {
        let text = String::from_utf8_lossy(value);
        if name == "cookie" {
            let hashed = |cookie: &str| match cookie.split_once('=') {
                Some((name, value)) => format!("{}={}", name.trim(), self.hash(value.trim().as_bytes())),
                None => self.hash(cookie.as_bytes()),
            };
            return text.split(';').take(MOST_HEADERS).map(hashed).collect::<Vec<_>>().join("; ");
        }
        if value.len() > LONGEST_VALUE { self.hash(value) } else { text.into_owned() }
    }

    fn hash(&self, bytes: &[u8]) -> String {
        format!("{:016x}", xxh64(bytes, self.key))
    }
}

/// The features of this request. `model` is the model that the client asked for.
pub fn features(view: &RequestView<'_>, model: &str, rule: &HeaderRule) -> RequestLine {
    let RequestView { inference, body, target_model, .. } = *view;
    let shape = BlockShape { block_size: BASE_BLOCK, max_blocks: usize::MAX };
    let (blocks, tokens) = match view.tokens {
        Some(tokens) => (token_block_hashes(target_model, inference, body, tokens, shape), tokens.count()),
        None => (
            block_hashes(target_model, inference, body, view.media_rules(), shape),
            prompt_tokens(inference, body, view.media_rules()),
        ),
    };
    let keyed = |hash: &u64| xxh64(&hash.to_le_bytes(), rule.key);
    let media = inference.prompt.pieces.iter().filter_map(|piece| match piece {
        Piece::Media(kind, content) => {
            Some(MediaLine { media: kind.label().to_owned(), hash: rule.hash(content.text(body).as_bytes()) })
        }
        _ => None,
    });
    RequestLine {
        model: model.to_owned(),
        target_model: target_model.to_owned(),
        priority: view.priority,
        fairness_id: view.fairness_id.to_owned(),
        api: inference.api.label().to_owned(),
        stream: inference.stream,
        max_output_tokens: inference.max_output_tokens,
        tokens,
        exact: view.tokens.is_some(),
        media: media.take(MOST_MEDIA).collect(),
        chains: Chains(blocks.chains().map(|chain| chain.iter().map(keyed).collect()).collect()),
        headers: rule.kept(view.headers),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_that_the_configuration_names_are_kept_and_secrets_never_are() {
        let rule = HeaderRule::new("parameters: {header: X-Tenant, other: authorization}", 7);
        let long = "v".repeat(300);
        let headers = Headers::from([
            ("x-tenant", "blue"),
            ("authorization", "Bearer secret"),
            ("user-agent", "curl"),
            ("x-llm-d-slo-ttft-ms", "200"),
            ("cookie", "session=abc; plain"),
            ("x-session-id", long.as_str()),
        ]);
        let kept = rule.kept(&headers);
        let text = format!("{kept:?}");
        let names: Vec<&str> = kept.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["x-tenant", "x-llm-d-slo-ttft-ms", "cookie", "x-session-id"]);
        assert_eq!((kept[0].1.as_str(), kept[1].1.as_str(), kept[3].1.len()), ("blue", "200", 16));
        assert!(kept[2].1.starts_with("session=") && !text.contains("abc") && !text.contains("secret"));
    }
}
