//! Requests that refer to a response or a conversation go to the server that made it.

use serde_json::{Value, json};

use crate::support::{
    BodyMode, Client, EndpointsFile, Envoy, Pointsman, SCORERS, Script, ScriptEnd, Scripted, config,
    eventually, holds,
};

const OUTCOMES: &str = "pointsman_stateful_requests_total";

/// A server whose ids end in `number`.
async fn server(number: usize) -> Scripted {
    Scripted::start(move |line, body| {
        let stream = body.contains("\"stream\":true");
        if line.starts_with("POST /v1/responses ") && stream {
            let created = format!(
                "event: response.created\ndata: {{\"type\":\"response.created\",\"response\":{{\"id\":\"resp_{number}s\"}}}}\n\n"
            );
            return Script::events(&[&created, "data: {\"type\":\"response.completed\"}\n\n"], ScriptEnd::Proper);
        }
        if line.starts_with("POST /v1/conversations ") {
            return Script::json(&format!(r#"{{"object":"conversation","id":"conv_{number}"}}"#));
        }
        if line.starts_with("POST /v1/responses ") && !body.contains("previous") && !body.contains("conversation") {
            return Script::json(&format!(r#"{{"object":"response","id":"resp_{number}","status":"completed"}}"#));
        }
        Script::json("{}")
    })
    .await
}

struct Pool {
    servers: Vec<Scripted>,
    pointsman: Pointsman,
    envoy: Envoy,
    endpoints: EndpointsFile,
}

impl Pool {
    async fn start(flags: &[&str]) -> Self {
        Self::of(server, flags).await
    }

    async fn of(start: impl AsyncFn(usize) -> Scripted, flags: &[&str]) -> Self {
        let mut servers = Vec::new();
        for number in 0..4 {
            servers.push(start(number).await);
        }
        let names = ["s0", "s1", "s2", "s3"];
        let endpoints = EndpointsFile::with(names.into_iter().zip(servers.iter().map(|server| server.addr)));
        let flags = [&["--secure-serving=false"], flags].concat();
        let pointsman = Pointsman::start(&config(&endpoints.path(), SCORERS), &flags).await;
        holds("every server was scraped", async || {
            pointsman.metric("llm_d_epp_ready_endpoints", &[]).await == Some(4.0)
        })
        .await;
        let envoy = Envoy::start(pointsman.grpc, false, BodyMode::FullDuplexStreamed).await;
        Self { servers, pointsman, envoy, endpoints }
    }

    fn client(&self) -> Client {
        self.envoy.http1()
    }

    /// Makes something and gives the number of the server that did.
    async fn made(&self, path: &str, body: &Value) -> usize {
        let before: Vec<usize> = self.servers.iter().map(|server| server.asked().len()).collect();
        assert_eq!(self.client().post(path, body).await.status, 200);
        let asked = |(number, server): (usize, &Scripted)| server.asked().len() > before[number];
        self.servers.iter().enumerate().position(asked).unwrap()
    }

    async fn outcome(&self, outcome: &str) -> f64 {
        self.pointsman.metric(OUTCOMES, &[("outcome", outcome)]).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_refers_to_a_response_or_a_conversation_goes_to_the_server_that_made_it() {
    let pool = Pool::start(&[]).await;
    let client = pool.client();
    let plain = pool.made("/v1/responses", &json!({"model": "m", "input": "a long first prompt"})).await;
    let streamed =
        pool.made("/v1/responses", &json!({"model": "m", "input": "another", "stream": true})).await;
    let talk = pool
        .made(
            "/v1/conversations",
            &json!({"model": "m", "items": [{"type": "message", "role": "user", "content": "x"}]}),
        )
        .await;
    let mut expected = [0; 4];
    for (id, conversation, number) in [
        (format!("resp_{plain}"), None, plain),
        (format!("resp_{streamed}s"), Some(format!("conv_{talk}")), streamed),
    ] {
        for _ in 0..4 {
            let next = json!({"model": "m", "previous_response_id": id, "input": [{"type": "function_call_output", "call_id": "c", "output": "42"}]});
            client.post("/v1/responses", &next).await;
            client.get(&format!("/v1/responses/{id}")).await;
            client.get(&format!("/v1/responses/{id}/input_items?limit=3")).await;
            client.delete(&format!("/v1/responses/{id}")).await;
            expected[number] += 4;
            if let Some(conversation) = &conversation {
                for reference in [json!(conversation), json!({"id": conversation})] {
                    let next = json!({"model": "m", "conversation": reference, "input": "go on"});
                    client.post("/v1/responses", &next).await;
                }
                client.get(&format!("/v1/conversations/{conversation}/items")).await;
                expected[talk] += 3;
            }
        }
    }
    let made = |number| [plain, streamed, talk].iter().filter(|maker| **maker == number).count();
    for (number, server) in pool.servers.iter().enumerate() {
        assert_eq!(server.asked().len(), expected[number] + made(number), "{number}: {:?}", server.asked());
    }
    assert_eq!(pool.outcome("kept").await, 44.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn state_of_a_server_that_is_gone_or_was_never_seen_is_asked_for_elsewhere() {
    let pool = Pool::start(&[]).await;
    let maker = pool.made("/v1/responses", &json!({"model": "m", "input": "a first prompt"})).await;
    let others = ["s0", "s1", "s2", "s3"].into_iter().zip(pool.servers.iter().map(|server| server.addr));
    pool.endpoints.write(others.enumerate().filter(|(number, _)| *number != maker).map(|(_, entry)| entry));
    eventually("a pool of three", async || {
        (pool.pointsman.metric("pointsman_pool_endpoints", &[]).await == Some(3.0)).then_some(())
    })
    .await;
    assert_eq!(pool.client().get(&format!("/v1/responses/resp_{maker}")).await.status, 200);
    assert_eq!(pool.client().get("/v1/responses/resp_unknown").await.status, 200);
    assert_eq!((pool.outcome("gone").await, pool.outcome("unknown").await), (1.0, 1.0));
    assert_eq!(pool.servers[maker].asked().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_room_for_ids_no_request_is_bound() {
    let pool = Pool::start(&["--max-response-bindings=0"]).await;
    let maker = pool.made("/v1/responses", &json!({"model": "m", "input": "a first prompt"})).await;
    for _ in 0..40 {
        pool.client().get(&format!("/v1/responses/resp_{maker}")).await;
    }
    assert!(pool.servers.iter().all(|server| !server.asked().is_empty()));
    assert_eq!(pool.outcome("kept").await, 0.0);
}

/// A server whose answers say of each response to which conversation it belongs: one of its own, unless the request
/// names one.
async fn host(number: usize) -> Scripted {
    Scripted::start(move |line, body| {
        if !line.starts_with("POST /v1/responses ") {
            return Script::json("{}");
        }
        let conversation = if body.contains("as object") {
            json!({"id": format!("conv_a{number}")})
        } else {
            json!(format!("conv_b{number}"))
        };
        let response =
            json!({"id": format!("resp_{number}"), "status": "completed", "conversation": conversation});
        if body.contains(r#""stream":true"#) {
            let created = json!({"type": "response.created", "response": response});
            return Script::events(
                &[&format!(
                    "data: {created}

"
                )],
                ScriptEnd::Proper,
            );
        }
        Script::json(&response.to_string())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_stays_where_its_first_response_was_made_however_it_is_named() {
    let pool = Pool::of(host, &[]).await;
    let mut first = Vec::new();
    for stream in [false, true] {
        for (text, letter) in [("as object", 'a'), ("as text", 'b')] {
            let body = json!({"model": "m", "input": text, "stream": stream});
            let maker = pool.made("/v1/responses", &body).await;
            first.push((format!("conv_{letter}{maker}"), maker));
        }
    }
    let named =
        pool.made("/v1/responses", &json!({"model": "m", "input": "x", "conversation": "conv_req"})).await;
    first.push(("conv_req".to_owned(), named));
    for (conversation, maker) in &first {
        for reference in [json!(conversation), json!({"id": conversation})] {
            for _ in 0..3 {
                let next = json!({"model": "m", "input": "go on", "conversation": reference});
                assert_eq!(pool.made("/v1/responses", &next).await, *maker, "{next}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_counts_or_compacts_a_response_goes_to_the_server_that_made_it() {
    let pool = Pool::of(host, &[]).await;
    let maker = pool.made("/v1/responses", &json!({"model": "m", "input": "hello"})).await;
    let id = format!("resp_{maker}");
    for path in ["/v1/responses/input_tokens", "/v1/responses/compact", "/v1/responses/compact?x=1"] {
        for body in [
            json!({"model": "m", "previous_response_id": id}),
            json!({"previous_response_id": id, "input": "x"}),
        ] {
            for _ in 0..3 {
                assert_eq!(pool.made(path, &body).await, maker, "{path} {body}");
            }
        }
    }
    assert_eq!(pool.outcome("kept").await, 18.0);
    assert_eq!(
        pool.client().post("/v1/responses/compact", &json!({"model": "m", "input": "x"})).await.status,
        200
    );
    assert_eq!(pool.outcome("unknown").await, 0.0, "a path that names no id refers to nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_id_in_a_compressed_request_is_followed() {
    use std::io::Write as _;
    let pool = Pool::of(host, &[]).await;
    let maker = pool.made("/v1/responses", &json!({"model": "m", "input": "hello"})).await;
    for reference in [
        json!({"previous_response_id": format!("resp_{maker}")}),
        json!({"conversation": {"id": format!("conv_b{maker}")}}),
    ] {
        let mut body = reference;
        body["model"] = json!("m");
        body["input"] = json!("go on");
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(body.to_string().as_bytes()).unwrap();
        let body = encoder.finish().unwrap();
        let before = pool.servers[maker].asked().len();
        for _ in 0..6 {
            let header = [("content-encoding", "gzip")];
            assert_eq!(pool.client().post_with("/v1/responses", &header, body.clone()).await.status, 200);
        }
        assert_eq!(pool.servers[maker].asked().len(), before + 6);
    }
}
