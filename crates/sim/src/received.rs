//! The requests that a server received lately, byte for byte, for tests to look at.

use std::collections::VecDeque;

use bytes::Bytes;
use http::request::Parts;
use serde::Serialize;
use xxhash_rust::xxh64::xxh64;

use super::config::unix_seconds;

/// Requests kept.
const KEPT: usize = 100;
/// Bytes of each body kept; the hash is over all of it.
const BODY_KEPT: usize = 16 * 1024;

/// One request as it came over the wire.
#[derive(Debug, Clone, Serialize)]
pub struct Received {
    /// Counts all requests from 0.
    pub number: u64,
    /// Arrival, in seconds since 1970.
    pub at: f64,
    /// Request method.
    pub method: String,
    /// Path with query.
    pub path: String,
    /// All header lines in order, names in lower case. A repeated name stands next to its first appearance.
    pub headers: Vec<(String, String)>,
    /// Length of the body.
    pub body_bytes: usize,
    /// XXH64 of the body with seed 0, sixteen hexadecimal digits.
    pub body_xxh64: String,
    /// The body as text if it is UTF-8 and at most 16 KiB long.
    pub body: Option<String>,
}

/// The last requests.
#[derive(Debug, Default)]
pub(crate) struct ReceivedLog {
    requests: VecDeque<Received>,
    total: u64,
}

impl ReceivedLog {
    /// Notes a request that has been read to its end.
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

    /// The last `n` requests, oldest first.
    pub(crate) fn last(&self, n: usize) -> Vec<Received> {
        self.requests.iter().skip(self.requests.len().saturating_sub(n)).cloned().collect()
    }

    /// All requests ever noted.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// Forgets the requests, not their number.
    pub(crate) fn clear(&mut self) {
        self.requests.clear();
    }
}
