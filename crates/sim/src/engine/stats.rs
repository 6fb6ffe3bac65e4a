//! The counters and histograms of an engine, in the form of its metrics page.

/// The most bounds of a histogram.
const MAX_BOUNDS: usize = 22;

/// The upper bounds for numbers of tokens.
pub(crate) const TOKEN_BOUNDS: &[f64] =
    &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0];
/// The upper bounds for the tokens in one step.
pub(crate) const STEP_BOUNDS: &[f64] =
    &[1.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0];
/// The upper bounds for the request parameter `n`.
pub(crate) const CHOICE_BOUNDS: &[f64] = &[1.0, 2.0, 5.0, 10.0, 20.0];
/// The upper bounds for the preemptions of one request.
pub(crate) const PREEMPTION_BOUNDS: &[f64] = &[1.0, 2.0, 3.0, 4.0, 5.0, 10.0, 20.0];
/// The upper bounds for the time to the first token, in seconds.
pub(crate) const FIRST_TOKEN_BOUNDS: &[f64] = &[
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0,
    80.0, 160.0, 640.0, 2560.0,
];
/// The upper bounds for the time between tokens, in seconds.
pub(crate) const TOKEN_GAP_BOUNDS: &[f64] = &[
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
];
/// The upper bounds for the phases of a request, in seconds.
pub(crate) const PHASE_BOUNDS: &[f64] = &[
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0,
    960.0, 1920.0, 7680.0,
];

/// A histogram with fixed bounds. It is plain data, so that copying a set of histograms costs no allocation.
#[derive(Debug, Clone)]
pub(crate) struct Histogram {
    bounds: &'static [f64],
    counts: [u64; MAX_BOUNDS + 1],
    sum: f64,
}

impl Histogram {
    /// Makes an empty histogram. `bounds` must ascend, and there may be at most [`MAX_BOUNDS`].
    pub(crate) fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, counts: [0; MAX_BOUNDS + 1], sum: 0.0 }
    }

    /// Counts one value.
    pub(crate) fn observe(&mut self, value: f64) {
        let index = self.bounds.partition_point(|bound| *bound < value);
        if let Some(count) = self.counts.get_mut(index) {
            *count += 1;
        }
        self.sum += value;
    }

    /// The upper bounds, without infinity.
    pub(crate) fn bounds(&self) -> &'static [f64] {
        self.bounds
    }

    /// The number of values that are at most the bound with this index. The index after the last one means all values.
    pub(crate) fn cumulative(&self, index: usize) -> u64 {
        self.counts.iter().take(index + 1).sum()
    }

    /// The number of values.
    pub(crate) fn count(&self) -> u64 {
        self.cumulative(self.bounds.len())
    }

    /// The sum of all values.
    pub(crate) fn sum(&self) -> f64 {
        self.sum
    }
}

/// The counters and histograms of one engine since its start.
#[derive(Debug, Clone)]
pub(crate) struct Stats {
    /// The prompt tokens of requests that have their first token.
    pub(crate) prompt_tokens: u64,
    /// The tokens among them that came from the prefix cache.
    pub(crate) cached_tokens: u64,
    /// The generated tokens.
    pub(crate) generation_tokens: u64,
    /// The prompt tokens that were looked up in the prefix cache.
    pub(crate) cache_queries: u64,
    /// The prompt tokens that the prefix cache had.
    pub(crate) cache_hits: u64,
    /// The number of times that a running request lost its blocks to another request.
    pub(crate) preemptions: u64,
    /// The requests that were refused because the queue was full.
    pub(crate) queue_rejections: u64,
    /// The requests whose answer ended by itself.
    pub(crate) stopped: u64,
    /// The requests that ended at their token limit.
    pub(crate) limited: u64,
    /// The requests that their client cancelled.
    pub(crate) aborted: u64,
    pub(crate) request_prompt_tokens: Histogram,
    pub(crate) request_generation_tokens: Histogram,
    pub(crate) iteration_tokens: Histogram,
    pub(crate) max_generation_tokens: Histogram,
    pub(crate) params_n: Histogram,
    pub(crate) params_max_tokens: Histogram,
    pub(crate) time_to_first_token: Histogram,
    pub(crate) inter_token_latency: Histogram,
    pub(crate) time_per_output_token: Histogram,
    pub(crate) e2e_latency: Histogram,
    pub(crate) queue_time: Histogram,
    pub(crate) inference_time: Histogram,
    pub(crate) prefill_time: Histogram,
    pub(crate) decode_time: Histogram,
    pub(crate) request_preemptions: Histogram,
    pub(crate) prefill_computed_tokens: Histogram,
}

impl Default for Stats {
    fn default() -> Self {
        let tokens = || Histogram::new(TOKEN_BOUNDS);
        let gaps = || Histogram::new(TOKEN_GAP_BOUNDS);
        let phases = || Histogram::new(PHASE_BOUNDS);
        Self {
            prompt_tokens: 0,
            cached_tokens: 0,
            generation_tokens: 0,
            cache_queries: 0,
            cache_hits: 0,
            preemptions: 0,
            queue_rejections: 0,
            stopped: 0,
            limited: 0,
            aborted: 0,
            request_prompt_tokens: tokens(),
            request_generation_tokens: tokens(),
            iteration_tokens: Histogram::new(STEP_BOUNDS),
            max_generation_tokens: tokens(),
            params_n: Histogram::new(CHOICE_BOUNDS),
            params_max_tokens: tokens(),
            time_to_first_token: Histogram::new(FIRST_TOKEN_BOUNDS),
            inter_token_latency: gaps(),
            time_per_output_token: gaps(),
            e2e_latency: phases(),
            queue_time: phases(),
            inference_time: phases(),
            prefill_time: phases(),
            decode_time: phases(),
            request_preemptions: Histogram::new(PREEMPTION_BOUNDS),
            prefill_computed_tokens: tokens(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_on_a_bound_belongs_to_that_bound() {
        let mut histogram = Histogram::new(CHOICE_BOUNDS);
        for value in [1.0, 1.5, 20.0, 21.0] {
            histogram.observe(value);
        }
        let cumulative: Vec<u64> = (0..=5).map(|index| histogram.cumulative(index)).collect();
        assert_eq!(cumulative, [1, 2, 2, 2, 3, 4]);
        assert_eq!((histogram.count(), histogram.sum()), (4, 43.5));
    }

    #[test]
    fn every_set_of_bounds_fits_and_ascends() {
        for bounds in [
            TOKEN_BOUNDS,
            STEP_BOUNDS,
            CHOICE_BOUNDS,
            PREEMPTION_BOUNDS,
            FIRST_TOKEN_BOUNDS,
            TOKEN_GAP_BOUNDS,
            PHASE_BOUNDS,
        ] {
            assert!(bounds.len() <= MAX_BOUNDS);
            assert!(bounds.is_sorted());
        }
    }
}
