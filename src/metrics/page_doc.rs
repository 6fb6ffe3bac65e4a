//! `docs/metrics.md`, from the families themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use super::Format;
use super::tests::exercised;
use crate::generated::{keep, wrapped};

const HEAD: &str = "# Metrics

This page is made from the code by `make docs`. It lists every series of `/metrics`, with its labels, its buckets and
its older name.

* Series that begin with `llm_d_epp_` are those of the reference. Each older name carries the same values, so dashboards
  go on working.
* Series that begin with `pointsman_` exist here alone.
* The series `process_*` are those of every Prometheus client: processor seconds, memory, descriptors and the start
  time.
* Most series appear with their first event. These exist from the start, so that an autoscaler's query and an alert's
  `rate()` find them: `llm_d_epp_request_running`, the queue gauges of each configured priority,
  `pointsman_request_errors_total` and `pointsman_extproc_refusals_total` for each reason.
* Which series to alert on first: [deploy/monitoring/README.md](../deploy/monitoring/README.md).
* What each refusal means: [refusals.md](refusals.md).

## Labels
";

/// Each label with the meaning of its values.
const LABELS: &[(&str, &str)] = &[
    (
        "api",
        "the API of the path: `chat_completions`, `completions`, `responses`, `messages`, `embeddings` and so on",
    ),
    (
        "type",
        "kind of latency: `ttft` or `tpot`; of the figures of the last request also `predicted_…`, `…_prediction_duration` and `…_slo_violation`",
    ),
    ("latency", "`ttft`: to the first token; `tpot`: from token to token"),
    ("bound", "the bound that was reached; [limits.md](limits.md) lists them"),
    ("build_ref", "version of this build"),
    (
        "choice",
        "whose choice it is: `running`, the configuration that serves, or `shadow`, the one beside it",
    ),
    ("code", "gRPC code (`OK`, `Canceled`, …) of a stream, or HTTP status of a refusal"),
    ("commit", "commit of this build"),
    ("operation", "what was tried: `connect`, `receive`, `decode`, `replay`"),
    ("pod_identifier", "address and port of an endpoint"),
    (
        "decision_type",
        "stages of a request that got servers of their own: `decode-only`, `prefill-decode`, `encode-decode`, `encode-prefill-decode`",
    ),
    ("detector", "type of the saturation detector"),
    (
        "end",
        "`complete`; `error_event`: the stream reported an error; `error_status`: the status was 400 or more; `closed_after_usage`: the response broke off behind its usage, before its end; `cut_off`: it broke off; `no_response`: none came; `evicted`: the request was stopped for a more important one",
    ),
    ("endpoint_name", "name of the endpoint's pod, or its name in the endpoints file"),
    (
        "error_code",
        "canonical code of the error: `BadRequest`, `PayloadTooLarge`, `PreconditionFailed`, `ResourceExhausted`, `Internal`, `ServiceUnavailable`, or `ModelServerError` where the model server answered with an error",
    ),
    (
        "extension_point",
        "where the plugin was called: `RequestHeader`, `Screener`, `Admission`, `ProfilePicker`, `Filter`, `Scorer`, `Picker`, `ProcessProfilesResults`, `RequestParsing`, `ResponseParsing`, `DataProducer`, `PreRequest`, `ResponseReceived`, `ResponseComplete`",
    ),
    ("extractor_type", "plugin type of the extractor"),
    (
        "fairness_id",
        "tenant of the request: the header `x-llm-d-inference-fairness-id`, else what `agent-identity` finds, else `default-flow`. The busiest tenants keep their own value, the others count as `other`",
    ),
    ("group", "API group of the watched resource"),
    ("inference_pool", "name of the pool"),
    ("label", "the label whose values were folded"),
    ("modality", "kind of a media item: `image`, `audio`, `video`"),
    ("model_name", "model that the client asked for; models beyond the bound of series count as `other`"),
    ("model_rewrite_name", "name of the InferenceModelRewrite that matched"),
    ("model_server_endpoint", "the endpoint as `NAMESPACE/NAME`, or its name"),
    ("model_server_pod", "name of the pod"),
    ("name", "name of the pool or of the prefix index"),
    ("namespace", "namespace of the pod"),
    (
        "outcome",
        "how it ended; the possible values stand in the meaning of the series, and for flow control in [refusals.md](refusals.md#outcomes-of-flow-control)",
    ),
    ("plugin_name", "instance name of the plugin"),
    ("plugin_type", "type of the plugin"),
    ("peer", "address of a replica's port for peers"),
    ("connection", "`write` or `read`"),
    ("direction", "`sent` or `received`"),
    ("profile", "name of the scheduling profile"),
    ("pod", "name of the endpoint's pod, or its name in the endpoints file"),
    ("pod_name", "name of the chosen pod"),
    (
        "port",
        "port of the endpoint, or the port of this program: `grpc`, `health`, `metrics`, `page`, `keda-scaler`",
    ),
    ("priority", "priority of the request, from its objective; 0 without one"),
    ("producer_name", "instance name of the producer"),
    ("program_id", "program of program-aware fairness"),
    (
        "check",
        "what was compared: `count` (number of prompt tokens), `events` (blocks that the engine told of), `hit` (cached tokens)",
    ),
    ("server_version", "revision of the pods that serve, from their labels; empty where they have none"),
    ("tier", "where an engine keeps a block: `gpu`, `cpu`, `other`, or `sent`"),
    (
        "result",
        "of split serving `transferred`, `no_transfer_params`, `prefill_failed`; of exact tokens `matched`, `mismatched`; `more`: more is cached than was predicted; `evicted`, `silent`, `lost`: nothing could be compared, because the engine removed blocks, or told nothing, or too much waited; of the shadow's choices `agree`, `differ`, and `only_shadow` or `only_running` where one of both alone chooses; of its requests `compared`, `skipped`, `bound`, `failed`; of captures `written`, `dropped`",
    ),
    ("reason", "why; for refusals see [refusals.md](refusals.md)"),
    ("resource", "kind of the watched resource in the plural: `pods`, `inferencepools`, …"),
    (
        "source",
        "the watched source: `file` for the endpoints file; of cached tokens `predicted` or `observed`",
    ),
    ("source_type", "plugin type of the data source"),
    ("stage", "stage of serving that saturation was measured for; empty if all endpoints serve all stages"),
    (
        "state",
        "`fresh`: read lately; `stale`: read too long ago; `never`: not read yet; `unreachable`: its metrics port does not answer; of exact tokens `unknown`, `exact`, `suspect`, `off`; of split serving `unknown`, `transferring`, `no_transfer`, `prefill_fails`, `silent`",
    ),
    ("status", "`success` or `failure`"),
    ("stream", "`stderr` or `stdout`"),
    ("streaming", "`true` for responses that were streamed"),
    ("target_model", "model that the request was sent on with"),
    ("target_model_name", "model that the request was sent on with, after rewriting"),
];

