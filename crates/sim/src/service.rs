//! One request of one connection, from its head to the start of its answer.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body::Body as _;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use tokio::time::{Instant, sleep};

use super::api::answer::{Answer, Sender};
use super::api::ask::{self, Dialect};
use super::api::error::ApiError;
use super::api::tasks;
use super::config::{Role, unix_seconds};
use super::driver::Progress;
use super::metrics_page::{CONTENT_TYPE as METRICS_TYPE, Served};
use super::reply::{self, Body, Reset};
use super::state::State;
use super::wire::Abort;
use super::{control, faults, query, stream};

/// Answers one request. An error breaks the connection.
pub(crate) async fn serve(
    state: Arc<State>,
    port: u16,
    abort: Abort,
    request: Request<Incoming>,
) -> Result<Response<Body>, Reset> {
    let (parts, body) = request.into_parts();
    let answer = async {
        let path = parts.uri.path();
        if path == "/metrics" || path.starts_with("/metrics/") {
            return Ok(metrics(&state, &parts).await);
        }
        let Some(body) = read(body, state.config.max_body_bytes).await? else {
            let message = format!("the body is longer than {} bytes", state.config.max_body_bytes);
            return Ok(reply::api_error(&ApiError { status: StatusCode::PAYLOAD_TOO_LARGE, message }));
        };
        if path.starts_with("/sim/") {
            return Ok(control::handle(&state, &parts.method, path, parts.uri.query(), &body));
        }
        state.received.lock().note(&parts, &body);
        Box::pin(api(&state, &parts, body, &abort)).await
    };
    match answer.await {
        Ok(mut response) => {
            reply::sign(&mut response, &state.config.name, port);
            Ok(response)
        }
        Err(reset) => {
            abort.set();
            Err(reset)
        }
    }
}

/// Reads the whole body. `None` if the body is too long, an error if the client has left.
async fn read(body: Incoming, limit: usize) -> Result<Option<Bytes>, Reset> {
    match Limited::new(body, limit).collect().await {
        Ok(body) => Ok(Some(body.to_bytes())),
        Err(error) if error.is::<LengthLimitError>() => Ok(None),
        Err(_) => Err(Reset),
    }
}

/// `/metrics` ignores its query. Another application answers below `/metrics/`, and filters by the query.
async fn metrics(state: &State, parts: &Parts) -> Response<Body> {
    let mut switches = state.faults();
    // The sender lives in `state`, so this wait cannot fail.
    let switches = switches.wait_for(|faults| !faults.hang_metrics).await.map(|faults| faults.clone());
    let switches = switches.unwrap_or_default();
    sleep_if(switches.metrics_delay_ms).await;
    if !matches!(parts.method, Method::GET | Method::HEAD) {
        return reply::method_not_allowed();
    }
    let filter = parts.uri.path().starts_with("/metrics/");
    let names =
        if filter { query::values(parts.uri.query().unwrap_or_default(), "name[]") } else { Vec::new() };
    let counter = if names.is_empty() { &state.scrapes } else { &state.filtered_scrapes };
    counter.fetch_add(1, Ordering::Relaxed);
    let content_type = Some(HeaderValue::from_static(METRICS_TYPE));
    match StatusCode::from_u16(switches.metrics_status) {
        Ok(StatusCode::OK) | Err(_) => {}
        Ok(status) => return reply::whole(status, content_type, Bytes::new()),
    }
    let page = if switches.garbage_metrics {
        Bytes::from_static(faults::GARBAGE.as_bytes())
    } else if names.is_empty() {
        state.whole_page()
    } else {
        state.filtered_page(&names)
    };
    reply::whole(StatusCode::OK, content_type, page)
}

/// Answers a request to one of a model server's own paths.
async fn api(state: &Arc<State>, parts: &Parts, body: Bytes, abort: &Abort) -> Result<Response<Body>, Reset> {
    let started = Instant::now();
    let request_bytes = body.len() as u64;
    let response = match gate(state).await? {
        Some(refusal) => refusal,
        None => route(state, parts, body, abort).await,
    };
    stand_still(state).await?;
    if let Some(handler) = handler(parts.uri.path()) {
        state.record(&Served {
            handler,
            method: known_method(&parts.method),
            status: response.status().as_u16(),
            request_bytes,
            response_bytes: response.body().size_hint().exact().unwrap_or_default(),
            took: started.elapsed(),
        });
    }
    Ok(response)
}

/// Waits or ends a request as the faults demand. Returns the answer of an ended request.
async fn gate(state: &State) -> Result<Option<Response<Body>>, Reset> {
    stand_still(state).await?;
    let slow_ms = state.faults().borrow().slow_ms;
    sleep_if(slow_ms).await;
    let (rate, status) = {
        let faults = state.faults();
        let faults = faults.borrow();
        (faults.error_rate, faults.error_status)
    };
    if rate > 0.0 && state.draw(rate) {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        return Ok(Some(reply::api_error(&ApiError { status, message: "injected fault".to_owned() })));
    }
    Ok(None)
}

/// Waits while `hang` is on. Fails if `reset` is on.
async fn stand_still(state: &State) -> Result<(), Reset> {
    let mut faults = state.faults();
    match faults.wait_for(|faults| faults.reset || !faults.hang).await {
        Ok(faults) if faults.reset => Err(Reset),
        _ => Ok(()),
    }
}

async fn sleep_if(ms: u64) {
    if ms > 0 {
        sleep(Duration::from_millis(ms)).await;
    }
}

