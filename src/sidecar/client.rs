//! Sends calls to servers, over connections that are kept for later calls.

use std::error::Error as _;

use http::uri::{Authority, Scheme};
use http::{Request, Response, Uri, Version};
use hyper::body::Incoming;
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::connect::{ConnectError, Connector};
use super::connector::Stage;
use super::machine::LegFailure;
use super::outbound::Outbound;
use super::settings::Settings;
use crate::transport::{ClientTls, TlsError};

/// The most bytes of an answer's head, and of one piece of its body.
const BUFFER: usize = 256 << 10;

/// The most bytes that wait to be sent on one HTTP/2 stream.
const SEND_BUFFER: usize = 64 << 10;

/// One HTTP client for the servers of each stage.
#[derive(Debug)]
pub(super) struct Clients {
    encode: Kind,
    prefill: Kind,
    decode: Kind,
    /// The client for gRPC calls to the engine: HTTP/2 without TLS.
    grpc: Client<Connector, Outbound>,
    /// The client for servers that never use TLS.
    plain: Kind,
}

#[derive(Debug)]
struct Kind {
    client: Client<Connector, Outbound>,
    scheme: Scheme,
}

/// Why a call failed.
#[derive(Debug)]
pub(super) struct CallError {
    /// The class of the failure.
    pub failure: LegFailure,
    /// The error text of the client library, for the log.
    pub text: String,
}

impl Clients {
    /// Makes the clients that `settings` asks for.
    pub(super) fn new(settings: &Settings) -> Result<Self, TlsError> {
        let kind = |stage: Stage| {
            let tls = settings
                .tls
                .of(stage)
                .then(|| ClientTls::load(settings.skip_verify.of(stage)))
                .transpose()?;
            let scheme = if tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP };
            let connector = Connector::new(tls, settings.limits.connect);
            Ok::<_, TlsError>(Kind { client: builder(settings).build(connector), scheme })
        };
        let plain = Connector::new(None, settings.limits.connect);
        let client = builder(settings).build(plain.clone());
        Ok(Self {
            encode: kind(Stage::Encode)?,
            prefill: kind(Stage::Prefill)?,
            decode: kind(Stage::Decode)?,
            grpc: builder(settings).http2_only(true).build(plain),
            plain: Kind { client, scheme: Scheme::HTTP },
        })
    }

    /// Sends a call to a server of `stage`. The URI of `request` is a path with a query; `authority` is the server.
    pub(super) async fn call(
        &self,
        stage: Stage,
        authority: Authority,
        request: Request<Outbound>,
    ) -> Result<Response<Incoming>, CallError> {
        let kind = match stage {
            Stage::Encode => &self.encode,
            Stage::Prefill => &self.prefill,
            Stage::Decode => &self.decode,
        };
        let grpc = stage == Stage::Decode && kind.scheme == Scheme::HTTP && is_grpc(&request);
        let target = if grpc { &self.grpc } else { &kind.client };
        send(target, &kind.scheme, authority, request, if grpc { Version::HTTP_2 } else { Version::HTTP_11 })
            .await
    }

    /// Sends a call to a server that never uses TLS.
    pub(super) async fn call_plain(
        &self,
        authority: Authority,
        request: Request<Outbound>,
    ) -> Result<Response<Incoming>, CallError> {
        let Kind { client, scheme } = &self.plain;
        send(client, scheme, authority, request, Version::HTTP_11).await
    }
}

/// Sends a call with HTTP `version`. The version of the client's own request does not matter for the server.
async fn send(
    client: &Client<Connector, Outbound>,
    scheme: &Scheme,
    authority: Authority,
    mut request: Request<Outbound>,
    version: Version,
) -> Result<Response<Incoming>, CallError> {
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme = Some(scheme.clone());
    parts.authority = Some(authority);
    if parts.path_and_query.is_none() {
        parts.path_and_query = Some(http::uri::PathAndQuery::from_static("/"));
    }
    match Uri::from_parts(parts) {
        Ok(uri) => *request.uri_mut() = uri,
        Err(error) => return Err(CallError { failure: LegFailure::Garbage, text: error.to_string() }),
    }
    *request.version_mut() = version;
    client.request(request).await.map_err(|error| CallError { failure: failure(&error), text: text(&error) })
}

fn builder(settings: &Settings) -> legacy::Builder {
    let mut builder = Client::builder(TokioExecutor::new());
    builder
        .pool_idle_timeout(settings.limits.idle)
        .pool_max_idle_per_host(settings.idle_connections)
        .pool_timer(TokioTimer::new())
        .timer(TokioTimer::new())
        .http1_max_buf_size(BUFFER)
        .http2_max_send_buf_size(SEND_BUFFER);
    builder
}

/// Returns true for a gRPC call, which needs HTTP/2.
fn is_grpc(request: &Request<Outbound>) -> bool {
    let kind = request.headers().get(http::header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

fn failure(error: &legacy::Error) -> LegFailure {
    if error.is_connect() {
        let timeout = std::iter::successors(error.source(), |&error| error.source())
            .filter_map(|error| error.downcast_ref::<ConnectError>())
            .any(|error| matches!(error, ConnectError::Timeout(_)));
        return if timeout { LegFailure::ConnectTimeout } else { LegFailure::Refused };
    }
    let garbage = std::iter::successors(error.source(), |&error| error.source())
        .filter_map(|error| error.downcast_ref::<hyper::Error>())
        .any(|error| error.is_parse() || error.is_parse_too_large());
    if garbage { LegFailure::Garbage } else { LegFailure::Reset }
}

/// The text of the error and of its causes.
fn text(error: &legacy::Error) -> String {
    let causes = std::iter::successors(error.source(), |&error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
