//! Sequences of messages of a proxy, through the whole service: codec, stream, machine, director, exchange.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use pointsman::config::{ConfigSource, LoadOptions, load};
use pointsman::director::{BodyBudget, Director, DirectorParts, DirectorSettings, Hook};
use pointsman::extproc::wire::{
    HeaderMap, HeaderValue, HttpBody, HttpHeaders, HttpTrailers, ProcessingRequest, ProtocolConfiguration,
    Request,
};
use pointsman::extproc::{ExtProc, ExtProcSettings, MachineSettings, Modes, PROCESS_PATH};
use pointsman::metrics::Metrics;
use pointsman::pool::{EndpointId, EndpointSpec, Pool};
use pointsman::request::Parsers;
use pointsman::telemetry::Tracing;
use prost::Message;
use tokio::runtime::Runtime;
use tower_service::Service;

use super::{path, size_class};
use crate::engine::{Broken, Target, run};

const PATHS: [&str; 4] = ["/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/models"];
const TYPES: [&str; 3] = ["application/json", "text/event-stream", "application/grpc"];

/// A picker in this process.
struct World {
    service: ExtProc,
    pool: Arc<Pool>,
    budget: Arc<BodyBudget>,
    runtime: Runtime,
}

fn world() -> World {
    let metrics = Arc::new(Metrics::new());
    let plan =
        load(&ConfigSource::BuiltIn, &LoadOptions::new(Arc::clone(&metrics))).expect("the default loads");
    let pool = Arc::new(Pool::new("default", "pool", Instant::now()));
    pool.replace_endpoints(
        (1..=3)
            .map(|number| {
                let address = SocketAddr::from(([127, 0, 0, number], 8000));
                EndpointSpec::new(EndpointId::new("default", &format!("pod-{number}")), address)
            })
            .collect(),
    );
    let hooks = plan
        .pre_request
        .into_iter()
        .map(|before| Hook { before: Some(before), response: None, end: None })
        .chain(plan.response_headers.into_iter().map(|response| Hook {
            before: None,
            response: Some(response),
            end: None,
        }))
        .collect();
    let budget = Arc::new(BodyBudget::new(1 << 20));
    let director = Director::new(DirectorParts {
        pool: Arc::clone(&pool),
        scheduler: plan.scheduler,
        preparers: plan.preparers,
        media: plan.media,
        in_flight: plan.in_flight,
        in_flight_matches: plan.in_flight_matches,
        entry: plan.entry,
        producers: plan.producers,
        hooks,
        reporters: plan.reporters,
        parsers: Parsers::default()
            .kinds()
            .iter()
            .map(|kind| metrics.timed_parser(*kind, kind.type_name(), &kind.type_name().into()))
            .collect(),
        prefix_match: plan.prefix_match,
        shown_matches: plan.shown_matches,
        admission: None,
        inflight: None,
        budget: Arc::clone(&budget),
        decisions: None,
        beside: None,
        metrics: Arc::clone(&metrics),
        settings: DirectorSettings { seed: 1, ..DirectorSettings::default() },
    });
    let settings = ExtProcSettings {
        machine: MachineSettings {
            modes: Modes::default(),
            body_limit: 256 << 10,
            budget: Arc::clone(&budget),
        },
        ..ExtProcSettings::default()
    };
    let service =
        ExtProc::new(Arc::new(arc_swap::ArcSwap::from_pointee(director)), &metrics, Tracing::off(), settings);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    World { service, pool, budget, runtime }
}

/// Reads an input as a script: each byte is a kind of message, the bytes behind it say what is in it.
struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    /// Bytes up to the next NUL, at most `most`.
    fn text(&mut self, most: usize) -> &'a [u8] {
        let end = self.0.iter().take(most).position(|byte| *byte == 0).unwrap_or(self.0.len().min(most));
        let (text, rest) = self.0.split_at(end);
        self.0 = rest.strip_prefix(b"\0").unwrap_or(rest);
        text
    }

    fn header(key: &[u8], value: &[u8]) -> HeaderValue {
        HeaderValue {
            key: Bytes::copy_from_slice(key),
            value: Bytes::new(),
            raw_value: Bytes::copy_from_slice(value),
        }
    }

    fn headers(&mut self, first: (&[u8], &[u8])) -> HttpHeaders {
        let flags = self.byte();
        let mut headers = vec![Self::header(first.0, first.1)];
        headers.push(Self::header(b"content-type", TYPES[usize::from(flags >> 1) % TYPES.len()].as_bytes()));
        for _ in 0..flags >> 5 {
            let (key, value) = (self.text(64), self.text(4096));
            headers.push(Self::header(key, value));
        }
        HttpHeaders { headers: Some(HeaderMap { headers }), end_of_stream: flags & 1 == 1 }
    }

    fn body(&mut self) -> HttpBody {
        let end_of_stream = self.byte() & 1 == 1;
        HttpBody { body: Bytes::copy_from_slice(self.text(60_000)), end_of_stream }
    }

    /// The next message, as bytes of gRPC.
    fn next(&mut self) -> Option<Vec<u8>> {
        if self.0.is_empty() {
            return None;
        }
        let request = match self.byte() % 8 {
            0 | 1 => {
                let (route, modes) = (PATHS[self.byte() as usize % PATHS.len()], self.byte());
                let config = ProtocolConfiguration {
                    request_body_mode: i32::from(modes & 7) % 5,
                    response_body_mode: i32::from(modes >> 3 & 7) % 5,
                    send_body_without_waiting_for_header_response: modes >> 6 & 1 == 1,
                };
                let headers = self.headers((b":path", route.as_bytes()));
                let request = Some(Request::RequestHeaders(headers));
                return Some(frame(
                    &ProcessingRequest {
                        request,
                        protocol_config: Some(config),
                        ..ProcessingRequest::default()
                    }
                    .encode_to_vec(),
                ));
            }
            2 => Request::RequestBody(self.body()),
            3 => Request::RequestTrailers(HttpTrailers::default()),
            4 => {
                let status: &[u8] = if self.byte() & 1 == 0 { b"200" } else { b"503" };
                Request::ResponseHeaders(self.headers((b":status", status)))
            }
            5 => Request::ResponseBody(self.body()),
            6 => Request::ResponseTrailers(HttpTrailers::default()),
            _ => return Some(frame(self.text(200))),
        };
        Some(frame(
            &ProcessingRequest { request: Some(request), ..ProcessingRequest::default() }.encode_to_vec(),
        ))
    }
}

