//! Stand-in plugins that carry the names of real ones and do nothing.

use std::sync::Arc;

use fastrand::Rng;
use schemars::JsonSchema;
use serde::Deserialize;
use smallvec::SmallVec;

use crate::config::{ConfigSource, LoadOptions, Plan, load};
use crate::document::{Level, Problems};
use crate::metrics::Metrics;
use crate::plugins::{
    BuildCx, BuildError, PluginType, Roles, Stability, discovery, flow_control, parsers, sources,
};
use crate::scheduling::{
    Call, Category, DecidedCall, Filter, HeaderEdits, Mask, Picker, PluginState, PreRequest, PreRequestError,
    Produced, Producer, ProfileHandler, ResponseCall, ResponseHeaderHook, Results, ScheduleError, Scorer,
};

struct Nothing;

impl Filter for Nothing {
    fn narrow(&self, _: &Call<'_>, _: &mut Mask) {}
}

impl Scorer for Nothing {
    fn category(&self) -> Category {
        Category::Balance
    }

    fn score(&self, _: &Call<'_>, _: &mut [f64]) {}
}

impl Picker for Nothing {
    fn pick(&self, _: &Call<'_>, _: &[f64], _: &mut Rng, _: &mut SmallVec<[u32; 4]>) {}
}

impl ProfileHandler for Nothing {
    fn pick(&self, _: &Call<'_>, _: &[Arc<str>], _: &mut Results) -> SmallVec<[usize; 2]> {
        SmallVec::new()
    }

