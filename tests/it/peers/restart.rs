//! A lone replica that is restarted with a folder for what it knows.

use super::replicas::open;
use super::{PREFIX, prompt};
use crate::support::{EndpointsFile, Fleet, Pointsman, Proxy, config};

/// Starts a replica with this folder.
async fn start(endpoints: &EndpointsFile, folder: &tempfile::TempDir) -> Pointsman {
    let flag = format!("--state-dir={}", folder.path().display());
    let flags = ["--secure-serving=false", "--drain-timeout=0s", "--linger-timeout=1s", &flag];
    Pointsman::start(&config(&endpoints.path(), PREFIX), &flags).await
}

/// Where these prompts go.
async fn places(replica: &Pointsman, count: usize) -> Vec<String> {
    let proxy = Proxy::connect(replica.grpc).await;
    let mut places = Vec::new();
    for number in 0..count {
        places.push(open(&proxy, &prompt(number)).await.1);
    }
    places
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_replica_knows_where_prompts_went_and_a_broken_file_is_passed_over() {
    let fleet = Fleet::start(8, &[]).await;
    let endpoints = EndpointsFile::with(fleet.list());
    let folder = tempfile::tempdir().unwrap();
    let mut first = start(&endpoints, &folder).await;
    let before = places(&first, 10).await;
    first.process.terminate().await;
    assert!(first.process.ended().await.success());
    let file = folder.path().join("pointsman-state");
    let kept = std::fs::read(&file).unwrap();

    let mut second = start(&endpoints, &folder).await;
    second
        .process
        .line("the file is read", |line| line.contains("state file taken over").then_some(()))
        .await;
    assert_eq!(places(&second, 10).await, before);
    assert!(!file.exists(), "it tells of one end");
    second.process.kill().await;

    let mut broken = kept;
    let middle = broken.len() / 2;
    broken[middle] ^= 1;
    std::fs::write(&file, &broken).unwrap();
    let mut third = start(&endpoints, &folder).await;
    third
        .process
        .line("the file is refused", |line| line.contains("state file cannot be used").then_some(()))
        .await;
    assert_eq!(places(&third, 3).await.len(), 3, "it serves all the same");
}
