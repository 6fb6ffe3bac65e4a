//! Accepts requests. The proxy answers the health paths itself, gives requests that are split to the machine, and
//! forwards all others to the engine.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, request};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use super::allow::Allowed;
use super::answer::Refusal;
use super::api::{Api, MEMBERS};
use super::buffer::BodyMemory;
use super::client::CallError;
use super::connector::Stage;
use super::drive::{ProxyContext, drive, refuse};
use super::headers::{forward, strip_hop_by_hop, upgrade};
use super::ids::Ids;
use super::inbound::Answer;
use super::legs::{ClientHead, REQUEST_ID};
use super::machine::{Ask, Leg, LegFailure};
use super::outbound::{Gate, Outbound};
use super::outcome::{FailReason, LocalReason, Outcome, Verdict};
use super::page;
use super::readiness::Readiness;
use super::route::{Route, RouteError, Rules};
use crate::request::{Blanker, JsonObject, TooMuchBlank};
use crate::telemetry::Span;
use crate::transport::ClientAddress;

/// Members that clients may not set, because they tell the engine which server to fetch a cache from.
const UNTRUSTED: &[&str] = &["kv_transfer_params", "ec_transfer_params"];

/// The objects inside a body in which some engines read the same members.
const UNTRUSTED_IN: &[&str] = &["sampling_params", "extra_args"];

/// The proxy behind one port. Clones share all state.
#[derive(Clone, Debug)]
pub(super) struct Proxy {
    context: ProxyContext,
    allowed: Allowed,
    readiness: Arc<Readiness>,
    rank: u16,
}

impl Proxy {
    /// Makes the proxy of rank 0.
    pub(super) fn new(context: ProxyContext, allowed: Allowed, readiness: Arc<Readiness>) -> Self {
        Self { context, allowed, readiness, rank: 0 }
    }

    /// Makes the proxy for the port of another rank, with the same state.
    #[must_use]
    pub(super) fn of_rank(&self, rank: u16) -> Self {
        Self { rank, ..self.clone() }
    }

    /// Answers one request.
    pub(super) async fn answer(self, request: Request<Incoming>) -> Response<Answer> {
        let asks = matches!(*request.method(), Method::GET | Method::HEAD);
        match request.uri().path() {
            "/health" if asks => Response::new(Answer::whole(Bytes::new())),
            "/readyz" if asks => self.ready().await,
            path => {
                if let Some(api) = Api::of(request.method(), path) {
                    return self.split(api, request).await;
                }
                let in_flight = self.context.metrics.in_flight(false);
                let metrics = self.context.metrics.clone();
                let page = self.context.shared.settings.outcomes_in_metrics && page::is_asked(&request);
                let mut response = self.pass(request, None, self.rank).await;
                if page {
                    response = page::with_outcomes(response, &metrics);
                }
                response.map(|body| body.counted(&metrics, Some(in_flight)))
            }
        }
    }

