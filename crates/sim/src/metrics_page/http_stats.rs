//! The counters of vLLM's HTTP layer: requests, sizes and durations by handler.

use std::time::Duration;

use crate::engine::stats::Histogram;

const FINE_BOUNDS: &[f64] = &[
    0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 7.5, 10.0,
    30.0, 60.0,
];
const COARSE_BOUNDS: &[f64] = &[0.1, 0.5, 1.0];

/// A request that was answered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Served {
    /// The route template. There are only a few.
    pub(crate) handler: &'static str,
    /// The method, or `OTHER`.
    pub(crate) method: &'static str,
    /// The status code.
    pub(crate) status: u16,
    /// The bytes of the request body.
    pub(crate) request_bytes: u64,
    /// The bytes of the response body, if they are known in advance.
    pub(crate) response_bytes: u64,
    /// The time until the response headers.
    pub(crate) took: Duration,
}

/// A count and a sum.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Summary {
    pub(super) count: u64,
    pub(super) sum: u64,
}

/// All counters since the start. Their number grows only with the list of routes.
#[derive(Debug, Clone)]
pub(crate) struct HttpStats {
    /// The requests, by handler, method and status class.
    pub(super) requests: Vec<((&'static str, &'static str, &'static str), u64)>,
    /// The sizes of request bodies, by handler.
    pub(super) request_sizes: Vec<(&'static str, Summary)>,
    /// The sizes of response bodies, by handler.
    pub(super) response_sizes: Vec<(&'static str, Summary)>,
    /// The durations of all requests.
    pub(super) fine: Histogram,
    /// The durations of requests, by handler and method.
    pub(super) coarse: Vec<((&'static str, &'static str), Histogram)>,
    version: u64,
}

impl Default for HttpStats {
    fn default() -> Self {
        Self {
            requests: Vec::new(),
            request_sizes: Vec::new(),
            response_sizes: Vec::new(),
            fine: Histogram::new(FINE_BOUNDS),
            coarse: Vec::new(),
            version: 0,
        }
    }
}

impl HttpStats {
    /// Counts one request.
    pub(crate) fn record(&mut self, served: &Served) {
        let class = match served.status {
            200..300 => "2xx",
            300..400 => "3xx",
            400..500 => "4xx",
            500..600 => "5xx",
            _ => "1xx",
        };
        let seconds = served.took.as_secs_f64();
        *entry(&mut self.requests, (served.handler, served.method, class), || 0) += 1;
        for (sizes, bytes) in [
            (&mut self.request_sizes, served.request_bytes),
            (&mut self.response_sizes, served.response_bytes),
        ] {
            let summary = entry(sizes, served.handler, Summary::default);
            summary.count += 1;
            summary.sum += bytes;
        }
        self.fine.observe(seconds);
        entry(&mut self.coarse, (served.handler, served.method), || Histogram::new(COARSE_BOUNDS))
            .observe(seconds);
        self.version += 1;
    }

    /// The version, which grows with each recorded request.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }
}

fn entry<K: PartialEq, V>(entries: &mut Vec<(K, V)>, key: K, new: impl FnOnce() -> V) -> &mut V {
    let index = entries.iter().position(|(known, _)| *known == key).unwrap_or_else(|| {
        entries.push((key, new()));
        entries.len() - 1
    });
    &mut entries[index].1
}
