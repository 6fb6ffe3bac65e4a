//! What the routing headers of a request say about the servers of its stages.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::target::Target;

/// The header with the candidates for the prefill server, the best first.
pub(super) const PREFILL: HeaderName = HeaderName::from_static("x-prefiller-host-port");
/// The header with a prefill server as a URL, which the first releases of the reference sent.
pub(super) const PREFILL_URL: HeaderName = HeaderName::from_static("x-prefiller-url");
/// The header with the server that already has a part of the prompt's cache.
pub(super) const KV_SOURCE: HeaderName = HeaderName::from_static("x-kv-cache-source-host-port");
/// The header with the encode servers.
pub(super) const ENCODERS: HeaderName = HeaderName::from_static("x-encoder-hosts-ports");
/// The header with the rank of this pod that answers.
pub(super) const RANK: HeaderName = HeaderName::from_static("x-data-parallel-host-port");

/// All routing headers. The sidecar forwards none of them to a model server.
pub(super) const ALL: [HeaderName; 5] = [PREFILL, PREFILL_URL, KV_SOURCE, ENCODERS, RANK];

/// The most servers that are read from one header.
const MOST: usize = 64;

/// The servers that a request names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Route {
    /// The prefill server to ask, then those that may be asked in its place, in order.
    pub prefill: Vec<Target>,
    /// The server to pull a part of the cache from.
    pub kv_source: Option<Target>,
    /// The encode servers, in order.
    pub encoders: Vec<Target>,
    /// The value of the rank header.
    pub rank: Option<String>,
}

/// Why the routing headers cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum RouteError {
    /// The first candidate for the prefill server is not `host:port`.
    #[error("{name}: got {value:?}, expected host:port", name = PREFILL.as_str())]
    Target {
        /// The value of the header, cut to 100 characters.
        value: String,
    },
    /// The first candidate for the prefill server may not be asked.
    #[error("{name}: {target} is none of the endpoints that may be asked", name = PREFILL.as_str())]
    Denied {
        /// The server that the header names.
        target: String,
    },
}

/// The rules by which the routing headers are read.
pub(super) struct Rules<'r> {
    /// Returns true if the sidecar may ask a server.
    pub allowed: &'r dyn Fn(&Target) -> bool,
    /// Returns the index of the candidate to begin with, given the number of candidates.
    pub pick: &'r dyn Fn(usize) -> usize,
    /// True if the connector can pull a cache from another server.
    pub kv_source: bool,
}

impl Route {
    /// Reads the routing headers of a request.
    pub(super) fn read(headers: &HeaderMap, rules: &Rules<'_>) -> Result<Self, RouteError> {
        let mut named = values(headers, &PREFILL);
        if named.is_empty() {
            named = first(headers, &PREFILL_URL).into_iter().collect();
        }
        let mut route =
            Self { prefill: prefill(&named, rules)?, rank: first(headers, &RANK), ..Self::default() };
        if rules.kv_source {
            route.kv_source = first(headers, &KV_SOURCE)
                .and_then(|text| Target::parse(&text))
                .filter(|source| source.port().is_some() && (rules.allowed)(source));
        }
        let encoders = values(headers, &ENCODERS).into_iter().filter_map(|text| Target::parse(&text));
        route.encoders = encoders.filter(|encoder| (rules.allowed)(encoder)).collect();
        Ok(route)
    }

    /// Returns true if no other server takes part in the request.
    pub(super) fn is_local(&self) -> bool {
        self.prefill.is_empty() && self.encoders.is_empty() && self.kv_source.is_none()
    }
}

