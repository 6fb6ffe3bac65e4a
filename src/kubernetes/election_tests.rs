//! Replicas against a Lease that is played, in virtual time.

use std::sync::Arc;

use http::{Method, Request};
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::super::playing::slow_client;
use super::*;
use crate::metrics::Metrics;

/// The API server: one Lease, and how long it takes to answer.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    lease: Option<Value>,
    version: u64,
    delay: Duration,
    /// Writes that were refused, for another came first.
    conflicts: u32,
}

impl Server {
    fn client(&self) -> Client {
        let server = self.clone();
        slow_client(move |request| {
            let server = server.clone();
            Box::pin(async move {
                let delay = server.0.lock().delay;
                tokio::time::sleep(delay).await;
                server.answer(request).await
            })
        })
    }

    async fn answer(&self, request: Request<Body>) -> (u16, String) {
        let (parts, body) = request.into_parts();
        let sent: Value =
            serde_json::from_slice(&body.collect_bytes().await.unwrap_or_default()).unwrap_or_default();
        let mut state = self.0.lock();
        let present = state.lease.as_ref().map(|lease| lease["metadata"]["resourceVersion"].clone());
        let code = match (parts.method, present) {
            // Watches are not played: looking has to do.
            (Method::GET, _) if !parts.uri.path().ends_with("/lease") => 403,
            (Method::GET | Method::PUT, None) => 404,
            (Method::POST, Some(_)) => {
                state.conflicts += 1;
                409
            }
            (Method::PUT, Some(version)) if version != sent["metadata"]["resourceVersion"] => {
                state.conflicts += 1;
                409
            }
            (Method::POST | Method::PUT, _) => {
                state.put(sent);
                200
            }
            _ => 200,
        };
        if code == 200
            && let Some(lease) = &state.lease
        {
            return (200, lease.to_string());
        }
        let reason = if code == 404 { "NotFound" } else { "Conflict" };
        let status = json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason});
        (code, status.to_string())
    }
}

impl State {
    fn put(&mut self, mut lease: Value) {
        self.version += 1;
        lease["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.lease = Some(lease);
    }

    fn holder(&self) -> String {
        let holder = self.lease.as_ref().and_then(|lease| lease["spec"]["holderIdentity"].as_str());
        holder.unwrap_or_default().to_owned()
    }
}

/// A replica that takes part.
fn replica(server: &Server, name: &str) -> (Leadership, CancellationToken, tokio::task::JoinHandle<()>) {
    let settings = ElectionSettings {
        namespace: "ns".to_owned(),
        name: "lease".to_owned(),
        identity: name.to_owned(),
        duration: Duration::from_secs(15),
        health: None,
    };
    let election = Election::new(settings, Metrics::new().kubernetes());
    let (leadership, stop) = (election.leadership(), CancellationToken::new());
    let task = tokio::spawn(election.run(server.client(), stop.clone()));
    (leadership, stop, task)
}

/// Waits, at most an hour of virtual time.
async fn until(leadership: &mut Leadership, leads: bool) {
    tokio::time::timeout(Duration::from_hours(1), leadership.until(leads)).await.unwrap();
}

async fn seconds(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_server_costs_nobody_the_lead() {
    let server = Server::default();
    server.0.lock().delay = Duration::from_millis(2500);
    let (mut leadership, ..) = replica(&server, "a");
    until(&mut leadership, true).await;
    for _ in 0..120 {
        seconds(5).await;
        assert!(leadership.leads());
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_gets_no_answer_steps_down_when_its_right_ends_and_leads_again() {
    let server = Server::default();
    let (mut leadership, ..) = replica(&server, "a");
    until(&mut leadership, true).await;
    seconds(60).await;
    server.0.lock().delay = Duration::from_hours(1);
    let silent = tokio::time::Instant::now();
    until(&mut leadership, false).await;
    // Its last renewal was up to 2.4 s before.
    let took = silent.elapsed().as_secs_f64();
    assert!((7.5..=10.0).contains(&took), "stepped down after {took} s");
    server.0.lock().delay = Duration::ZERO;
    until(&mut leadership, true).await;
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_another_took_is_noticed_at_the_next_renewal() {
    let server = Server::default();
    let (mut leadership, ..) = replica(&server, "a");
    until(&mut leadership, true).await;
    let mut other = server.0.lock().lease.clone().unwrap_or_default();
    other["spec"]["holderIdentity"] = "b".into();
    server.0.lock().put(other);
    let taken = tokio::time::Instant::now();
    until(&mut leadership, false).await;
    assert!(taken.elapsed() <= Duration::from_millis(2400), "{:?}", taken.elapsed());
    // It was never renewed: after its whole duration it is taken back.
    until(&mut leadership, true).await;
    assert!(taken.elapsed() >= Duration::from_secs(15));
}

#[tokio::test(start_paused = true)]
async fn of_two_replicas_one_leads_and_the_other_follows_when_it_ends() {
    let server = Server::default();
    let (mut first, stop, ended) = replica(&server, "a");
    until(&mut first, true).await;
    let (mut second, ..) = replica(&server, "b");
    seconds(300).await;
    assert!(first.leads() && !second.leads());
    stop.cancel();
    ended.await.unwrap();
    assert!(!first.leads());
    assert_ne!(server.0.lock().holder(), "a", "it was given back");
    until(&mut second, true).await;
    assert_eq!(server.0.lock().holder(), "b");
}

#[tokio::test(start_paused = true)]
async fn replicas_that_read_the_same_lease_at_once_do_not_all_lead() {
    let server = Server::default();
    // Every call takes its time, so all have read before one writes.
    server.0.lock().delay = Duration::from_millis(300);
    let dead = json!({
        "metadata": {"name": "lease", "namespace": "ns"},
        "spec": {"holderIdentity": "dead", "leaseDurationSeconds": 15, "leaseTransitions": 4},
    });
    for free in [None, Some(dead)] {
        if let Some(lease) = free {
            server.0.lock().put(lease);
        }
        let before = server.0.lock().conflicts;
        let replicas = ["a", "b", "c"].map(|name| replica(&server, name));
        for _ in 0..600 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert!(replicas.iter().filter(|(leadership, ..)| leadership.leads()).count() <= 1);
        }
        assert_eq!(replicas.iter().filter(|(leadership, ..)| leadership.leads()).count(), 1);
        assert!(server.0.lock().conflicts > before, "nobody got in another's way");
        for (_, _, task) in &replicas {
            task.abort();
        }
    }
}
