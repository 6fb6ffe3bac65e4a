//! Many pods.

use serde_json::json;

use crate::support::cluster::{ApiServer, Namespace, picker};
use crate::support::{holds, within};

/// Pods of the test.
const PODS: usize = 1000;
/// Resident memory, at most. With that many endpoints the reference takes gigabytes.
const MEMORY: u64 = 80 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_pods_fit_into_eighty_megabytes() {
    let server = ApiServer::shared().await;
    let namespace = Namespace::with_chart_rights(server, &[]).await;
    namespace.pool(&[8000]).await;
    // Nothing listens at these addresses; what counts is what is known of them.
    let pointsman = picker(server, &namespace, &["--refresh-metrics-interval", "10s"]).await;
    let make = async |number: usize| {
        let name = format!("vllm-llama3-8b-instruct-7d9f8c6b5-{number:05}");
        let address = std::net::Ipv4Addr::new(127, 255, (number / 250) as u8, (number % 250 + 1) as u8);
        let labels =
            json!({"app": "vllm", "pod-template-hash": "7d9f8c6b5", "llm-d.ai/role": "both", "zone": "a"});
        namespace.pod_with(&name, address, labels, json!({})).await;
        namespace.set_ready(&name, true).await;
    };
    let all = async {
        for batch in 0..PODS / 20 {
            futures_util::future::join_all((0..20).map(|one| make(batch * 20 + one))).await;
        }
    };
    within("a thousand pods are made", all).await;
    holds("all are endpoints", async || {
        pointsman.metric("pointsman_pool_endpoints", &[]).await == Some(PODS as f64)
    })
    .await;
    let peak = pointsman.process.peak_memory();
    let (now, cpu) = (pointsman.process.memory(), pointsman.process.cpu());
    assert!(now <= peak && peak < MEMORY, "{} MB now, {} MB at most, {cpu:?} of CPU", now >> 20, peak >> 20);
}