    async fn ready(&self) -> Response<Answer> {
        let unready = self.readiness.unready(&self.allowed).await;
        let (status, text) = match unready {
            None => (StatusCode::OK, "ok\n"),
            Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason),
        };
        let mut response = Response::new(Answer::whole(Bytes::from_static(text.as_bytes())));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        response
    }

    /// Answers a request to an API whose requests may be split.
    async fn split(self, api: Api, request: Request<Incoming>) -> Response<Answer> {
        let ProxyContext { metrics, shared, notices, .. } = &self.context;
        let in_flight = metrics.in_flight(true);
        let name = || format!("llm_d.pd_proxy.POST {}", api.path());
        let mut span = self.context.tracing.span_of(request.headers(), name);
        let settings = &shared.settings;
        let id = request.headers().get(REQUEST_ID).cloned().unwrap_or(HeaderValue::from_static(""));
        let refused = |reason: FailReason, status: StatusCode, message: String| {
            let outcome = Outcome::Failed(reason);
            metrics.outcome(outcome.name(), outcome.reason());
            notices.refused(reason.name(), &message);
            refuse(&Refusal::new(status, message), &id)
        };
        let mut route = match self.route(request.headers()) {
            Ok(route) => route,
            Err(error) => {
                metrics.request(api.name(), "decode-only");
                let status = match error {
                    RouteError::Denied { .. } => StatusCode::FORBIDDEN,
                    RouteError::Target { .. } => StatusCode::BAD_GATEWAY,
                };
                return refused(FailReason::Target, status, error.to_string());
            }
        };
        if settings.encode.is_none() {
            route.encoders.clear();
        }
        metrics.request(api.name(), stages(&route));
        let rank = match route.rank.as_deref().filter(|_| self.rank == 0) {
            None => self.rank,
            Some(text) => {
                let Some(rank) = settings.rank(text) else {
                    let text: String = text.chars().take(100).collect();
                    let message =
                        format!("x-data-parallel-host-port: got {text:?}, expected an address of this pod");
                    return refused(FailReason::Rank, StatusCode::BAD_REQUEST, message);
                };
                rank
            }
        };
        let chunks = settings.chunk_size > 0 && api == Api::Chat;
        let response = if route.is_local() && !chunks {
            self.pass(request, Some(&mut span), rank).await
        } else {
            match self.read(api, request, route, rank).await {
                Ok((ask, head, held)) => drive(self.context.clone(), ask, head, held, span).await,
                Err((reason, status, message)) => refused(reason, status, message),
            }
        };
        response.map(|body| body.counted(metrics, Some(in_flight)))
    }

    /// Reads the routing headers.
    fn route(&self, headers: &HeaderMap) -> Result<Route, RouteError> {
        let settings = &self.context.shared.settings;
        let rules = Rules {
            allowed: &|target| self.allowed.allows(target),
            pick: &|count| if settings.sampling { Ids::new().index(count) } else { 0 },
            kv_source: settings.takes_kv_source(),
        };
        Route::read(headers, &rules)
    }

    /// Reads the body and the headers of a request that is split.
    async fn read(
        &self,
        api: Api,
        request: Request<Incoming>,
        route: Route,
        rank: u16,
    ) -> Result<(Ask, ClientHead, BodyMemory), (FailReason, StatusCode, String)> {
        let (mut head, body) = request.into_parts();
        let client = client(&head);
        forward(&mut head, client);
        let settings = &self.context.shared.settings;
        let (body, held) = self
            .context
            .buffer
            .read(body, settings.body_bytes)
            .await
            .map_err(|error| (error.reason(), error.status(), error.to_string()))?;
        let unreadable =
            |error: &dyn std::fmt::Display| (FailReason::Body, StatusCode::BAD_REQUEST, error.to_string());
        let body =
            if settings.trust_client { body } else { untrusted(body).map_err(|error| unreadable(&error))? };
        let object = JsonObject::read(body, MEMBERS).map_err(|error| unreadable(&error))?;
        let id = match head.headers.get(REQUEST_ID) {
            Some(id) => id.clone(),
            None => HeaderValue::from_str(&Ids::new().uuid()).unwrap_or(HeaderValue::from_static("")),
        };
        let request_id = id.to_str().unwrap_or_default().to_owned();
        head.headers.insert(REQUEST_ID, id.clone());
        let ask = Ask { api, object, route, rank, request_id };
        let uri = head.uri.path_and_query().cloned().map_or_else(Default::default, http::Uri::from);
        Ok((ask, ClientHead { headers: head.headers, uri, id }, held))
    }

    /// Forwards a request to the engine without reading it. The body passes through; only transfer parameters are
    /// blanked.
    async fn pass(&self, request: Request<Incoming>, span: Option<&mut Span>, rank: u16) -> Response<Answer> {
        let ProxyContext { metrics, shared, upstream, .. } = &self.context;
        let (mut call, tunnel) = self.passing(request, span.is_some());
        for (name, value) in span.iter().flat_map(|span| span.inject()) {
            if let (Ok(name), Ok(value)) =
                (HeaderName::from_bytes(&name), HeaderValue::from_maybe_shared(value))
            {
                call.headers_mut().insert(name, value);
            }
        }
        let id = call.headers().get(REQUEST_ID).cloned().unwrap_or(HeaderValue::from_static(""));
        let limit = shared.settings.limits.decode;
        let mut verdict = span.is_some().then(|| Verdict::open(metrics));
        let calling = upstream.call(Leg::Decode, upstream.engine(rank), call);
        let called = match limit {
            None => calling.await,
            Some(limit) => timeout(limit, calling).await.unwrap_or_else(|_| {
                Err(CallError { failure: LegFailure::Timeout, text: format!("no answer within {limit:?}") })
            }),
        };
        let local = Outcome::Local(LocalReason::NoPrefill);
        let (response, outcome) = match called {
            Ok(response) => {
                let failed = response.status().as_u16() >= 400;
                if failed {
                    metrics.call_failed(Stage::Decode.name());
                }
                let failed = failed.then_some(Outcome::Failed(FailReason::Status(Stage::Decode)));
                (relayed(response, tunnel), failed.unwrap_or(local))
            }
            Err(error) => {
                tracing::debug!(error = error.text, "call failed");
                metrics.call_failed(Stage::Decode.name());
                let reason = error.failure.reason(Stage::Decode);
                (refuse(&engine_failed(error.failure), &id), Outcome::Failed(reason))
            }
        };
        if let Some(span) = span {
            span.attribute("llm_d.pd_proxy.outcome", outcome.name());
        }
        let Some(mut verdict) = verdict.take() else { return response };
        verdict.begun(Stage::Decode, outcome);
        response.map(|body| body.judged(verdict))
    }

    /// Turns a request into the call to the engine. The second value is the client's side of a tunnel, if the request
    /// asks for an upgrade.
    fn passing(
        &self,
        mut request: Request<Incoming>,
        split: bool,
    ) -> (Request<Outbound>, Option<hyper::upgrade::OnUpgrade>) {
        let tunnel = upgrade(request.headers()).map(|_| hyper::upgrade::on(&mut request));
        let (mut head, body) = request.into_parts();
        let client = client(&head);
        forward(&mut head, client);
        let blank = !self.context.shared.settings.trust_client && is_looked_at(&head.headers, split);
        let blanker = blank.then(|| Blanker::new(UNTRUSTED, UNTRUSTED_IN));
        let expects = head
            .headers
            .get(EXPECT)
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        let (gate, opener) = if expects { Some(Gate::new()).unzip() } else { (None, None) };
        let empty = http_body::Body::is_end_stream(&body) && !head.headers.contains_key(CONTENT_LENGTH);
        let body = if empty { Outbound::Empty } else { Outbound::passing(body, blanker, gate) };
        let mut call = Request::new(body);
        *call.method_mut() = head.method;
        *call.uri_mut() = head.uri.path_and_query().cloned().map_or_else(Default::default, http::Uri::from);
        *call.headers_mut() = head.headers;
        if let Some(opener) = opener {
            hyper::ext::on_informational(&mut call, move |response| {
                if response.status() == StatusCode::CONTINUE {
                    opener.notify_one();
                }
            });
        }
        (call, tunnel)
    }
}

