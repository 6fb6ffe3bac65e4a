//! The counts of outcomes behind the metrics page of the model server. The endpoint picker reads that page anyway, and so
//! learns where prompts were processed without another port.

use std::fmt::Write as _;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};

use super::inbound::Answer;
use super::outcome::{Outcome, RecomputeReason};
use crate::metrics::{SIDECAR_OUTCOMES, SidecarMetrics};

/// The outcomes on the page: those of requests that name a prefill server and are answered.
pub(super) const SHOWN: [Outcome; 3] = [
    Outcome::Remote,
    Outcome::Recompute(RecomputeReason::NoParameters),
    Outcome::Recompute(RecomputeReason::PrefillFailed),
];

/// True if `request` asks for a metrics page that includes the counts. A page is filtered by `name[]` in the query.
pub(super) fn is_asked<B>(request: &Request<B>) -> bool {
    let path = request.uri().path();
    if *request.method() != Method::GET || !matches!(path, "/metrics" | "/metrics/") {
        return false;
    }
    let mut names = request.uri().query().unwrap_or_default().split('&').filter_map(name).peekable();
    names.peek().is_none() || names.any(|name| name == SIDECAR_OUTCOMES)
}

/// The series that a part of a query asks for.
fn name(part: &str) -> Option<&str> {
    let (key, value) = part.split_once('=')?;
    matches!(key, "name[]" | "name%5B%5D" | "name%5b%5d").then_some(value)
}

/// The model server's page with the counts behind it. An answer that is no uncompressed page of text stays as it is.
pub(super) fn with_outcomes(mut response: Response<Answer>, metrics: &SidecarMetrics) -> Response<Answer> {
    let headers = response.headers();
    let is_text = headers.get(CONTENT_TYPE).is_none_or(|kind| kind.as_bytes().starts_with(b"text/plain"));
    if response.status() != StatusCode::OK || !is_text || headers.contains_key(CONTENT_ENCODING) {
        return response;
    }
    let lines = Bytes::from(lines(metrics));
    let length = headers.get(CONTENT_LENGTH).map(|length| length.to_str().ok()?.trim().parse::<u64>().ok());
    match length {
        None => {}
        Some(Some(length)) => {
            let length = HeaderValue::from(length.saturating_add(lines.len() as u64));
            response.headers_mut().insert(CONTENT_LENGTH, length);
        }
        Some(None) => return response,
    }
    response.map(|page| page.followed_by(lines))
}

/// The counts as lines of a page. They begin with a line feed, since a page may end without one.
fn lines(metrics: &SidecarMetrics) -> String {
    let mut text = format!(
        "\n# HELP {SIDECAR_OUTCOMES} Answered requests that named a prefill server, by where the prompt was processed.\n\
         # TYPE {SIDECAR_OUTCOMES} counter\n"
    );
    for outcome in SHOWN {
        let (name, reason) = (outcome.name(), outcome.reason());
        let count = metrics.outcomes(name, reason);
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{SIDECAR_OUTCOMES}{{outcome=\"{name}\",reason=\"{reason}\"}} {count}");
    }
    text
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::sidecar::new_metrics;

    #[test]
    fn the_counts_belong_to_whole_pages_and_to_filters_that_name_them() {
        let asked =
            |method: &str, uri: &str| is_asked(&Request::builder().method(method).uri(uri).body(()).unwrap());
        for uri in [
            "/metrics",
            "/metrics/",
            "/metrics?x=1",
            "/metrics/?name[]=a&name[]=pointsman_sidecar_outcomes_total",
            "/metrics/?name%5B%5D=pointsman_sidecar_outcomes_total",
        ] {
            assert!(asked("GET", uri), "{uri}");
        }
        assert!(!asked("GET", "/metrics/?name[]=a"));
        assert!(!asked("HEAD", "/metrics") && !asked("POST", "/metrics") && !asked("GET", "/metrics/x"));
    }

    #[tokio::test]
    async fn the_counts_stand_behind_a_page_of_text_and_behind_nothing_else() {
        let metrics = new_metrics();
        metrics.outcome("remote", "transferred");
        let page = |status: u16, headers: &[(&str, &str)]| {
            let mut response = Response::builder().status(status);
            for (name, value) in headers {
                response = response.header(*name, *value);
            }
            with_outcomes(response.body(Answer::whole(Bytes::from_static(b"up 1"))).unwrap(), &metrics)
        };
        let with = page(200, &[("content-type", "text/plain; version=0.0.4"), ("content-length", "4")]);
        let length: usize = with.headers()["content-length"].to_str().unwrap().parse().unwrap();
        let body = with.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body.len(), length);
        let text = String::from_utf8(body.to_vec()).unwrap();
        assert!(text.starts_with("up 1\n# HELP"), "{text}");
        let line = "pointsman_sidecar_outcomes_total{outcome=\"remote\",reason=\"transferred\"} 1\n";
        assert!(text.contains(line) && text.contains("\"no_transfer_params\"} 0\n"), "{text}");
        for (status, header) in [
            (404, ("content-type", "text/plain")),
            (200, ("content-type", "application/openmetrics-text")),
            (200, ("content-encoding", "gzip")),
            (200, ("content-length", "many")),
        ] {
            let body = page(status, &[header]).into_body().collect().await.unwrap().to_bytes();
            assert_eq!(body, "up 1", "{header:?}");
        }
    }
}
