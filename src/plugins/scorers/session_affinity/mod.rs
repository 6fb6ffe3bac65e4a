//! `session-affinity-scorer` (alpha): keeps a session on one endpoint, by one of two strategies.
//!
//! * `encoded_endpoint_header`: the client brings back a header that holds the endpoint's name in base64, as an earlier
//!   response set it. No state here; but nothing is signed, so a client can ask for any endpoint.
//! * `session_id`: a header names the session, and this process and its peers remember which endpoint it is bound to.
//!
//! The session's endpoint scores 1, all others 0; without a session, or with an unknown one, all score 0. `profileName`
//! names the profile whose choice counts, the primary one by default. Cost: one pass over the candidates; with
//! `session_id` also a look-up under a lock.

mod bindings;
mod encoded;
mod profile;
mod session_id;

use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use smallvec::SmallVec;

use crate::plugins::producers::session_id as session_id_producer;
use crate::plugins::{BuildCx, BuildError, PluginType, Roles, Stability};
use crate::prefix::SharedIndex;
use crate::scheduling::{Call, Filter, Mask, Scorer};
use profile::Profile;
use session_id::IdSource;

/// Registry row.
pub static TYPE: PluginType = PluginType::new("session-affinity-scorer", Stability::Alpha, build).about(
    "Prefers the endpoint that served the session before.",
    "Use it where a conversation must stay on one server; prefix-cache-scorer suits most other cases. \
         It costs one pass over the candidates, and with session ids a look-up under a lock.",
);

/// Registry row of the filter.
pub static FILTER: PluginType = PluginType::new("session-affinity-filter", Stability::Alpha, build_filter)
    .about(
        "Keeps only the endpoint that served the session before, if it is there.",
        "Use it where a conversation must not leave its server while that is there; session-affinity-scorer lets \
         other scorers have their say. It costs one pass over the candidates, and with session ids a look-up under a \
         lock.",
    );

/// Registry row of the filter where endpoints are clusters.
pub static MULTICLUSTER_FILTER: PluginType = PluginType {
    name: "multicluster-session-affinity-filter",
    reports_as: "multicluster-session-affinity-filter",
    ..FILTER
};

const DEFAULT_TTL_SECONDS: i64 = 300;

