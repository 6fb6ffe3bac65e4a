//! Paths of the admin server.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Extension, Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};
use tracing::info;

use super::access::guard;
use super::capturing::SwitchError;
use super::debug::{plugin_states, pool_state};
use super::dry_runs::{DECIDE, PATIENCE};
use super::page::{self, Feed, own_host, same_origin};
use super::state::AdminState;
use super::words::with_words;
use crate::decisions;
use crate::metrics::Format;
use crate::telemetry::{LogLevel, rfc3339};
use crate::transport::ClientAddress;

/// All pages, behind their door.
pub(super) fn router(state: AdminState, feed: Feed) -> Router {
    let access = state.access.clone();
    let pages = pages(state, feed);
    let pages = match access {
        Some(access) => pages.layer(middleware::from_fn_with_state(access, guard)),
        None => pages,
    };
    pages.route("/healthz", get(async || "ok"))
}

/// All pages for people on this machine, who need no further right. No foreign name leads here.
pub(super) fn router_for_people(state: AdminState, feed: Feed) -> Router {
    pages(state, feed).layer(middleware::from_fn(own_host))
}

fn pages(state: AdminState, feed: Feed) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/debug/plugins/state", get(plugins))
        .route("/debug/pool", get(pool))
        .route("/debug/peers", get(peers))
        .route("/debug/decisions", get(list_decisions))
        .route("/debug/decisions/{*id}", get(one_decision))
        .route("/debug/prefix", get(prefix))
        .route(DECIDE, post(decide))
        .route("/debug/config", get(config))
        .route("/-/reload", post(reload))
        .route("/debug/capture", get(capture).put(switch_capture))
        .route("/debug/log-level", get(log_level).put(set_log_level))
        .merge(page::routes())
        .with_state(state)
        .layer(Extension(feed))
        .layer(middleware::from_fn(same_origin))
}

async fn metrics(State(state): State<AdminState>, headers: HeaderMap) -> impl IntoResponse {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let format = Format::negotiate(accept);
    ([(header::CONTENT_TYPE, format.content_type())], state.metrics.encode(format))
}

async fn plugins(State(state): State<AdminState>) -> Json<Value> {
    Json(plugin_states((state.plugins)(), SystemTime::now()))
}

async fn pool(State(state): State<AdminState>) -> Json<Value> {
    Json(pool_state(&state.pool, Instant::now(), SystemTime::now()))
}

async fn peers(State(state): State<AdminState>) -> Response {
    match &state.peers {
        Some(page) => Json(page()).into_response(),
        None => (StatusCode::NOT_FOUND, "this replica has no peers; --peers or --peer-service names them\n")
            .into_response(),
    }
}

/// No records are kept.
fn no_records() -> Response {
    let message = "no records of decisions are kept; --decision-records sets how many bytes of them are\n";
    (StatusCode::NOT_FOUND, message).into_response()
}

async fn list_decisions(
    State(state): State<AdminState>,
    Query(parameters): Query<Vec<(String, String)>>,
) -> Response {
    let Some(records) = &state.decisions else { return no_records() };
    match decisions::Query::read(&parameters, SystemTime::now()) {
        Ok(query) => Json(records.list(&query)).into_response(),
        Err(error) => (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
    }
}

/// The newest record of a request; with `@`, the record of this number.
async fn one_decision(
    State(state): State<AdminState>,
    Path(id): Path<String>,
    Query(parameters): Query<Vec<(String, String)>>,
) -> Response {
    let Some(records) = &state.decisions else { return no_records() };
    let number = id.strip_prefix('@').and_then(|number| number.parse().ok());
    let found = number.and_then(|number| records.numbered(number)).or_else(|| records.find(&id));
    match found {
        Some(view) => with_words(serde_json::to_value(view).unwrap_or_default(), &parameters),
        None => (StatusCode::NOT_FOUND, "no record of a request with this id is kept\n").into_response(),
    }
}

async fn prefix(State(state): State<AdminState>) -> Json<Value> {
    Json(json!({ "timestamp": rfc3339(SystemTime::now()), "plugins": (state.prefix)() }))
}

async fn decide(
    State(state): State<AdminState>,
    Query(parameters): Query<Vec<(String, String)>>,
    body: Bytes,
) -> Response {
    let Some(run) = &state.dry_runs else { return StatusCode::NOT_FOUND.into_response() };
    match tokio::time::timeout(PATIENCE, run(body)).await {
        Ok(Ok(answer)) => with_words(answer, &parameters),
        Ok(Err(problem)) => (StatusCode::BAD_REQUEST, format!("{problem}\n")).into_response(),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "the decision took longer than 1 s\n").into_response(),
    }
}