/// Returns true if the body must be searched for transfer parameters. That is each body which the engine may read as
/// JSON. The engine serves more paths than the sidecar splits, and accepts more spellings of a path.
fn is_looked_at(headers: &HeaderMap, split: bool) -> bool {
    let is_json = || {
        let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
        // A gRPC message has a frame in front of its JSON.
        let is_framed = kind.get(..16).is_some_and(|start| start.eq_ignore_ascii_case(b"application/grpc"));
        kind.is_empty() || !is_framed && kind.windows(4).any(|word| word.eq_ignore_ascii_case(b"json"))
    };
    !headers.contains_key(CONTENT_ENCODING) && (split || is_json())
}

/// The address of the client.
fn client(head: &request::Parts) -> IpAddr {
    head.extensions.get::<ClientAddress>().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |client| client.0.ip())
}

/// The stages that have a server in `route`, as the counters name them.
fn stages(route: &Route) -> &'static str {
    match (route.encoders.is_empty(), route.prefill.is_empty()) {
        (true, true) => "decode-only",
        (true, false) => "prefill-decode",
        (false, true) => "encode-decode",
        (false, false) => "encode-prefill-decode",
    }
}

/// Returns the body with the transfer parameters blanked that clients may not set. Fails where the blanker cannot tell
/// which bytes these are.
fn untrusted(body: Bytes) -> Result<Bytes, TooMuchBlank> {
    let mut blanker = Blanker::new(UNTRUSTED, UNTRUSTED_IN);
    let pieces = blanker.feed(&body)?;
    if blanker.blanked() == 0 {
        return Ok(body);
    }
    let rest = blanker.finish();
    Ok(Bytes::from(pieces.iter().chain(&rest).flatten().copied().collect::<Vec<u8>>()))
}