async fn route(state: &Arc<State>, parts: &Parts, body: Bytes, abort: &Abort) -> Response<Body> {
    let result = match (parts.uri.path(), parts.method.as_str()) {
        ("/v1/completions", "POST") => generate(state, Dialect::Completions, parts, &body, abort).await,
        ("/v1/chat/completions", "POST") => generate(state, Dialect::Chat, parts, &body, abort).await,
        ("/v1/responses", "POST") => generate(state, Dialect::Responses, parts, &body, abort).await,
        ("/v1/messages", "POST") => generate(state, Dialect::Messages, parts, &body, abort).await,
        ("/v1/embeddings", "POST") => embed(state, &body).await,
        ("/tokenize", "POST") => ask::tokenize(&body, &state.config)
            .map(|tokens| reply::json(tasks::tokenized(&tokens, state.driver.context_tokens()))),
        ("/v1/models", "GET" | "HEAD") => Ok(reply::json(tasks::models(
            &state.config,
            unix_seconds() as u64,
            state.driver.context_tokens(),
        ))),
        ("/health" | "/ping", "GET" | "HEAD" | "POST") => {
            Ok(reply::whole(StatusCode::OK, None, Bytes::new()))
        }
        ("/version", "GET" | "HEAD") => Ok(reply::json(r#"{"version":"0.32.0"}"#)),
        ("/query", "GET") if state.config.role.is_some_and(Role::prefills) => {
            Ok(reply::json(tasks::bootstrap(&state.config)))
        }
        ("/echo", _) => {
            let content_type = parts.headers.get(CONTENT_TYPE).cloned();
            Ok(reply::whole(StatusCode::OK, content_type, body))
        }
        (path, _) if handler(path) != Some(UNKNOWN) => Ok(reply::method_not_allowed()),
        _ => Ok(reply::not_found()),
    };
    result.unwrap_or_else(|error| reply::api_error(&error))
}

async fn generate(
    state: &Arc<State>,
    dialect: Dialect,
    parts: &Parts,
    body: &Bytes,
    abort: &Abort,
) -> Result<Response<Body>, ApiError> {
    let ask = ask::ask(dialect, body, &state.config)?;
    let sender =
        Sender { engine: &state.config.name, host: host(parts), block_size: state.config.block_size };
    let answer = Answer::new(&ask, &state.unique(), unix_seconds() as u64, sender);
    if let Some(cached) = too_little_is_cached(state, &ask, parts) {
        let progress = Progress { cached_tokens: cached, ..Progress::default() };
        let answer = answer.below_threshold();
        return Ok(if ask.stream {
            reply::whole(StatusCode::OK, Some(EVENTS), answer.stream_without_tokens(progress))
        } else {
            reply::json(answer.whole(progress))
        });
    }
    let mut ticket = state.driver.submit(ask.submission)?;
    if ask.stream {
        let mut response = Response::new(stream::body(answer, ticket, state.faults(), abort.clone()));
        response.headers_mut().insert(CONTENT_TYPE, EVENTS);
        return Ok(response);
    }
    let progress = ticket.end().await;
    Ok(reply::json(answer.whole(progress)))
}

const EVENTS: HeaderValue = HeaderValue::from_static("text/event-stream; charset=utf-8");

/// The host under which the server was asked, without the port and the brackets of IPv6.
fn host(parts: &Parts) -> &str {
    let authority = parts.headers.get(HOST).and_then(|host| host.to_str().ok());
    let authority =
        authority.or_else(|| parts.uri.authority().map(http::uri::Authority::as_str)).unwrap_or_default();
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    host.trim_matches(['[', ']'])
}

/// The number of prompt tokens that are cached, if the request asks to compute nothing unless more are cached. A header
/// can set this too.
fn too_little_is_cached(state: &State, ask: &ask::Ask, parts: &Parts) -> Option<usize> {
    let wanted = ask.handoff.threshold?;
    let forced = parts.headers.get("x-cache-threshold-finish-reason").is_some_and(|value| value == "true");
    let cached = state.driver.cached_tokens(&ask.submission);
    let share = cached as f64 / ask.submission.prompt.len().max(1) as f64;
    (forced || share < wanted).then_some(cached)
}

async fn embed(state: &Arc<State>, body: &Bytes) -> Result<Response<Body>, ApiError> {
    let ask = ask::embeddings(body, &state.config)?;
    let mut ticket = state.driver.submit(ask.submission.clone())?;
    ticket.end().await;
    Ok(reply::json(tasks::embeddings(&ask, &state.unique(), unix_seconds() as u64)))
}

/// The name under which requests to unknown paths are counted.
const UNKNOWN: &str = "none";

/// The name under which requests to a path are counted. Probes are not counted.
fn handler(path: &str) -> Option<&'static str> {
    const HANDLERS: [&str; 8] = [
        "/v1/completions",
        "/v1/chat/completions",
        "/v1/responses",
        "/v1/messages",
        "/v1/embeddings",
        "/tokenize",
        "/v1/models",
        "/echo",
    ];
    const UNCOUNTED: [&str; 3] = ["/health", "/ping", "/version"];
    if UNCOUNTED.contains(&path) {
        return None;
    }
    Some(HANDLERS.iter().find(|handler| **handler == path).copied().unwrap_or(UNKNOWN))
}

fn known_method(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "POST" => "POST",
        "HEAD" => "HEAD",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        _ => "OTHER",
    }
}