async fn config(State(state): State<AdminState>) -> Response {
    match &state.reloading {
        Some(reloading) => Json((reloading.show)()).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// Takes over a changed configuration: 200 if it is in force afterwards, 422 if it is refused.
async fn reload(State(state): State<AdminState>, client: Option<Extension<ClientAddress>>) -> Response {
    if !state.log_level_from.admits(client.map(|Extension(client)| client)) {
        let message = "the configuration is reloaded from loopback addresses alone; --remote-log-level allows it from anywhere\n";
        return (StatusCode::FORBIDDEN, message).into_response();
    }
    let Some(reloading) = state.reloading.clone() else { return StatusCode::NOT_FOUND.into_response() };
    // A reload occupies a thread, so that only one may wait for another.
    let Ok(turn) = Arc::clone(&reloading.turns).try_acquire_owned() else {
        let message = "a reload is under way, and one more waits for it\n";
        return (StatusCode::TOO_MANY_REQUESTS, message).into_response();
    };
    let reloaded = tokio::task::spawn_blocking(move || {
        let reloaded = (reloading.reload)();
        drop(turn);
        reloaded
    });
    match reloaded.await {
        Ok(reloaded) if reloaded.refused => {
            (StatusCode::UNPROCESSABLE_ENTITY, Json(reloaded.page)).into_response()
        }
        Ok(reloaded) => Json(reloaded.page).into_response(),
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, "a bug: reloading panicked\n").into_response(),
    }
}

/// There is no folder for captures.
fn no_capture() -> Response {
    (StatusCode::NOT_FOUND, "captures have no folder; --capture names one\n").into_response()
}

async fn capture(State(state): State<AdminState>) -> Response {
    state.capturing.map_or_else(no_capture, |capturing| Json((capturing.show)()).into_response())
}

/// Switches the capture: 400 for what cannot be understood, 500 where the disk refuses.
async fn switch_capture(
    State(state): State<AdminState>,
    client: Option<Extension<ClientAddress>>,
    body: Bytes,
) -> Response {
    if !state.log_level_from.admits(client.map(|Extension(client)| client)) {
        let message = "captures are switched from loopback addresses alone; --remote-log-level allows it from anywhere\n";
        return (StatusCode::FORBIDDEN, message).into_response();
    }
    let Some(capturing) = state.capturing else { return no_capture() };
    match tokio::task::spawn_blocking(move || (capturing.switch)(&body)).await {
        Ok(Ok(page)) => Json(page).into_response(),
        Ok(Err(SwitchError::Asked(problem))) => {
            (StatusCode::BAD_REQUEST, format!("{problem}\n")).into_response()
        }
        Ok(Err(SwitchError::Failed(problem))) => {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("{problem}\n")).into_response()
        }
        Err(_) => {
            (StatusCode::INTERNAL_SERVER_ERROR, "a bug: switching the capture panicked\n").into_response()
        }
    }
}

async fn log_level(State(state): State<AdminState>) -> Response {
    match &state.log {
        Some(log) => Json(json!({ "level": log.level().name() })).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn set_log_level(
    State(state): State<AdminState>,
    client: Option<Extension<ClientAddress>>,
    body: Bytes,
) -> Response {
    if !state.log_level_from.admits(client.map(|Extension(client)| client)) {
        let message = "the log level may be changed from loopback addresses alone; --remote-log-level allows it from anywhere\n";
        return (StatusCode::FORBIDDEN, message).into_response();
    }
    let Some(log) = &state.log else { return StatusCode::NOT_FOUND.into_response() };
    let level = match read_level(&body) {
        Ok(level) => level,
        Err(message) => return (StatusCode::BAD_REQUEST, message).into_response(),
    };
    if !log.set_level(level) {
        return (StatusCode::SERVICE_UNAVAILABLE, "logging has ended").into_response();
    }
    info!(level = level.name(), "log level changed");
    Json(json!({ "level": level.name() })).into_response()
}

/// A level as plain text, a JSON string, or `{"level": …}`.
fn read_level(body: &[u8]) -> Result<LogLevel, String> {
    let value: Option<Value> = serde_json::from_slice(body).ok();
    let named = value.as_ref().map(|value| value.get("level").unwrap_or(value));
    let text = match named {
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
        None => String::from_utf8_lossy(body).into_owned(),
    };
    text.parse().map_err(|error: crate::telemetry::UnknownLevel| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::LogLevelFrom;

    #[test]
    fn the_level_is_changed_from_loopback_alone_unless_anybody_may() {
        let from = |address: &str| Some(ClientAddress(address.parse().unwrap()));
        for address in ["127.0.0.1:1", "127.8.8.8:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert!(LogLevelFrom::Loopback.admits(from(address)), "{address}");
        }
        for address in ["10.0.0.1:1", "[::ffff:10.0.0.1]:1", "[fe80::1]:1", "0.0.0.0:1"] {
            assert!(!LogLevelFrom::Loopback.admits(from(address)), "{address}");
            assert!(LogLevelFrom::Anywhere.admits(from(address)), "{address}");
        }
        assert!(!LogLevelFrom::Loopback.admits(None));
    }

    #[test]
    fn a_level_is_read_from_text_and_json() {
        for body in ["debug", "\"debug\"", "{\"level\":\"debug\"}", "{\"level\":4}", "4", " debug\n"] {
            assert_eq!(read_level(body.as_bytes()), Ok(LogLevel::Debug), "{body}");
        }
        for body in ["", "{}", "loud", "{\"level\":null}"] {
            assert!(read_level(body.as_bytes()).is_err(), "{body}");
        }
    }
}