/// A family as the page shows it.
#[derive(Default)]
struct Shown {
    help: String,
    kind: String,
    labels: BTreeSet<String>,
    buckets: Vec<String>,
}

/// All families by name, from a page on which every family has a series.
fn families(page: &str) -> BTreeMap<String, Shown> {
    let mut families: BTreeMap<String, Shown> = BTreeMap::new();
    let mut current = String::new();
    for line in page.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            name.clone_into(&mut current);
            help.clone_into(&mut families.entry(current.clone()).or_default().help);
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            kind.clone_into(&mut families.entry(name.to_owned()).or_default().kind);
        } else if let Some((_, rest)) = line.split_once('{') {
            let Some(family) = families.get_mut(&current) else { continue };
            let labels = rest.rsplit_once('}').map_or("", |(labels, _)| labels);
            for (name, value) in labels.split("\",").filter_map(|pair| pair.split_once("=\"")) {
                let value = value.trim_end_matches('"');
                if name != "le" {
                    family.labels.insert(name.to_owned());
                } else if !family.buckets.iter().any(|bucket| bucket == value) {
                    family.buckets.push(value.to_owned());
                }
            }
        }
    }
    families.retain(|name, _| !name.starts_with("process_"));
    families
}

/// Without the marks that the reference puts in front of help texts.
fn meaning(help: &str) -> &str {
    help.rsplit_once("] ").map_or(help, |(_, meaning)| meaning)
}

