//! Series of requests and their responses.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use prometheus::{IntCounter, IntGauge};

use super::family::Twin;
use super::histogram_set::HistogramSet;
use super::labels::{Labels, RequestLabels};
use super::request_families::{CODES, RequestFamilies};
use crate::flow::DEFAULT_FLOW;
use crate::request::Usage;

/// One combination of label values, and its series as far as they were used.
pub(super) struct LabelSet {
    families: Arc<RequestFamilies>,
    labels: Labels,
    requests: OnceLock<Twin<IntCounter>>,
    running: OnceLock<Twin<IntGauge>>,
    /// Those of the set itself, or of one that it shares.
    histograms: ArcSwap<HistogramSet>,
    /// How often it was looked up since the last election.
    pub(super) uses: AtomicU64,
    /// How busy it was at the last election.
    pub(super) activity: AtomicU64,
}

impl LabelSet {
    pub(super) fn new(families: Arc<RequestFamilies>, labels: Labels, histograms: Arc<HistogramSet>) -> Self {
        Self {
            families,
            labels,
            requests: OnceLock::new(),
            running: OnceLock::new(),
            histograms: ArcSwap::new(histograms),
            uses: AtomicU64::new(0),
            activity: AtomicU64::new(0),
        }
    }

    pub(super) fn labels(&self) -> &Labels {
        &self.labels
    }

    pub(super) fn key(&self) -> RequestLabels<'_> {
        self.labels.key()
    }

    pub(super) fn histograms(&self) -> Arc<HistogramSet> {
        self.histograms.load_full()
    }

    pub(super) fn use_histograms(&self, histograms: Arc<HistogramSet>) {
        self.histograms.store(histograms);
    }

    /// Takes the series off the page, but the legacy ones, which have fewer labels, only if none of the `others` has
    /// them.
    pub(super) fn remove(&self, others: &[&Labels]) {
        let families = &*self.families;
        let values = self.labels.values();
        let models = |other: &Labels| {
            (&other.model, &other.target_model) == (&self.labels.model, &self.labels.target_model)
        };
        families.requests.remove_current(values);
        // This one was made at the start, for all time.
        if !(self.labels.model.is_empty() && &*self.labels.fairness_id == DEFAULT_FLOW) {
            families.running.remove_current(values);
        }
        for code in CODES {
            families.errors.remove_current(self.labels.values_and(code));
            families.error_gate.forget(&self.labels.values_and(code));
        }
        if !others.iter().any(|other| models(other) && other.priority_text == self.labels.priority_text) {
            families.requests.remove_legacy(values);
        }
        if !self.labels.model.is_empty() && !others.iter().any(|other| other.model == self.labels.model) {
            families.running.remove_legacy(values);
        }
        if !others.iter().any(|other| models(other)) {
            for code in CODES {
                families.errors.remove_legacy(self.labels.values_and(code));
            }
        }
    }
}

impl std::fmt::Debug for LabelSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.key().fmt(f)
    }
}

/// How a response went.
#[derive(Clone, Copy, Debug)]
pub struct ResponseStats {
    /// When the request headers came.
    pub received: Instant,
    /// When the first byte of the response body came, if any did.
    pub first_byte: Option<Instant>,
    /// When the response ended.
    pub completed: Instant,
    /// Bytes of the response body, as the model server sent it.
    pub response_bytes: u64,
    /// Token counts, if the response reported them.
    pub usage: Option<Usage>,
    /// The client asked for a stream, or the response was one.
    pub streaming: bool,
}

/// The series of one request. Cheap to clone; look it up once for each request.
#[derive(Clone, Debug)]
pub struct RequestMetrics {
    set: Arc<LabelSet>,
}

impl RequestMetrics {
    pub(super) fn new(set: Arc<LabelSet>) -> Self {
        Self { set }
    }

    /// The fairness id as the series have it: `other` once there are too many.
    pub fn fairness_id(&self) -> &str {
        &self.set.labels.fairness_id
    }

    /// Counts a request that was given an endpoint; its body, as sent on, has `size_bytes` bytes.
    pub fn requested(&self, size_bytes: u64) {
        let set = &*self.set;
        set.requests.get_or_init(|| set.families.requests.child(set.labels.values())).inc();
        let set = set.histograms.load();
        set.child(&set.request_size, &set.families.request_size).observe(size_bytes as f64);
    }

    /// Counts the request as running until the guard is dropped. Requests without a model are not counted.
    #[must_use = "dropping the guard ends the request"]
    pub fn running_guard(&self) -> RunningGuard {
        let counted = !self.set.labels.model.is_empty();
        if counted {
            self.set.running().add(1);
        }
        RunningGuard { set: counted.then(|| Arc::clone(&self.set)) }
    }

    /// Records a response that has ended. Time spans that run backwards, and token counts of zero, are left out; a
    /// cached count of zero is not.
    pub fn response_done(&self, stats: ResponseStats) {
        let histograms = self.set.histograms.load();
        let set = &**histograms;
        let families = &*set.families;
        let total = stats.completed.checked_duration_since(stats.received).filter(|span| !span.is_zero());
        if let Some(total) = total {
            set.child(&set.duration, &families.duration).observe(total.as_secs_f64());
        }
        set.child(&set.response_size, &families.response_size).observe(stats.response_bytes as f64);
        let first = stats.first_byte.and_then(|at| at.checked_duration_since(stats.received));
        if let Some(first) = first {
            set.ttft(stats.streaming).observe(first.as_secs_f64());
        }
        let Some(usage) = stats.usage else { return };
        let tokens = usage.completion_tokens;
        if usage.prompt_tokens > 0 {
            set.child(&set.input, &families.input).observe(usage.prompt_tokens as f64);
        }
        if tokens > 0 {
            set.child(&set.output, &families.output).observe(tokens as f64);
        }
        if let Some(cached) = usage.cached_tokens {
            set.child(&set.cached, &families.cached).observe(cached as f64);
        }
        let Some(total) = total.filter(|_| tokens > 0) else { return };
        set.child(&set.ntpot, &families.ntpot).observe(total.as_secs_f64() / tokens as f64);
        if let Some(first) = first.filter(|first| !first.is_zero() && *first < total)
            && stats.streaming
            && tokens > 1
        {
            let each = total.saturating_sub(first).as_secs_f64() / (tokens - 1) as f64;
            set.child(&set.tpot, &families.tpot).observe(each);
        }
    }

    /// Records the time between two chunks of a streamed response.
    pub fn inter_token(&self, gap: Duration) {
        let set = self.set.histograms.load();
        set.child(&set.itl, &set.families.itl).observe(gap.as_secs_f64());
    }

    /// Counts a failure. `code` comes from the closed set of error codes; an empty one counts nothing.
    pub fn error(&self, code: &str) {
        if !code.is_empty() {
            self.set.families.failed.child([code]).inc();
            let families = &*self.set.families;
            let values = self.set.labels.values_and(code);
            let folded = Labels::other();
            let admitted = families.error_gate.admits(&values);
            families.errors.child(if admitted { values } else { folded.values_and(code) }).inc();
        }
    }
}

impl LabelSet {
    fn running(&self) -> &Twin<IntGauge> {
        self.running.get_or_init(|| self.families.running.child(self.labels.values()))
    }
}

/// A running request. Dropping it ends the request, once.
#[derive(Debug)]
#[must_use = "dropping the guard ends the request"]
pub struct RunningGuard {
    set: Option<Arc<LabelSet>>,
}

impl Drop for RunningGuard {
    fn drop(&mut self) {
        if let Some(set) = &self.set {
            set.running().add(-1);
        }
    }
}
