//! Which parser reads a request: chosen by the end of its path.

use std::borrow::Cow;

use super::headers::Headers;
use super::types::Api;

/// A request without any path header is taken for this one.
const DEFAULT_PATH: &str = "/v1/completions";
/// Headers that may carry the path, the most direct first.
const PATH_HEADERS: [&str; 3] = [":path", "x-original-path", "x-forwarded-path"];

/// A parser, by its plugin type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ParserKind {
    /// `openai-parser`.
    OpenAi,
    /// `anthropic-parser`.
    Anthropic,
    /// `vllmhttp-parser`.
    VllmHttp,
    /// `sglanghttp-parser`.
    SglangHttp,
    /// `vllmgrpc-parser`.
    VllmGrpc,
    /// `vertexai-parser`.
    Vertex,
    /// `passthrough-parser`: claims no path, takes what no other parser wants, and does not look into the body.
    Passthrough,
}

impl ParserKind {
    /// All parsers.
    pub const ALL: [Self; 7] = [
        Self::OpenAi,
        Self::Anthropic,
        Self::VllmHttp,
        Self::SglangHttp,
        Self::VllmGrpc,
        Self::Vertex,
        Self::Passthrough,
    ];

    /// Those of a configuration that lists none, in order.
    pub const DEFAULT: [Self; 4] = [Self::OpenAi, Self::Anthropic, Self::VllmHttp, Self::Passthrough];

    /// The plugin type, as it stands in a configuration.
    pub fn type_name(self) -> &'static str {
        match self {
            Self::OpenAi => "openai-parser",
            Self::Anthropic => "anthropic-parser",
            Self::VllmHttp => "vllmhttp-parser",
            Self::SglangHttp => "sglanghttp-parser",
            Self::VllmGrpc => "vllmgrpc-parser",
            Self::Vertex => "vertexai-parser",
            Self::Passthrough => "passthrough-parser",
        }
    }

    /// The parser of a plugin type.
    pub fn from_type_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.type_name() == name)
    }

    /// Path suffixes that the parser claims, without slashes around them, and the API behind each. The longest stand
    /// first.
    pub fn suffixes(self) -> &'static [(&'static str, Api)] {
        match self {
            Self::OpenAi => &[
                ("chat/completions/render", Api::ChatCompletions),
                ("completions/render", Api::Completions),
                ("images/generations", Api::Images),
                ("chat/completions", Api::ChatCompletions),
                ("conversations", Api::Conversations),
                ("completions", Api::Completions),
                ("embeddings", Api::Embeddings),
                ("responses", Api::Responses),
            ],
            Self::Anthropic => &[("messages/count_tokens", Api::CountTokens), ("messages", Api::Messages)],
            Self::VllmHttp => &[("inference/v1/generate", Api::Generate)],
            Self::SglangHttp => &[("generate", Api::SglangGenerate)],
            Self::VllmGrpc => &[
                ("vllm.grpc.engine.VllmEngine/Generate", Api::GrpcGenerate),
                ("vllm.grpc.engine.VllmEngine/Embed", Api::GrpcEmbed),
            ],
            Self::Vertex => &[
                ("PredictionService/StreamRawPredict", Api::VertexRaw),
                ("PredictionService/ChatCompletions", Api::VertexChat),
                ("PredictionService/RawPredict", Api::VertexRaw),
            ],
            Self::Passthrough => &[],
        }
    }

    /// Application protocols of a pool that the parser can serve, in the spelling of `appProtocol`.
    pub fn app_protocols(self) -> &'static [&'static str] {
        match self {
            Self::Passthrough => &[],
            Self::VllmGrpc | Self::Vertex => &["kubernetes.io/h2c"],
            _ => &["kubernetes.io/h2c", "http"],
        }
    }

    /// True if the parser can serve a pool with this `appProtocol`. One that claims no protocol serves any.
    pub fn serves(self, app_protocol: &str) -> bool {
        let protocols = self.app_protocols();
        protocols.is_empty() || protocols.contains(&app_protocol)
    }

    /// The API that `path` means to this parser: the longest claimed suffix decides.
    pub fn api(self, path: &str) -> Option<Api> {
        let path = trimmed(path);
        let mut claims = self.suffixes().iter();
        claims.find(|(suffix, _)| ends_with_segments(path, suffix)).map(|(_, api)| *api)
    }
}