const DEFAULT_HEADER: &str = "x-session-token";

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Params {
    /// How a request says to which session it belongs.
    strategy: Strategy,
    /// The header of either strategy where its own configuration names none.
    header_name: String,
    /// Settings of the strategy `encoded_endpoint_header`.
    encoded_endpoint_header_config: EncodedConfig,
    /// Settings of the strategy `session_id`.
    session_id_config: SessionIdConfig,
    /// Profile whose target the session is bound to; empty means the primary one.
    profile_name: String,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Strategy {
    /// A response header gives the client the name of its endpoint in base64, and the client brings it back.
    #[default]
    EncodedEndpointHeader,
    /// A header names the session, and this process remembers its endpoint.
    SessionId,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct EncodedConfig {
    /// Request and response header; `headerName`, else `x-session-token`, if it is absent.
    header: String,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct SessionIdConfig {
    /// Where session ids come from, in order of preference; `headerName`, else `x-session-id`, if there is none.
    sources: Vec<Source>,
    /// Seconds without a request after which a session is forgotten; 0 means 300.
    eviction_ttl_seconds: i64,
    /// Without effect: sessions are forgotten when they expire.
    eviction_sweep_seconds: Option<i64>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Source {
    /// Request header.
    header: Option<String>,
    /// Request attribute.
    attribute: Option<String>,
    /// Producer of the attribute.
    producer: Option<String>,
}

/// The same as a filter: with a session whose endpoint is there, that one alone stays; else all do.
fn build_filter(cx: &mut BuildCx<'_>) -> Result<Roles, BuildError> {
    let mut roles = build(cx)?;
    if let Some(scorer) = roles.scorer.take() {
        roles.filter = Some(Arc::new(Only { scorer }));
    }
    Ok(roles)
}

struct Only {
    scorer: Arc<dyn Scorer>,
}

impl Filter for Only {
    fn narrow(&self, call: &Call<'_>, keep: &mut Mask) {
        let mut scores: SmallVec<[f64; 64]> = SmallVec::from_elem(0.0, call.len());
        self.scorer.score(call, &mut scores);
        if scores.iter().any(|score| *score > 0.0) {
            keep.retain(scores, |score| score > 0.0);
        }
    }
}

fn build(cx: &mut BuildCx<'_>) -> Result<Roles, BuildError> {
    let params: Params = cx.params()?;
    let profile = Profile { name: params.profile_name };
    let common = header(&params.header_name);
    not_negative(&params.session_id_config)?;
    match params.strategy {
        Strategy::EncodedEndpointHeader => {
            let own = header(&params.encoded_endpoint_header_config.header);
            let header = own.or(common).unwrap_or_else(|| DEFAULT_HEADER.to_owned());
            let plugin = Arc::new(encoded::EncodedEndpoint { header, profile });
            Ok(Roles::default().scorer(Arc::clone(&plugin) as _).response_headers(plugin))
        }
        Strategy::SessionId => {
            let ttl = ttl(cx, &params.session_id_config)?;
            let sources = sources(cx, params.session_id_config.sources, common)?;
            let plugin = Arc::new(session_id::SessionId::new(sources, profile, ttl, (cx.name(), cx.seed())));
            let shared_index: Option<Arc<dyn SharedIndex>> = Some(Arc::clone(&plugin) as _);
            let roles = Roles { shared_index, ..Roles::default() };
            Ok(roles.scorer(Arc::clone(&plugin) as _).pre_request(plugin))
        }
    }
}

fn ttl(cx: &mut BuildCx<'_>, config: &SessionIdConfig) -> Result<Duration, BuildError> {
    if config.eviction_sweep_seconds.is_some() {
        cx.warn(
            "sessionIdConfig.evictionSweepSeconds has no effect, sessions are forgotten when they expire",
        );
    }
    let seconds = match config.eviction_ttl_seconds {
        0 => DEFAULT_TTL_SECONDS,
        seconds => seconds,
    };
    u64::try_from(seconds)
        .map(Duration::from_secs)
        .map_err(|_| BuildError::at("sessionIdConfig.evictionTtlSeconds", "must not be negative"))
}

/// Both times are checked whatever the strategy is.
fn not_negative(config: &SessionIdConfig) -> Result<(), BuildError> {
    for (name, seconds) in [
        ("evictionTtlSeconds", config.eviction_ttl_seconds),
        ("evictionSweepSeconds", config.eviction_sweep_seconds.unwrap_or_default()),
    ] {
        if seconds < 0 {
            return Err(BuildError::at(format!("sessionIdConfig.{name}"), "must not be negative"));
        }
    }
    Ok(())
}

/// The name of a header as requests have it; `None` for an empty one, which stands for the default.
fn header(name: &str) -> Option<String> {
    let name = name.trim().to_ascii_lowercase();
    (!name.is_empty()).then_some(name)
}

/// Where session ids come from. `common` is the header to use where no source is listed.
fn sources(
    cx: &mut BuildCx<'_>,
    sources: Vec<Source>,
    common: Option<String>,
) -> Result<SmallVec<[IdSource; 1]>, BuildError> {
    if sources.is_empty() {
        let header = common.unwrap_or_else(|| "x-session-id".to_owned());
        return Ok(SmallVec::from_iter([IdSource::Header(header)]));
    }
    let mut found = SmallVec::new();
    for (index, Source { header, attribute, producer }) in sources.into_iter().enumerate() {
        let path = format!("sessionIdConfig.sources[{index}]");
        let set = |value: Option<String>| value.filter(|value| !value.trim().is_empty());
        match (set(header), set(attribute)) {
            (Some(header), None) if producer.is_none() => {
                found.push(IdSource::Header(header.trim().to_ascii_lowercase()));
            }
            (Some(_), None) => {
                return Err(BuildError::at(
                    format!("{path}.producer"),
                    "belongs to an attribute, not to a header",
                ));
            }
            (None, Some(attribute)) if is_session_id(&attribute) => {
                let producer = set(producer).unwrap_or_else(|| session_id_producer::TYPE.name.to_owned());
                found.push(IdSource::Produced(cx.consumes(&producer, None)));
            }
            (None, Some(attribute)) => {
                let message = format!(
                    "no plugin type produces the request attribute {attribute:?}; expected `SessionIDDataKey`, or a header instead"
                );
                return Err(BuildError::at(format!("{path}.attribute"), message));
            }
            _ => return Err(BuildError::at(path, "must name either a header or an attribute")),
        }
    }
    Ok(found)
}

/// True if an attribute of this name is the id of the session, as `session-id-producer` makes it.
fn is_session_id(attribute: &str) -> bool {
    let letters = attribute.trim().replace(['-', '_'], "").to_ascii_lowercase();
    matches!(letters.as_str(), "sessioniddatakey" | "sessionid")
}

#[cfg(test)]
mod tests;
