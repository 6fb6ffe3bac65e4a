//! `inflight-load-producer`: what requests in flight count, as the page shows it.

use serde_json::json;

use crate::support::{BodyMode, EndpointsFile, Envoy, Fleet, Pointsman, config, holds};

#[tokio::test(flavor = "multi_thread")]
async fn tokens_in_flight_leave_out_what_a_server_holds_and_count_the_response_until_its_end() {
    let fleet = Fleet::start(1, &["--inter-token-ms", "50"]).await;
    let endpoints = EndpointsFile::with(fleet.list());
    let rows = "plugins:\n- type: inflight-load-producer\n  parameters: {addEstimatedOutputTokens: true}\n";
    let text = config(&endpoints.path(), &[("prefix-cache-scorer", 1)]).replacen("plugins:\n", rows, 1);
    let pointsman = Pointsman::start(&text, &[]).await;
    holds("the server was scraped", async || {
        pointsman.metric("llm_d_epp_ready_endpoints", &[]).await == Some(1.0)
    })
    .await;
    let envoy = Envoy::start(pointsman.grpc, true, BodyMode::FullDuplexStreamed).await;
    let body = json!({"model": "sim-model", "prompt": "word".repeat(1024), "stream": true, "max_tokens": 60});
    // The prompt and its response, then the response alone, for the server holds the prompt.
    for (least, most) in [(1080.0, 1300.0), (60.0, 300.0)] {
        let client = envoy.http1();
        let answer = client.open("/v1/completions", &body).await;
        for gauge in ["pointsman_endpoint_in_flight_tokens", "llm_d_epp_inflight_tokens"] {
            let name = format!("{gauge} is from {least} to {most}");
            holds(&name, async || {
                let counted = pointsman.metric(gauge, &[]).await.unwrap_or_default();
                (least..most).contains(&counted)
            })
            .await;
        }
        drop(answer);
        holds("nothing is in flight", async || {
            pointsman.metric("pointsman_endpoint_in_flight_tokens", &[]).await == Some(0.0)
        })
        .await;
    }
}