/// Returns the candidate to begin with, then the other candidates that may be asked.
fn prefill(named: &[String], rules: &Rules<'_>) -> Result<Vec<Target>, RouteError> {
    if named.is_empty() {
        return Ok(Vec::new());
    }
    let start = (rules.pick)(named.len()).min(named.len() - 1);
    let order = (0..named.len()).map(|step| &named[(start + step) % named.len()]);
    let mut targets = Vec::new();
    for (step, text) in order.enumerate() {
        match Target::parse(text) {
            Some(target) if (rules.allowed)(&target) => targets.push(target),
            Some(target) if step == 0 => return Err(RouteError::Denied { target: target.to_string() }),
            None if step == 0 => {
                return Err(RouteError::Target { value: text.chars().take(100).collect() });
            }
            _ => {}
        }
    }
    targets.dedup();
    Ok(targets)
}

/// Returns the values of a header. A single line is split at its commas; of several lines, each is one value.
fn values(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    let lines: Vec<String> = headers.get_all(name).iter().take(MOST).map(text).collect();
    let split: Vec<String> = match lines.as_slice() {
        [one] => one.split(',').take(MOST).map(str::to_owned).collect(),
        _ => lines,
    };
    split.into_iter().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty()).collect()
}

fn first(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers.get(name).map(|value| text(value).trim().to_owned()).filter(|value| !value.is_empty())
}

fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[(&HeaderName, &str)], index: usize, denied: &str) -> Result<Route, RouteError> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        let rules =
            Rules { allowed: &|target| target.to_string() != denied, pick: &|_| index, kv_source: true };
        Route::read(&headers, &rules)
    }

    fn prefill(lines: &[(&HeaderName, &str)], index: usize) -> Vec<String> {
        read(lines, index, "").unwrap().prefill.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn one_line_is_split_at_commas_and_several_lines_are_not() {
        assert_eq!(
            prefill(&[(&PREFILL, "10.0.0.2:8000, 10.0.0.3:8000")], 0),
            ["10.0.0.2:8000", "10.0.0.3:8000"]
        );
        assert_eq!(
            prefill(&[(&PREFILL, "10.0.0.2:8000, 10.0.0.3:8000")], 1),
            ["10.0.0.3:8000", "10.0.0.2:8000"]
        );
        assert_eq!(prefill(&[(&PREFILL, "a:1"), (&PREFILL, "c:1")], 0), ["a:1", "c:1"]);
        let error = read(&[(&PREFILL, "a:1,b:1"), (&PREFILL, "c:1")], 0, "").unwrap_err();
        assert!(error.to_string().contains("a:1,b:1"), "{error}");
    }

    #[test]
    fn an_empty_header_names_nobody() {
        for value in ["", " ", ","] {
            assert!(read(&[(&PREFILL, value)], 0, "").unwrap().is_local(), "{value:?}");
        }
    }

    #[test]
    fn the_url_of_the_first_releases_counts_where_the_header_of_today_is_missing() {
        assert_eq!(prefill(&[(&PREFILL_URL, "http://10.0.0.2:8000")], 0), ["10.0.0.2:8000"]);
        assert_eq!(prefill(&[(&PREFILL_URL, "http://b:1"), (&PREFILL, "a:1")], 0), ["a:1"]);
    }

    #[test]
    fn a_denied_prefill_server_is_an_error_and_denied_others_are_left_out() {
        let error = read(&[(&PREFILL, "a:1,b:1")], 0, "a:1").unwrap_err();
        assert_eq!(error, RouteError::Denied { target: "a:1".to_owned() });
        let route = read(&[(&PREFILL, "a:1,b:1"), (&ENCODERS, "b:1, c:1,x:y")], 0, "b:1").unwrap();
        assert_eq!((route.prefill.len(), route.encoders.len()), (1, 1));
        assert_eq!(read(&[(&KV_SOURCE, "a:1")], 0, "a:1").unwrap().kv_source, None);
    }

    #[test]
    fn a_source_of_caches_needs_a_host_and_a_port() {
        for (value, known) in [("10.0.0.7:8000", true), (":8000", false), ("abc", false)] {
            assert_eq!(read(&[(&KV_SOURCE, value)], 0, "").unwrap().kv_source.is_some(), known, "{value}");
        }
    }
}