fn frame(message: &[u8]) -> Vec<u8> {
    [&[0], &(message.len() as u32).to_be_bytes()[..], message].concat()
}

fn seeds() -> Vec<Vec<u8>> {
    let body = b"{\"model\":\"m\",\"prompt\":\"hello\"}";
    let answer =
        b"{\"model\":\"m\",\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2,\"total_tokens\":5}}";
    let mut seeds = Vec::new();
    for request in 0..5_u8 {
        for response in 0..5_u8 {
            let modes = request | response << 3;
            let mut script = vec![0, 1, modes, 0, 2, 1];
            script.extend_from_slice(body);
            script.extend_from_slice(&[0, 4, 0, 0, 5, 1]);
            script.extend_from_slice(answer);
            seeds.push(script);
            let mut script = vec![0, 1, modes, 0, 2, 0];
            script.extend_from_slice(body);
            script.extend_from_slice(&[0, 3, 4, 0, 2, 5, 0]);
            script.extend_from_slice(b"data: {\"model\":\"m\"}\n\n");
            script.extend_from_slice(&[0, 6]);
            seeds.push(script);
        }
    }
    seeds
}

#[test]
fn whatever_a_proxy_sends_the_stream_ends_and_nothing_stays_taken() {
    let world = world();
    let words = [
        "\"model\":\"x\",",
        "\0\x02\x00",
        "\0\x02\x01",
        "\0\x04\0\0",
        "\0\x05\x01",
        "\0\x03",
        "\0\x06",
        "content-length\x00100\0",
        "x-llm-d-model-name-rewrite\0y\0",
        "\0\x07\x0a\x7f",
        ":method\0GET\0",
    ];
    let target =
        Target { name: "ext_proc", seeds: seeds(), words: &words, memory_factor: 24, memory_base: 1 << 20 };
    run(&target, |input| check(&world, input));
}

fn check(world: &World, input: &[u8]) -> Result<u64, Broken> {
    let mut script = Script(input);
    let (mut inbound, mut messages, mut rewrites) = (Vec::new(), 0_usize, false);
    while let Some(frame) = script.next() {
        rewrites |= frame.windows(8).any(|part| part == b"-rewrite");
        inbound.extend_from_slice(&frame);
        messages += 1;
    }
    let came = inbound.len();
    let request = http::Request::post(PROCESS_PATH)
        .header("content-type", "application/grpc")
        .body(tonic::body::Body::new(Full::new(Bytes::from(inbound))))
        .expect("a request");
    let mut service = world.service.clone();
    let (status, sent) = world.runtime.block_on(async {
        let response = service.call(request).await.expect("the service does not fail");
        let collected = response.into_body().collect().await.expect("the body ends");
        let status = collected.trailers().and_then(|trailers| trailers.get("grpc-status").cloned());
        (status, collected.to_bytes().len())
    });
    // An answer to headers has some hundred bytes of its own; bodies come back at most once.
    let allowed = 2 * came + 1024 * (1 + messages.min(8));
    if !rewrites && sent > allowed {
        return Err(format!("{came} bytes in {messages} messages gave {sent} bytes"));
    }
    let open = world.service.open_streams().load(std::sync::atomic::Ordering::Relaxed);
    if open != 0 || world.budget.used() != 0 {
        return Err(format!("{open} streams and {} bytes of bodies stay counted", world.budget.used()));
    }
    for endpoint in world.pool.snapshot().endpoints() {
        let load = endpoint.load();
        if load.in_flight() != 0 || load.in_flight_tokens() != 0 {
            return Err("a lease stays taken".to_owned());
        }
    }
    Ok(path((status.map(|status| status.as_bytes().to_vec()), size_class(sent), messages.min(12))))
}
