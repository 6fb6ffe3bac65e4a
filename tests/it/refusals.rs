//! Refusals in the form of the API that was called, and when to come again.

use serde_json::json;

use crate::support::{
    BodyMode, EndpointsFile, Envoy, Fleet, Pointsman, SCORERS, Script, ScriptEnd, Scripted, Stack, chat,
    config, eventually, holds,
};

const ANTHROPIC: &str = "/v1/messages";

/// The program behind Envoy without any server.
async fn without_servers(flags: &[&str]) -> (Pointsman, Envoy, EndpointsFile) {
    let endpoints = EndpointsFile::with([]);
    let flags = [&["--secure-serving=false"], flags].concat();
    let pointsman = Pointsman::start(&config(&endpoints.path(), SCORERS), &flags).await;
    let envoy = Envoy::start(pointsman.grpc, false, BodyMode::FullDuplexStreamed).await;
    (pointsman, envoy, endpoints)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_anthropic_client_gets_errors_of_its_api_whatever_refuses_it() {
    let (_pointsman, envoy, _endpoints) = without_servers(&["--max-request-body", "1000"]).await;
    let message = json!({"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "x"}]});
    for (path, body, status, kind) in [
        (ANTHROPIC, "{bad".to_owned(), 400, "invalid_request_error"),
        ("/v1/messages/count_tokens", message.to_string(), 503, "overloaded_error"),
        (ANTHROPIC, "x".repeat(2000), 413, "request_too_large"),
        (ANTHROPIC, message.to_string(), 503, "overloaded_error"),
    ] {
        let reply = envoy.http1().post_with(path, &[], body).await;
        assert_eq!(reply.status, status, "{path}: {reply:?}");
        let error = reply.json();
        assert_eq!((&error["type"], &error["error"]["type"]), (&json!("error"), &json!(kind)), "{error}");
        assert!(error["error"]["message"].as_str().unwrap().starts_with("inference error: "), "{error}");
        assert_eq!(error.as_object().unwrap().len(), 2, "{error}");
    }
    let reply = envoy.http1().post_with("/v1/chat/completions", &[], "{bad").await;
    assert_eq!(reply.json()["error"]["code"], "invalid_body", "{reply:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_too_many_is_refused_in_the_form_of_its_api() {
    let server = Scripted::start(|_, _| Script::events(&["data: {}\n\n"], ScriptEnd::Never)).await;
    let endpoints = EndpointsFile::with([("one", server.addr)]);
    let flags = ["--secure-serving=false", "--max-concurrent-streams", "1"];
    let pointsman = Pointsman::start(&config(&endpoints.path(), SCORERS), &flags).await;
    let envoy = Envoy::start(pointsman.grpc, false, BodyMode::FullDuplexStreamed).await;
    let _held = envoy.http1().open("/v1/chat/completions", &chat("hello", 1, true)).await;
    let message = json!({"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "x"}]});
    let reply = envoy.http1().post(ANTHROPIC, &message).await;
    assert_eq!(
        (reply.status, &reply.json()["error"]["type"]),
        (503, &json!("overloaded_error")),
        "{reply:?}"
    );
    assert!((1..=60).contains(&reply.header("retry-after").parse::<u64>().unwrap()), "{reply:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grpc_client_gets_a_grpc_status_and_its_text() {
    let (_pointsman, envoy, _endpoints) = without_servers(&[]).await;
    let headers = [("content-type", "application/grpc")];
    let reply = eventually("an answer", async || {
        Some(envoy.http2().get_with("/inference.Inference/Infer", &headers).await)
    })
    .await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert!(reply.header("content-type").starts_with("application/grpc"), "{reply:?}");
    assert_eq!(reply.headers.get_all("grpc-status").iter().count(), 1, "{reply:?}");
    assert_eq!(reply.headers.get_all("grpc-message").iter().count(), 1, "{reply:?}");
    assert_eq!(reply.header("grpc-status"), "14");
    assert!(reply.header("grpc-message").starts_with("inference error: ServiceUnavailable - "), "{reply:?}");
    assert!(reply.body.is_empty(), "{reply:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grpc_web_client_gets_a_status_in_headers_and_in_a_frame_of_trailers() {
    let (_pointsman, envoy, _endpoints) = without_servers(&[]).await;
    for (asked, told) in [
        ("application/grpc-web+proto", "application/grpc-web+proto"),
        ("application/grpc-web-text", "application/grpc-web-text+proto"),
    ] {
        let headers = [("content-type", asked)];
        let reply = eventually("an answer", async || {
            Some(envoy.http1().get_with("/inference.Inference/Infer", &headers).await)
        })
        .await;
        assert_eq!((reply.status, reply.header("content-type")), (200, told), "{reply:?}");
        assert_eq!(reply.header("grpc-status"), "14", "{reply:?}");
        assert!(
            reply.header("grpc-message").starts_with("inference error: ServiceUnavailable - "),
            "{reply:?}"
        );
        let starts_with: &[u8] = if asked.contains("text") { b"gA" } else { b"\x80\0\0\0" };
        assert!(reply.body.starts_with(starts_with), "{reply:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_an_empty_pool_and_one_too_many_for_the_queue_are_told_when_to_come_again() {
    let (_pointsman, envoy, _endpoints) = without_servers(&[]).await;
    let reply = envoy.http1().post("/v1/chat/completions", &chat("hello", 1, false)).await;
    assert_eq!(reply.status, 503);
    // Nothing is known of a start, so the wait is the default of five seconds and at most half as long again.
    assert!((5..=8).contains(&reply.header("retry-after").parse::<u64>().unwrap()), "{reply:?}");

    let fleet = Fleet::start(1, &["--inter-token-ms", "1000"]).await;
    let endpoints = EndpointsFile::with(fleet.list());
    let text = format!(
        "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nfeatureGates: [flowControl]\nplugins:\n\
         - type: file-discovery\n  parameters: {{path: {}}}\n- type: queue-scorer\n\
         - type: concurrency-detector\n  parameters: {{maxConcurrency: 1}}\n\
         dataLayer: {{discovery: {{pluginRef: file-discovery}}}}\n\
         flowControl:\n  saturationDetector: {{pluginRef: concurrency-detector}}\n  \
         priorityBands: [{{priority: 0, maxRequests: 1}}]\n",
        endpoints.path().display()
    );
    let pointsman = Pointsman::start(&text, &[]).await;
    let envoy = Envoy::start(pointsman.grpc, true, BodyMode::FullDuplexStreamed).await;
    let stack = Stack { envoy, pointsman, fleet, endpoints };
    let client = stack.client();
    let running = client.open("/v1/chat/completions", &chat("first", 100, true)).await;
    let waiting =
        tokio::spawn(async move { client.attempt("/v1/chat/completions", &chat("second", 1, false)).await });
    holds("one waits", async || {
        stack.pointsman.metric("llm_d_epp_flow_control_queue_size", &[]).await == Some(1.0)
    })
    .await;
    let reply = client.post("/v1/chat/completions", &chat("third", 1, false)).await;
    assert_eq!(reply.status, 429, "{reply:?}");
    assert!((1..=60).contains(&reply.header("retry-after").parse::<u64>().unwrap()), "{reply:?}");
    waiting.abort();
    drop(running);
}
