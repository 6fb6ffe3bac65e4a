//! The last requests that a server received, byte for byte, for tests.

use std::collections::VecDeque;

use bytes::Bytes;
use http::request::Parts;
use serde::Serialize;
use xxhash_rust::xxh64::xxh64;

use super::config::unix_seconds;

/// The number of requests that are kept.
const KEPT: usize = 100;
/// The bytes of each body that are kept. The hash covers the whole body.
const BODY_KEPT: usize = 16 * 1024;

/// One request, as it was received.
#[derive(Debug, Clone, Serialize)]
pub struct Received {
    /// The number of the request, from 0.
    pub number: u64,
    /// The time of arrival, in seconds since 1970.
    pub at: f64,
    /// The method of the request.
    pub method: String,
    /// The path with the query.
    pub path: String,
    /// All header lines in order, with names in lower case. A repeated name is next to its first appearance.
    pub headers: Vec<(String, String)>,
    /// The length of the body in bytes.
    pub body_bytes: usize,
    /// The XXH64 hash of the body with seed 0, as sixteen hexadecimal digits.
    pub body_xxh64: String,
    /// The body as text, if it is UTF-8 and at most 16 KiB long.
    pub body: Option<String>,
}

/// The last requests.
#[derive(Debug, Default)]
pub(crate) struct ReceivedLog {
    requests: VecDeque<Received>,
    total: u64,
}

impl ReceivedLog {
    /// Adds a request that has been read to its end.
    pub(crate) fn note(&mut self, parts: &Parts, body: &Bytes) {
        let path = parts.uri.path_and_query().map_or_else(|| parts.uri.path(), |path| path.as_str());
        let headers = parts.headers.iter().map(|(name, value)| {
            (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        });
        if self.requests.len() == KEPT {
            self.requests.pop_front();
        }
        self.requests.push_back(Received {
            number: self.total,
            at: unix_seconds(),
            method: parts.method.as_str().to_owned(),
            path: path.to_owned(),
            headers: headers.collect(),
            body_bytes: body.len(),
            body_xxh64: format!("{:016x}", xxh64(body, 0)),
            body: if body.len() <= BODY_KEPT { String::from_utf8(body.to_vec()).ok() } else { None },
        });
        self.total += 1;
    }

    /// The last `n` requests, the oldest first.
    pub(crate) fn last(&self, n: usize) -> Vec<Received> {
        self.requests.iter().skip(self.requests.len().saturating_sub(n)).cloned().collect()
    }

    /// The number of all requests that were ever added.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// Forgets the requests, but not their number.
    pub(crate) fn clear(&mut self) {
        self.requests.clear();
    }
}