    fn conclude(
        &self,
        _: &[Arc<str>],
        _: &Results,
        _: &mut SmallVec<[(usize, ScheduleError); 1]>,
    ) -> Result<usize, ScheduleError> {
        Ok(0)
    }
}

impl Producer for Nothing {
    fn produce(&self, _: &Call<'_>) -> Result<SmallVec<[Produced; 1]>, String> {
        Ok(SmallVec::new())
    }
}

impl PreRequest for Nothing {
    fn before_forward(
        &self,
        _: &DecidedCall<'_>,
        _: &mut HeaderEdits,
    ) -> Result<PluginState, PreRequestError> {
        Ok(None)
    }
}

impl ResponseHeaderHook for Nothing {
    fn on_response_headers(&self, _: &ResponseCall<'_>, _: &mut PluginState, _: &mut HeaderEdits) {}
}

/// Prefix matches.
pub(super) struct Match;
/// Tokens.
pub(super) struct Tokens;

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct PrefixParams {
    prefix_match_info_producer_name: Option<String>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct BlockParams {
    block_size: u32,
    max_prefix_tokens: u32,
}

type Built = Result<Roles, BuildError>;

const fn beta(name: &'static str, build: fn(&mut BuildCx<'_>) -> Built) -> PluginType {
    PluginType::new(name, Stability::Beta, build)
}

#[expect(clippy::unnecessary_wraps, reason = "the registry sets the signature")]
fn scorer(cx: &mut BuildCx<'_>) -> Built {
    cx.no_params();
    Ok(Roles::default().scorer(Arc::new(Nothing)))
}

fn prefix_scorer(cx: &mut BuildCx<'_>) -> Built {
    let params: PrefixParams = cx.params()?;
    let default = "approx-prefix-cache-producer";
    let producer = params.prefix_match_info_producer_name.unwrap_or_else(|| default.to_owned());
    cx.consumes::<Match>(&producer, Some(default));
    Ok(Roles::default().scorer(Arc::new(Nothing)))
}

fn prefix_producer(cx: &mut BuildCx<'_>) -> Built {
    let params: BlockParams = cx.params()?;
    if params.block_size > 1024 {
        return Err(BuildError::at("blockSize", format!("got {}, expected at most 1024", params.block_size)));
    }
    let _ = params.max_prefix_tokens;
    cx.consumes::<Tokens>("token-producer", Some("token-producer"));
    cx.produces::<Match>();
    Ok(Roles::default().producer(Arc::new(Nothing)).pre_request(Arc::new(Nothing)))
}

#[expect(clippy::unnecessary_wraps, reason = "the registry sets the signature")]
fn session(_: &mut BuildCx<'_>) -> Built {
    let roles = Roles::default().scorer(Arc::new(Nothing));
    Ok(roles.pre_request(Arc::new(Nothing)).response_headers(Arc::new(Nothing)))
}

#[expect(clippy::unnecessary_wraps, reason = "the registry sets the signature")]
fn ring(cx: &mut BuildCx<'_>) -> Built {
    let other = if cx.name() == "ring-a" { "ring-b" } else { "ring-a" };
    cx.consumes::<Match>(other, None);
    cx.produces::<Match>();
    Ok(Roles::default().producer(Arc::new(Nothing)))
}

static QUEUE: PluginType = beta("queue-scorer", scorer);
static KV: PluginType = beta("kv-cache-utilization-scorer", scorer);
static ACTIVE: PluginType = beta("active-request-scorer", scorer);
static PREFIX: PluginType = beta("prefix-cache-scorer", prefix_scorer);
static APPROX: PluginType = beta("approx-prefix-cache-producer", prefix_producer);
static TOKENS: PluginType = beta("token-producer", |cx| {
    cx.produces::<Tokens>();
    Ok(Roles::default().producer(Arc::new(Nothing)))
});
static MAX: PluginType = beta("max-score-picker", |_| Ok(Roles::default().picker(Arc::new(Nothing))));
static RANDOM: PluginType = beta("random-picker", |_| Ok(Roles::default().picker(Arc::new(Nothing))));
static SINGLE: PluginType =
    beta("single-profile-handler", |_| Ok(Roles::default().profile_handler(Arc::new(Nothing))));
static DISAGG: PluginType =
    beta("disagg-profile-handler", |_| Ok(Roles::default().profile_handler(Arc::new(Nothing))));
static LABEL: PluginType = beta("label-selector-filter", |_| Ok(Roles::default().filter(Arc::new(Nothing))));
static BY_LABEL: PluginType = beta("by-label-selector", |_| Ok(Roles::default().filter(Arc::new(Nothing))))
    .superseded_by("label-selector-filter", "v0.9.0");
static LENGTH: PluginType = beta("context-length-aware", |cx| {
    cx.may_consume::<Tokens>("token-producer");
    Ok(Roles::default().filter(Arc::new(Nothing)).scorer(Arc::new(Nothing)))
});
static RING: PluginType = beta("ring", ring);
static SESSION: PluginType = PluginType::new("session-affinity-scorer", Stability::Alpha, session);

static FAKES: &[&PluginType] = &[
    &QUEUE,
    &KV,
    &ACTIVE,
    &PREFIX,
    &APPROX,
    &TOKENS,
    &MAX,
    &RANDOM,
    &SINGLE,
    &DISAGG,
    &LABEL,
    &BY_LABEL,
    &LENGTH,
    &RING,
    &SESSION,
    &parsers::OPENAI,
    &parsers::ANTHROPIC,
    &parsers::VLLM_HTTP,
    &parsers::PASSTHROUGH,
    &sources::METRICS_DATA_SOURCE,
    &sources::CORE_METRICS_EXTRACTOR,
    &discovery::FILE_DISCOVERY,
    &flow_control::utilization_detector::TYPE,
    &flow_control::concurrency_detector::TYPE,
    &flow_control::ordering::FCFS,
    &flow_control::ordering::EDF,
    &flow_control::fairness::GLOBAL_STRICT,
    &flow_control::fairness::ROUND_ROBIN,
    &flow_control::usage_limits::STATIC,
    &flow_control::usage_limits::PRIORITY_HOLDBACK,
];

/// Options over the stand-ins.
pub(super) fn options() -> LoadOptions {
    LoadOptions { registry: FAKES, ..LoadOptions::new(Arc::new(Metrics::new())) }
}

/// Loads `text` over the stand-ins.
pub(super) fn load_text(text: &str) -> Result<Plan, Problems> {
    load(&ConfigSource::Text(text.to_owned()), &options())
}

/// The plan of `text`, which must load.
pub(super) fn plan(text: &str) -> Plan {
    load_text(text).unwrap_or_else(|problems| panic!("{problems}"))
}

/// Errors of `text`, which must not load, as `line: path: message`.
pub(super) fn errors(text: &str) -> Vec<String> {
    let problems = load_text(text).expect_err("must not load");
    of_level(&problems, Level::Error)
}

/// Warnings of `text`, which must load.
pub(super) fn warnings(text: &str) -> Vec<String> {
    of_level(&plan(text).problems, Level::Warning)
}

/// Notes of `text`, which must load.
pub(super) fn notes(text: &str) -> Vec<String> {
    of_level(&plan(text).problems, Level::Note)
}

fn of_level(problems: &Problems, level: Level) -> Vec<String> {
    let strip = |text: String| text.strip_prefix("--config-text:").unwrap_or(&text).trim_start().to_owned();
    problems.of(level).map(|problem| strip(problem.to_string())).collect()
}
