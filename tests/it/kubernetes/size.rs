//! Many pods.

use crate::support::cluster::{ApiServer, Namespace, picker};
use crate::support::{holds, within};

/// Pods of the test.
const PODS: usize = 1000;
/// Resident memory, at most.
const MEMORY: u64 = 80 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_pods_fit_into_eighty_megabytes() {
    let server = ApiServer::shared().await;
    let namespace = Namespace::with_chart_rights(server, &[]).await;
    namespace.pool(&[8000]).await;
    // Nothing listens at the addresses of the pods; what counts is what is known of them.
    let pointsman = picker(server, &namespace, &["--refresh-metrics-interval", "10s"]).await;
    within("a thousand pods are made", namespace.many_pods(PODS)).await;
    holds("all are endpoints", async || {
        pointsman.metric("pointsman_pool_endpoints", &[]).await == Some(PODS as f64)
    })
    .await;
    let peak = pointsman.process.peak_memory();
    let (now, cpu) = (pointsman.process.memory(), pointsman.process.cpu());
    assert!(now <= peak && peak < MEMORY, "{} MB now, {} MB at most, {cpu:?} of CPU", now >> 20, peak >> 20);
}