fn coded<'a>(names: impl IntoIterator<Item = &'a String>) -> String {
    names.into_iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// The current name that a help text of an older family points to.
fn current_name(help: &str) -> Option<&str> {
    let (_, rest) = help.split_once("[Deprecated: Use ")?;
    rest.split_once(']').map(|(name, _)| name)
}

/// The text with a capital first letter.
fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn section(page: &mut String, name: &str, family: &Shown, older: &[(&str, &Shown)]) {
    let mut text = format!("\n### `{name}`\n\n");
    text.push_str(&wrapped(&format!("{}: {}", capital(&family.kind), meaning(&family.help)), ""));
    text.push('\n');
    if !family.labels.is_empty() {
        writeln!(text, "\n{}", wrapped(&format!("Labels: {}.", coded(&family.labels)), "")).unwrap();
    }
    if !family.buckets.is_empty() {
        writeln!(text, "\n{}", wrapped(&format!("Buckets: {}.", family.buckets.join(", ")), "")).unwrap();
    }
    for (name, shown) in older {
        let labels = if shown.labels.is_empty() { "none".to_owned() } else { coded(&shown.labels) };
        let same = if shown.labels == family.labels { "the same".to_owned() } else { labels };
        writeln!(text, "\n{}", wrapped(&format!("Older name: `{name}`; labels: {same}."), "")).unwrap();
    }
    page.push_str(&text);
}

fn page() -> String {
    let (metrics, _pool) = exercised();
    let families = families(&metrics.encode(Format::Text));
    let mut older: BTreeMap<&str, Vec<(&str, &Shown)>> = BTreeMap::new();
    for (name, family) in &families {
        if let Some(current) = current_name(&family.help) {
            older.entry(current).or_default().push((name, family));
        }
    }
    let mut page = HEAD.to_owned();
    let used: BTreeSet<&String> = families.values().flat_map(|family| &family.labels).collect();
    for label in used {
        let meaning = LABELS.iter().find(|(name, _)| name == label);
        let (_, meaning) = meaning.unwrap_or_else(|| panic!("{label} has no meaning in LABELS"));
        write!(page, "\n{}", wrapped(&format!("* `{label}`: {meaning}."), "  ")).unwrap();
    }
    page.push('\n');
    let groups = [
        ("Series of the reference", "llm_d_epp_"),
        ("Series of Pointsman alone", "pointsman_"),
        ("Series that have an older name only", "inference_"),
    ];
    for (title, prefix) in groups {
        write!(page, "\n## {title}\n").unwrap();
        for (name, family) in &families {
            if name.starts_with(prefix) && current_name(&family.help).is_none() {
                section(&mut page, name, family, older.get(name.as_str()).map_or(&[], Vec::as_slice));
            }
        }
    }
    page
}

#[test]
fn the_generated_page_of_metrics_is_what_the_program_exports() {
    let page = page();
    let lost: Vec<&str> = include_str!("../../tests/data/metrics_golden.txt")
        .lines()
        .filter_map(|line| line.split_once(' ')?.1.split('{').next())
        .filter(|name| !page.contains(&format!("`{name}`")))
        .collect();
    assert!(lost.is_empty(), "{lost:?} are not on the page");
    for (label, meaning) in LABELS {
        assert!(page.contains(&format!("* `{label}`: ")), "nothing has the label {label} ({meaning})");
    }
    keep("docs/metrics.md", &page);
}