/// The parsers of a configuration.
#[derive(Clone, Debug)]
pub struct Parsers {
    /// Claimed suffixes, the longest first.
    claims: Vec<(&'static str, ParserKind)>,
    kinds: Vec<ParserKind>,
    fallback: Option<ParserKind>,
}

impl Parsers {
    /// Parsers in the order of the configuration. A parser without suffixes becomes the fallback and ends the list. One
    /// that is listed twice, or behind the fallback, has no effect.
    pub fn new(kinds: impl IntoIterator<Item = ParserKind>) -> Self {
        let mut parsers = Self { claims: Vec::new(), kinds: Vec::new(), fallback: None };
        for kind in kinds {
            if parsers.fallback.is_some() || parsers.kinds.contains(&kind) {
                continue;
            }
            parsers.kinds.push(kind);
            if kind.suffixes().is_empty() {
                parsers.fallback = Some(kind);
            }
            parsers.claims.extend(kind.suffixes().iter().map(|(suffix, _)| (*suffix, kind)));
        }
        parsers.claims.sort_by_key(|(suffix, _)| std::cmp::Reverse(suffix.len()));
        parsers
    }

    /// The parser of `path`: the longest claimed suffix wins over all parsers, then the fallback. A suffix matches
    /// whole path segments; slashes and spaces at the end of the path and a query do not count. `None` if no parser
    /// wants the path.
    pub fn resolve(&self, path: &str) -> Option<ParserKind> {
        let path = trimmed(path);
        let claim = self.claims.iter().find(|(suffix, _)| ends_with_segments(path, suffix));
        claim.map(|(_, kind)| *kind).or(self.fallback)
    }

    /// The parsers in effect, in order.
    pub fn kinds(&self) -> &[ParserKind] {
        &self.kinds
    }
}

impl Default for Parsers {
    /// The list that holds when the configuration names none.
    fn default() -> Self {
        Self::new(ParserKind::DEFAULT)
    }
}

/// The path that decides on the parser: the first of the path headers that is not empty, without its query. Bytes that
/// are no UTF-8 become U+FFFD.
pub fn routing_path(headers: &Headers) -> Cow<'_, str> {
    let path = PATH_HEADERS.iter().filter_map(|name| headers.get(name)).find(|path| !path.is_empty());
    path.map_or(Cow::Borrowed(DEFAULT_PATH), |path| {
        String::from_utf8_lossy(path.split(|byte| *byte == b'?').next().unwrap_or_default())
    })
}

/// A path without query and without slashes and spaces at its end.
fn trimmed(path: &str) -> &str {
    path.split('?').next().unwrap_or_default().trim_end_matches(['/', ' '])
}

