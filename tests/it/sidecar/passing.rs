//! What is not split passes as it comes, in both directions.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body_util::BodyExt as _;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::running::Sidecar;
use super::stub::{Step, Stub, answer, chunk, chunked, last_chunk};
use crate::support::{Client, eventually, holds, lone_request, within};

#[tokio::test(flavor = "multi_thread")]
async fn requests_and_answers_pass_byte_for_byte_over_both_versions() {
    let engine = Stub::start(|seen| {
        let length = seen.body.len();
        answer(
            203,
            "x-two: 1\r\nx-two: 2\r\nconnection: x-hop\r\nx-hop: 1\r\nkeep-alive: timeout=5\r\n",
            &format!("{length}"),
        )
    })
    .await;
    let sidecar = Sidecar::start(&engine, &[]).await;
    let body: Vec<u8> = (0..=255).cycle().take(3 << 20).collect();
    for client in [Client::http1(sidecar.addr), Client::http2(sidecar.addr)] {
        let headers = [("x-own", "a"), ("authorization", "Bearer t"), ("content-type", "application/x-own")];
        let reply = client.post_with("/any//path/../x?q=%20a&b", &headers, body.clone()).await;
        assert_eq!((reply.status, reply.text()), (203, body.len().to_string().as_str()));
        assert_eq!(reply.headers.get_all("x-two").iter().collect::<Vec<_>>(), ["1", "2"]);
        for hop in ["x-hop", "keep-alive", "connection"] {
            assert!(!reply.headers.contains_key(hop), "{hop}: {reply:?}");
        }
    }
    for seen in engine.seen() {
        assert_eq!(seen.line, "POST /any//path/../x?q=%20a&b HTTP/1.1");
        assert!(seen.body == body, "the body is another one");
        assert_eq!((seen.header("x-own"), seen.header("authorization")), ("a", "Bearer t"));
        assert_eq!(seen.header("host"), sidecar.addr.to_string());
        assert_eq!(seen.header("x-forwarded-for"), "127.0.0.1");
        assert_eq!(seen.header("content-length"), body.len().to_string());
    }
    assert_eq!(engine.seen().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_of_one_connection_do_not_reach_the_next() {
    let engine = Stub::plain().await;
    let sidecar = Sidecar::start(&engine, &[]).await;
    let request = "GET /v1/models HTTP/1.1\r\nHost: models.example\r\nConnection: close, x-mine\r\nX-Mine: 1\r\n\
                   Keep-Alive: timeout=9\r\nProxy-Authorization: Basic x\r\nProxy-Connection: keep-alive\r\nTE: gzip, trailers\r\n\
                   Upgrade: h2c\r\nX-Forwarded-For: 192.0.2.1\r\nAccept: a\r\nAccept: b\r\n\r\n";
    let reply = String::from_utf8(lone_request(sidecar.addr, request.as_bytes()).await).unwrap();
    assert!(reply.starts_with("HTTP/1.1 200 "), "{reply}");
    let seen = engine.only();
    for name in ["connection", "x-mine", "keep-alive", "proxy-authorization", "proxy-connection", "upgrade"] {
        assert_eq!(seen.all(name), [""; 0], "{name}");
    }
    assert_eq!((seen.all("te"), seen.all("accept")), (vec!["trailers"], vec!["a", "b"]));
    assert_eq!(
        (seen.header("host"), seen.header("x-forwarded-for")),
        ("models.example", "192.0.2.1, 127.0.0.1")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn pieces_of_a_stream_reach_the_client_as_they_come() {
    let engine = Stub::start(|seen| {
        let kind = if seen.path() == "/v1/x" {
            "content-type: application/json\r\n"
        } else {
            "content-type: text/event-stream\r\n"
        };
        vec![chunked(kind), chunk("first"), Step::Hang]
    })
    .await;
    let sidecar = Sidecar::start(&engine, &[]).await;
    for (client, path) in [
        (Client::http1(sidecar.addr), "/v1/chat/completions"),
        (Client::http2(sidecar.addr), "/v1/chat/completions"),
        (Client::http1(sidecar.addr), "/v1/x"),
    ] {
        let mut response = client.open(path, &json!({"stream": true})).await;
        let frame = within("first piece", response.body_mut().frame()).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), "first");
        let left = engine.left();
        drop(response);
        holds("the engine sees that the client left", async || engine.left() == left + 1).await;
    }
    sidecar.is_idle().await;
    holds("no call is left", async || engine.open() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_before_the_answer_ends_the_call_at_once() {
    let engine = Stub::start(|_| vec![Step::Hang]).await;
    let sidecar = Sidecar::start(&engine, &[]).await;
    for (path, http2) in [("/v1/chat/completions", false), ("/v1/models", false), ("/v1/completions", true)] {
        let client = if http2 { Client::http2(sidecar.addr) } else { Client::http1(sidecar.addr) };
        let (left, asked) = (engine.left(), engine.seen().len());
        let calling =
            tokio::spawn(async move { client.try_post(path, &[], Bytes::from("{}")).await.is_ok() });
        holds("the engine is asked", async || engine.seen().len() == asked + 1).await;
        calling.abort();
        holds("the engine sees that the client left", async || engine.left() == left + 1).await;
    }
    sidecar.is_idle().await;
    sidecar.counted("failed", "client_gone", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_pass_in_both_directions() {
    let engine = Stub::start(|_| {
        vec![chunked("trailer: x-sum\r\n"), chunk("body"), Step::Send(b"0\r\nx-sum: 7\r\n\r\n".to_vec())]
    })
    .await;
    let sidecar = Sidecar::start(&engine, &[]).await;
    let request = "POST /v1/files HTTP/1.1\r\nHost: x\r\nTE: trailers\r\nConnection: close\r\nTrailer: x-own\r\n\
                   Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\nx-own: 3\r\n\r\n";
    let reply = String::from_utf8(lone_request(sidecar.addr, request.as_bytes()).await).unwrap();
    assert!(reply.ends_with("4\r\nbody\r\n0\r\nx-sum: 7\r\n\r\n"), "{reply}");
    assert_eq!(engine.only().trailers, [("x-own".to_owned(), "3".to_owned())]);
    // Over HTTP/2 nobody announces them.
    let mut trailers = HeaderMap::new();
    trailers.insert("x-own", HeaderValue::from_static("4"));
    let body = vec![Bytes::from("bo"), Bytes::from("dy")];
    let reply = Client::http2(sidecar.addr).post_with_trailers("/v1/files", body, trailers).await;
    assert_eq!(reply.text(), "body");
    assert_eq!(engine.seen()[1].text(), "body");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgraded_connection_is_a_tunnel() {
    let engine = Stub::start(|_| {
        let head = "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: a\r\n\r\nhello";
        vec![Step::Send(head.as_bytes().to_vec()), Step::Echo]
    })
    .await;
    let sidecar = Sidecar::start(&engine, &[]).await;
    let mut stream = TcpStream::connect(sidecar.addr).await.unwrap();
    let request = "GET /v1/realtime HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Key: k\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut received = Vec::new();
    within("hello", async {
        while !received.ends_with(b"hello") {
            assert!(
                stream.read_buf(&mut received).await.unwrap() > 0,
                "{}",
                String::from_utf8_lossy(&received)
            );
        }
    })
    .await;
    let head = String::from_utf8_lossy(&received).to_ascii_lowercase();
    for line in [
        "http/1.1 101 ",
        "\r\nupgrade: websocket\r\n",
        "\r\nconnection: upgrade\r\n",
        "\r\nsec-websocket-accept: a\r\n",
    ] {
        assert!(head.contains(line), "{line} {head}");
    }
    stream.write_all(b"\x81\x02hi").await.unwrap();
    let mut echo = [0; 4];
    within("echo", stream.read_exact(&mut echo)).await.unwrap();
    assert_eq!(&echo, b"\x81\x02hi");
    assert_eq!(engine.only().header("upgrade"), "websocket");
    drop(stream);
    holds("the tunnel is over at the engine too", async || engine.open() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_asks_first_whether_its_body_is_wanted_hears_what_the_engine_says() {
    let engine = Stub::start(|seen| answer(200, "", seen.text())).await;
    let sidecar = Sidecar::start(&engine, &[]).await;
    // One engine says so, the other says nothing and gets the body all the same.
    for path in ["/v1/chat/completions", "/v1/files", "/silent"] {
        let mut stream = TcpStream::connect(sidecar.addr).await.unwrap();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nConnection: close\r\nContent-Length: 2\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut received = Vec::new();
        within("word that the body is wanted", async {
            while !received.ends_with(b"\r\n\r\n") {
                assert!(stream.read_buf(&mut received).await.unwrap() > 0, "{path}");
            }
        })
        .await;
        assert!(received.starts_with(b"HTTP/1.1 100 "), "{path} {}", String::from_utf8_lossy(&received));
        stream.write_all(b"{}").await.unwrap();
        received.clear();
        within("answer", stream.read_to_end(&mut received)).await.unwrap();
        let reply = String::from_utf8_lossy(&received);
        assert!(reply.starts_with("HTTP/1.1 200 ") && reply.ends_with("{}"), "{path} {reply}");
    }
    assert!(engine.seen().iter().all(|seen| seen.text() == "{}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_client_holds_the_engine_up_and_no_memory() {
    let piece = "x".repeat(64 << 10);
    let engine = Stub::start(move |_| {
        let mut steps = vec![chunked("")];
        steps.extend((0..1024).map(|_| chunk(&piece)));
        steps.push(last_chunk());
        steps
    })
    .await;
    let sidecar = Sidecar::start(&engine, &[]).await;
    let before = sidecar.process.memory();
    let mut response = sidecar.client().open("/v1/large", &json!({})).await;
    // The engine can send no more long before it has sent all.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(engine.open(), 1);
    let held = sidecar.process.memory().saturating_sub(before);
    assert!(held < 16 << 20, "{held} bytes");
    let mut length = 0;
    while let Some(frame) = within("next piece", response.body_mut().frame()).await {
        length += frame.unwrap().into_data().unwrap().len();
    }
    assert_eq!(length, 64 << 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_grpc_reach_the_engine_over_http2() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service =
                hyper::service::service_fn(|request: http::Request<hyper::body::Incoming>| async move {
                    let body = request.into_body().collect().await?.to_bytes();
                    let mut trailers = HeaderMap::new();
                    trailers.insert("grpc-status", HeaderValue::from_static("0"));
                    let frames = [hyper::body::Frame::data(body), hyper::body::Frame::trailers(trailers)];
                    let body = http_body_util::StreamBody::new(futures_util::stream::iter(
                        frames.map(Ok::<_, std::convert::Infallible>),
                    ));
                    Ok::<_, hyper::Error>(http::Response::new(body))
                });
            let executor = hyper_util::rt::TokioExecutor::new();
            let serving = hyper::server::conn::http2::Builder::new(executor);
            tokio::spawn(serving.serve_connection(hyper_util::rt::TokioIo::new(stream), service));
        }
    });
    let sidecar = Sidecar::start_in(&[], &port, &[]).await;
    let client = Client::http2(sidecar.addr);
    let headers = [("content-type", "application/grpc"), ("te", "trailers")];
    let mut response = client.open_with("/vllm.Engine/Generate", &headers, &json!({"a": 1})).await;
    assert_eq!(response.status(), 200);
    let body = within("body and trailers", response.body_mut().collect()).await.unwrap();
    assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
    assert_eq!(body.to_bytes(), json!({"a": 1}).to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_the_sidecars_and_readiness_is_the_engines() {
    let engine = Stub::start(|_| answer(200, "", "posted")).await;
    engine.feel(503);
    let sidecar = Sidecar::start(&engine, &[]).await;
    assert_eq!(sidecar.client().get("/health").await.status, 200);
    let reply = sidecar.client().get("/readyz").await;
    assert_eq!((reply.status, reply.text()), (503, "the model server is not ready\n"));
    engine.feel(200);
    assert_eq!(sidecar.client().get("/readyz").await.status, 200);
    assert_eq!(sidecar.metric("pointsman_sidecar_engine_ready", &[]).await, 1.0);
    // Any other method is the engine's.
    assert_eq!(sidecar.client().post("/health", &json!({})).await.text(), "posted");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_under_way_end_well_when_the_sidecar_is_told_to_stop() {
    let engine = Stub::start(|_| {
        vec![chunked(""), chunk("a"), Step::Pause(Duration::from_millis(600)), chunk("b"), last_chunk()]
    })
    .await;
    let mut sidecar = Sidecar::start(&engine, &[]).await;
    let mut response = sidecar.client().open("/v1/chat/completions", &json!({"stream": true})).await;
    let first = within("first piece", response.body_mut().frame()).await.unwrap().unwrap();
    assert_eq!(first.into_data().unwrap(), "a");
    sidecar.process.terminate().await;
    let rest = within("rest", response.into_body().collect()).await.unwrap().to_bytes();
    assert_eq!(rest, "b");
    assert!(sidecar.process.ended().await.success());
    let refused = eventually("nobody listens", async || {
        TcpStream::connect(sidecar.addr).await.is_err().then_some(true)
    });
    assert!(refused.await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_breaks_off_for_the_client_too_and_is_counted_so() {
    let engine =
        Stub::start(|_| vec![chunked(""), chunk("a"), Step::Pause(Duration::from_millis(50)), Step::Reset])
            .await;
    let sidecar = Sidecar::start(&engine, &[]).await;
    for client in [Client::http1(sidecar.addr), Client::http2(sidecar.addr)] {
        let response = client.open("/v1/chat/completions", &json!({"stream": true})).await;
        assert!(within("end", response.into_body().collect()).await.is_err());
    }
    sidecar.counted("failed", "decode_broken", 2).await;
    assert_eq!(sidecar.outcomes("local", "no_prefill_header").await, 0.0);
}
