//! The page for people: what the picker sees and does, as it changes.
//!
//! It is one document with one script and one style sheet, all of them in the program. The script makes elements and
//! sets their text; nothing that a client or a model server says becomes markup.

mod feed;
mod origin;
mod people;
mod rows;
mod tick;
mod warnings;

use axum::Router;
use axum::extract::{Extension, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

pub use feed::Feed;
pub(in crate::admin) use origin::{own_host, same_origin};

use super::state::AdminState;

const DOCUMENT: &str = include_str!("assets/page.html");
const SCRIPT: &str = include_str!("assets/page.js");
const STYLE: &str = include_str!("assets/page.css");

/// What the browser may do with the page: run its own script, use its own style sheet, talk to its own origin. No text
/// can become markup or code.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// Headers of everything that the page is made of.
const HEADERS: [(HeaderName, HeaderValue); 6] = [
    (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
];

/// The page, its parts, and what feeds it.
pub(super) fn routes() -> Router<AdminState> {
    Router::new()
        .route("/", get(async || part("text/html; charset=utf-8", DOCUMENT)))
        .route("/page/script.js", get(async || part("text/javascript; charset=utf-8", SCRIPT)))
        .route("/page/style.css", get(async || part("text/css; charset=utf-8", STYLE)))
        .route("/page/feed", get(feed))
        .layer(middleware::from_fn(own_host))
}

fn part(kind: &'static str, text: &'static str) -> Response {
    (HEADERS, [(header::CONTENT_TYPE, kind)], text).into_response()
}

/// Events, one a second, until the viewer leaves.
async fn feed(State(state): State<AdminState>, Extension(feed): Extension<Feed>) -> Response {
    match feed.view(&state) {
        Some(events) => {
            let kind = [(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"))];
            (HEADERS, kind, axum::body::Body::from_stream(events)).into_response()
        }
        None => {
            (StatusCode::SERVICE_UNAVAILABLE, "too many people look at this page already\n").into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_takes_nothing_from_elsewhere_and_makes_no_markup_of_text() {
        for asset in [DOCUMENT, SCRIPT, STYLE] {
            let addresses = asset.replace("http://www.w3.org/2000/svg", "");
            assert!(!addresses.contains("http:") && !addresses.contains("https:"), "an address");
            assert!(!addresses.contains("\"//") && !addresses.contains("url("), "an address");
        }
        for way in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"]
        {
            assert!(!SCRIPT.contains(way), "{way}");
        }
        for inline in ["<script>", " style=", " onclick=", " onload=", "<style"] {
            assert!(!DOCUMENT.contains(inline), "{inline}");
        }
    }
}
