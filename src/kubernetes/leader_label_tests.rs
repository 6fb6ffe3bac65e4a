//! The label of the leader's pod, against pods that are played, in virtual time.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{Method, Request};
use kube::client::Body;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::super::playing::slow_client;
use super::*;
use crate::metrics::Metrics;

const KEY: &str = "pointsman/leader";

/// The API server: pods by name, each with its labels; what was asked of it; and what it answers to writes in place of
/// an answer.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    pods: BTreeMap<String, BTreeMap<String, String>>,
    asked: Vec<String>,
    refuse: Option<u16>,
    ignore: bool,
}

impl Server {
    fn with(pods: &[(&str, bool)]) -> Self {
        let server = Self::default();
        for (name, labelled) in pods {
            let labels = labelled.then(|| (KEY.to_owned(), "pool-epp".to_owned()));
            server.0.lock().pods.insert((*name).to_owned(), labels.into_iter().collect());
        }
        server
    }

    fn client(&self) -> Client {
        let server = self.clone();
        slow_client(move |request| {
            let server = server.clone();
            Box::pin(async move { server.answer(request).await })
        })
    }

    async fn answer(&self, request: Request<Body>) -> (u16, String) {
        let (parts, body) = request.into_parts();
        let sent: Value =
            serde_json::from_slice(&body.collect_bytes().await.unwrap_or_default()).unwrap_or_default();
        let mut state = self.0.lock();
        state.asked.push(format!("{} {}", parts.method, parts.uri));
        let object = |name: &str, labels: &BTreeMap<String, String>| json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}});
        if parts.method == Method::GET {
            let marked = state.pods.iter().filter(|(_, labels)| labels.contains_key(KEY));
            let items: Vec<Value> = marked.map(|(name, labels)| object(name, labels)).collect();
            return (
                200,
                json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": items}).to_string(),
            );
        }
        let fault = |code: u16| {
            (
                code,
                json!({"kind": "Status", "status": "Failure", "code": code, "reason": "Fault"}).to_string(),
            )
        };
        if let Some(code) = state.refuse {
            return fault(code);
        }
        let name = parts.uri.path().split('/').nth(6).unwrap_or_default().to_owned();
        let ignore = state.ignore;
        let Some(labels) = state.pods.get_mut(&name) else { return fault(404) };
        if !ignore {
            match sent["metadata"]["labels"][KEY].as_str() {
                Some(value) => labels.insert(KEY.to_owned(), value.to_owned()),
                None => labels.remove(KEY),
            };
        }
        (200, object(&name, labels).to_string())
    }

    fn marked(&self) -> Vec<String> {
        let state = self.0.lock();
        state
            .pods
            .iter()
            .filter(|(_, labels)| labels.contains_key(KEY))
            .map(|(name, _)| name.clone())
            .collect()
    }
}

/// A replica that keeps its label; whether it leads is said by the sender.
fn replica(server: &Server, pod: &str) -> (watch::Sender<bool>, CancellationToken) {
    let settings = LabelSettings {
        namespace: "ns".to_owned(),
        pod: pod.to_owned(),
        key: KEY.to_owned(),
        value: "pool-epp".to_owned(),
    };
    let (leads, stop) = (watch::Sender::new(false), CancellationToken::new());
    let label = LeaderLabel::new(settings, Metrics::new().kubernetes());
    tokio::spawn(label.run(server.client(), Leadership::shown_by(&leads), stop.clone()));
    (leads, stop)
}

async fn seconds(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn who_leads_marks_its_pod_and_takes_the_mark_from_the_former_leader() {
    let server = Server::with(&[("a", true), ("b", false), ("c", true)]);
    let (leads, _stop) = replica(&server, "b");
    seconds(60).await;
    assert_eq!(server.marked(), ["a", "c"], "who stands by touches nothing");
    assert!(server.0.lock().asked.is_empty());
    leads.send_replace(true);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(server.marked(), ["b"]);
    let first = server.0.lock().asked.first().cloned().unwrap_or_default();
    assert!(first.starts_with("PATCH") && first.contains("/pods/b/status"), "its own comes first: {first}");
}

#[tokio::test(start_paused = true)]
async fn a_mark_that_comes_late_or_gets_lost_is_mended_and_a_right_one_is_not_written_again() {
    let server = Server::with(&[("a", false), ("b", false)]);
    let (leads, _stop) = replica(&server, "b");
    leads.send_replace(true);
    seconds(60).await;
    let writes = server.0.lock().asked.iter().filter(|line| line.starts_with("PATCH")).count();
    assert_eq!(writes, 1);
    let swapped = BTreeMap::from([(KEY.to_owned(), "pool-epp".to_owned())]);
    server.0.lock().pods = BTreeMap::from([("a".to_owned(), swapped), ("b".to_owned(), BTreeMap::new())]);
    seconds(6).await;
    assert_eq!(server.marked(), ["b"]);
}

#[tokio::test(start_paused = true)]
async fn who_steps_down_or_ends_leaves_its_mark_to_the_next_leader() {
    let server = Server::with(&[("a", false), ("b", false)]);
    let (first, stop) = replica(&server, "a");
    let (second, _stop) = replica(&server, "b");
    first.send_replace(true);
    seconds(1).await;
    first.send_replace(false);
    seconds(60).await;
    assert_eq!(server.marked(), ["a"], "until another leads there is nobody better");
    second.send_replace(true);
    seconds(1).await;
    assert_eq!(server.marked(), ["b"]);
    second.send_replace(false);
    first.send_replace(true);
    seconds(1).await;
    assert_eq!(server.marked(), ["a"], "it writes anew when it leads again");
    stop.cancel();
    seconds(60).await;
    assert_eq!(server.marked(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_fails_or_changes_nothing_is_tried_again() {
    let server = Server::with(&[("a", true), ("b", false)]);
    let (leads, _stop) = replica(&server, "b");
    server.0.lock().refuse = Some(403);
    leads.send_replace(true);
    seconds(5).await;
    assert_eq!(server.marked(), ["a"]);
    let asked = server.0.lock().asked.len();
    assert!(asked <= 40, "{asked} requests in 5 s");
    server.0.lock().refuse = None;
    server.0.lock().ignore = true;
    seconds(5).await;
    assert_eq!(server.marked(), ["a"]);
    server.0.lock().ignore = false;
    seconds(1).await;
    assert_eq!(server.marked(), ["b"]);
}

#[tokio::test(start_paused = true)]
async fn one_pod_that_cannot_be_written_does_not_keep_the_mark_on_the_others() {
    let server = Server::with(&[("a", true), ("b", false), ("z", true)]);
    let (leads, _stop) = replica(&server, "gone");
    leads.send_replace(true);
    seconds(1).await;
    assert!(server.marked().is_empty(), "{:?}: our own pod is not there, the others are", server.marked());
}