fn engine_failed(failure: LegFailure) -> Refusal {
    match failure {
        LegFailure::Refused => Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "the decode node is not ready: its model server refuses connections",
        ),
        other => Refusal::new(
            other.status(),
            format!("the model server of the decode node failed: {}", other.text()),
        ),
    }
}

/// Turns the engine's response into the client's. If the engine agrees to an upgrade, the two connections become a
/// tunnel.
fn relayed(response: Response<Incoming>, tunnel: Option<hyper::upgrade::OnUpgrade>) -> Response<Answer> {
    let (mut head, body) = response.into_parts();
    head.version = http::Version::HTTP_11;
    strip_hop_by_hop(&mut head.headers);
    if head.status != StatusCode::SWITCHING_PROTOCOLS {
        return Response::from_parts(head, Answer::relayed(Vec::new(), Some(body)));
    }
    let mut theirs = Response::from_parts(head, ());
    let server = hyper::upgrade::on(&mut theirs);
    if let Some(client) = tunnel {
        tokio::spawn(async move {
            let Ok((client, server)) = tokio::try_join!(client, server) else { return };
            let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
            // The tunnel ends as soon as either side closes or breaks.
            if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut server).await {
                tracing::debug!(%error, "tunnel ended");
            }
        });
    }
    theirs.map(|()| Answer::whole(Bytes::new()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_looked_at_on_every_path_and_other_bodies_are_not() {
        let of = |kind: Option<&'static str>, split| {
            let kind = kind.map(|kind| (CONTENT_TYPE, HeaderValue::from_static(kind)));
            is_looked_at(&kind.into_iter().collect(), split)
        };
        for kind in [None, Some(""), Some("application/json"), Some("Application/Vnd.x+JSON; charset=utf-8")]
        {
            assert!(of(kind, false) && of(kind, true), "{kind:?}");
        }
        for kind in ["application/grpc+json", "multipart/form-data; boundary=x", "audio/wav"] {
            assert!(!of(Some(kind), false), "{kind}");
        }
        assert!(of(Some("text/plain"), true));
    }

    #[test]
    fn what_clients_may_not_say_is_gone_and_all_else_stands() {
        let body = Bytes::from_static(br#"{"kv_transfer_params":{"a":1},"x":12345678901234567890}"#);
        let clean = untrusted(body.clone()).unwrap();
        assert_eq!(clean.len(), body.len());
        assert!(clean.ends_with(br#"  "x":12345678901234567890}"#));
        let plain = Bytes::from_static(br#"{"x":1}"#);
        assert_eq!(untrusted(plain.clone()).unwrap().as_ptr(), plain.as_ptr());
        // Blanks hide nothing, and a body that ends in them is none.
        let blanks = " ".repeat(1 << 20);
        let hidden = format!(r#"{{"kv_transfer_params"{blanks}:{{"a":1}},"x":1}}"#);
        let clean = untrusted(Bytes::from(hidden)).unwrap();
        assert!(clean.ends_with(br#" "x":1}"#) && !clean.windows(3).any(|word| word == b"kv_"));
        assert!(untrusted(Bytes::from(format!(r#"{{"x":1,{blanks}"#))).is_err());
    }
}