/// True if the last segments of `path` are those of `suffix`.
fn ends_with_segments(path: &str, suffix: &str) -> bool {
    let Some(before) = path.strip_suffix(suffix) else { return false };
    // A service of gRPC has its package before its name.
    before.is_empty()
        || before.ends_with('/')
        || (before.ends_with('.') && suffix.starts_with(char::is_uppercase))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(path: &str) -> Option<(ParserKind, Option<Api>)> {
        Parsers::default().resolve(path).map(|kind| (kind, kind.api(path)))
    }

    #[test]
    fn every_claimed_path_finds_its_parser_and_api() {
        use ParserKind::{Anthropic, OpenAi, VllmHttp};
        for (path, kind, api) in [
            ("/v1/chat/completions", OpenAi, Api::ChatCompletions),
            ("/v1/completions", OpenAi, Api::Completions),
            ("/v1/embeddings", OpenAi, Api::Embeddings),
            ("/v1/responses", OpenAi, Api::Responses),
            ("/v1/conversations", OpenAi, Api::Conversations),
            ("/v1/chat/completions/render", OpenAi, Api::ChatCompletions),
            ("/v1/completions/render", OpenAi, Api::Completions),
            ("/v1/images/generations", OpenAi, Api::Images),
            ("/v1/messages", Anthropic, Api::Messages),
            ("/v1/messages/count_tokens", Anthropic, Api::CountTokens),
            ("/inference/v1/generate", VllmHttp, Api::Generate),
            ("/a/b/v1/chat/completions", OpenAi, Api::ChatCompletions),
            ("completions", OpenAi, Api::Completions),
            ("/v1/chat/completions/ ", OpenAi, Api::ChatCompletions),
            ("/v1/messages//", Anthropic, Api::Messages),
            ("/v1/completions?stream=/v1/messages", OpenAi, Api::Completions),
        ] {
            assert_eq!(resolve(path), Some((kind, Some(api))), "{path}");
        }
    }

    #[test]
    fn each_parser_lists_its_longest_suffixes_first() {
        for kind in ParserKind::ALL {
            assert!(
                kind.suffixes().is_sorted_by_key(|(suffix, _)| std::cmp::Reverse(suffix.len())),
                "{kind:?}"
            );
        }
    }

    #[test]
    fn services_of_grpc_are_found_with_and_without_their_package() {
        let parsers = Parsers::new([ParserKind::VllmGrpc, ParserKind::Vertex]);
        for (path, kind, api) in [
            ("/vllm.grpc.engine.VllmEngine/Generate", ParserKind::VllmGrpc, Api::GrpcGenerate),
            ("/vllm.grpc.engine.VllmEngine/Embed", ParserKind::VllmGrpc, Api::GrpcEmbed),
            (
                "/google.cloud.aiplatform.v1beta1.PredictionService/ChatCompletions",
                ParserKind::Vertex,
                Api::VertexChat,
            ),
            ("/PredictionService/StreamRawPredict", ParserKind::Vertex, Api::VertexRaw),
        ] {
            assert_eq!(parsers.resolve(path), Some(kind), "{path}");
            assert_eq!(kind.api(path), Some(api), "{path}");
        }
        assert_eq!(parsers.resolve("/MyPredictionService/RawPredict"), None);
        assert_eq!(resolve("/v1/my.completions"), Some((ParserKind::Passthrough, None)));
    }

    #[test]
    fn a_suffix_matches_whole_segments_only() {
        for path in ["/v1/xcompletions", "/v1/my-messages", "/generate", "/v1/completions/x", "", "/"] {
            assert_eq!(resolve(path), Some((ParserKind::Passthrough, None)), "{path}");
        }
    }

    #[test]
    fn without_a_fallback_an_unknown_path_has_no_parser() {
        let parsers = Parsers::new([ParserKind::Anthropic]);
        assert_eq!(parsers.resolve("/v1/completions"), None);
        assert_eq!(parsers.resolve("/v1/messages"), Some(ParserKind::Anthropic));
        assert_eq!(Parsers::new([]).resolve("/v1/messages"), None);
    }

    #[test]
    fn duplicates_and_what_stands_behind_the_fallback_have_no_effect() {
        use ParserKind::{Anthropic, OpenAi, Passthrough};
        let parsers = Parsers::new([OpenAi, OpenAi, Passthrough, Anthropic, Passthrough]);
        assert_eq!(parsers.kinds(), [OpenAi, Passthrough]);
        assert_eq!(parsers.resolve("/v1/messages"), Some(Passthrough));
    }

    #[test]
    fn type_names_are_read_back() {
        for kind in ParserKind::ALL {
            assert_eq!(ParserKind::from_type_name(kind.type_name()), Some(kind));
        }
        assert_eq!(ParserKind::from_type_name("sglang-parser"), None);
        assert_eq!(ParserKind::VllmGrpc.app_protocols(), ["kubernetes.io/h2c"]);
        assert_eq!(ParserKind::OpenAi.app_protocols(), ["kubernetes.io/h2c", "http"]);
        assert!(ParserKind::Passthrough.app_protocols().is_empty());
    }

    #[test]
    fn the_first_path_header_with_a_value_counts() {
        let path = |headers: &Headers| routing_path(headers).into_owned();
        assert_eq!(path(&Headers::new()), "/v1/completions");
        assert_eq!(path(&Headers::from([(":path", "/a?b=c?d"), ("x-original-path", "/o")])), "/a");
        assert_eq!(path(&Headers::from([(":path", ""), ("x-original-path", "/o")])), "/o");
        assert_eq!(path(&Headers::from([("x-forwarded-path", "/f"), ("x-original-path", "/o")])), "/o");
        let mut headers = Headers::new();
        headers.push(bytes::Bytes::from_static(b":path"), bytes::Bytes::from_static(b"/\xFF/completions"));
        assert_eq!(path(&headers), "/\u{FFFD}/completions");
        assert_eq!(resolve(&path(&headers)), Some((ParserKind::OpenAi, Some(Api::Completions))));
    }
}
