//! Model servers that die, hang or talk nonsense while requests run.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::support::{BodyMode, Client, Fleet, PATIENCE, Stack, chat, eventually, holds};

/// What Envoy says of an answer whose head is cut.
const CUT: &str =
    "502 upstream connect error or disconnect/reset before headers. reset reason: protocol error";

/// What became of a load, by server for those answered with 200 and by status for the others.
type Outcome = BTreeMap<String, usize>;

/// Sends `count` requests, `at_once` at a time.
async fn load(client: Client, count: usize, at_once: usize) -> Outcome {
    let mut tasks = JoinSet::new();
    let mut outcome = Outcome::new();
    for number in 0..count {
        if tasks.len() == at_once {
            note(&mut outcome, tasks.join_next().await);
        }
        tasks.spawn(one(client, number));
    }
    while !tasks.is_empty() {
        note(&mut outcome, tasks.join_next().await);
    }
    outcome
}

/// How far the end of the servers is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// No server was killed yet.
    Alive,
    /// Servers are being killed, or the picker does not know of all of them.
    Dying,
    /// The picker says of all dead servers that they do not answer.
    Known,
}

/// A request of a load during which servers die.
#[derive(Debug)]
struct Sent {
    begun: Phase,
    ended: Phase,
    /// As [`one`] says.
    end: String,
}

/// Sends a request every five milliseconds, however the others fare, until `more` have begun in [`Phase::Known`].
async fn paced(client: Client, phase: watch::Receiver<Phase>, more: usize) -> Vec<Sent> {
    let mut tick = tokio::time::interval(Duration::from_millis(5));
    let mut tasks = JoinSet::new();
    let mut known = 0;
    for number in 0.. {
        tick.tick().await;
        let (begun, phase) = (*phase.borrow(), phase.clone());
        tasks.spawn(async move {
            let end = one(client, number).await;
            let ended = *phase.borrow();
            Sent { begun, ended, end }
        });
        known += usize::from(begun == Phase::Known);
        if known == more {
            break;
        }
    }
    tasks.join_all().await
}

/// The server that answered a request with 200, or what happened instead.
async fn one(client: Client, number: usize) -> String {
    let body = chat(&format!("request {number}"), 4, number.is_multiple_of(2));
    match client.attempt("/v1/chat/completions", &body).await {
        Ok(reply) if reply.status == 200 => reply.header("x-sim-server").to_owned(),
        Ok(reply) => format!("{} {}", reply.status, reply.text()),
        Err(error) => format!("broken: {error:#}"),
    }
}

fn note(outcome: &mut Outcome, result: Option<Result<String, tokio::task::JoinError>>) {
    *outcome.entry(result.unwrap().unwrap()).or_default() += 1;
}

async fn healthy_alone_serve(stack: &Stack, survivor: &str, count: usize) {
    let outcome = load(stack.client(), count, 8).await;
    assert_eq!(outcome, BTreeMap::from([(survivor.to_owned(), count)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_three_of_four_servers_are_killed_the_fourth_serves_everything() {
    let mut stack = Stack::of(Fleet::start_apart(4, &[]).await, BodyMode::FullDuplexStreamed, &[]).await;
    let (phase, seen) = watch::channel(Phase::Alive);
    let running = tokio::spawn(paced(stack.client(), seen, 200));
    holds("every server has answered requests", async || {
        let mut picked = 0;
        for server in &stack.fleet.servers {
            let served = server.client().get("/sim/requests?n=10").await.json();
            picked += usize::from(served.as_array().is_some_and(|served| served.len() == 10));
        }
        picked == 4
    })
    .await;
    phase.send_replace(Phase::Dying);
    for number in 1..4 {
        stack.fleet.kill(number).await;
    }
    // Metrics count as stale before a server counts as unreachable; it is the latter that keeps requests away.
    holds("the picker knows that three servers do not answer", async || {
        stack.pointsman.metric("pointsman_scrape_state", &[("state", "unreachable")]).await == Some(3.0)
    })
    .await;
    phase.send_replace(Phase::Known);
    let sent = tokio::time::timeout(PATIENCE, running).await.expect("a request is stuck").unwrap();
    for request in &sent {
        match (request.begun, request.ended) {
            (_, Phase::Alive) => assert!(request.end.starts_with("sim"), "no server was dead: {request:?}"),
            (Phase::Known, _) => assert_eq!(request.end, "sim0-0", "sent to a server known to be dead"),
            // A request that was on its way to a dead server is lost to any proxy. Envoy says so with 503, with 502 if
            // the head of the answer was cut, or with a broken body.
            _ => assert!(
                ["sim", "503", CUT, "broken"].iter().any(|end| request.end.starts_with(end)),
                "{request:?}"
            ),
        }
    }

    healthy_alone_serve(&stack, "sim0-0", 60).await;
    assert!(stack.pointsman.metric("llm_d_epp_datalayer_poll_errors_total", &[]).await.unwrap_or(0.0) > 0.0);
    stack.assert_idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_hang_get_no_more_requests() {
    let stack = Stack::start(4).await;
    let hang = json!({"hang": true, "hang_metrics": true});
    for server in &stack.fleet.servers[1..] {
        server.fault(&hang).await;
    }
    // Metrics count as stale before a server counts as unreachable; it is the latter that keeps requests away.
    holds("the picker knows that three servers do not answer", async || {
        stack.pointsman.metric("pointsman_scrape_state", &[("state", "unreachable")]).await == Some(3.0)
    })
    .await;
    healthy_alone_serve(&stack, "sim-0", 60).await;
    assert!(stack.pointsman.metric("llm_d_epp_datalayer_poll_errors_total", &[]).await.unwrap_or(0.0) > 0.0);

    for server in &stack.fleet.servers {
        server.fault(&json!({"hang": false, "hang_metrics": false})).await;
    }
    holds("all four are ready again", async || {
        stack.pointsman.metric("llm_d_epp_ready_endpoints", &[]).await == Some(4.0)
    })
    .await;
    stack.assert_idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_on_a_server_that_hangs_end_when_their_clients_give_up() {
    let stack = Stack::start(1).await;
    let open = stack.client().open("/v1/chat/completions", &chat("stuck", 1000, true)).await;
    stack.fleet.servers[0].fault(&json!({"hang": true})).await;
    eventually("the request is counted", async || {
        stack.pointsman.metric("llm_d_epp_request_running", &[]).await.filter(|running| *running == 1.0)
    })
    .await;
    drop(open);
    stack.assert_idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_with_garbage_metrics_lose_no_request() {
    let stack = Stack::start(4).await;
    for server in &stack.fleet.servers[1..] {
        server.fault(&json!({"garbage_metrics": true})).await;
    }
    let outcome = load(stack.client(), 120, 8).await;
    let served: usize =
        outcome.iter().filter(|(end, _)| end.starts_with("sim-")).map(|(_, count)| count).sum();
    assert_eq!(served, 120, "{outcome:?}");
    holds("the reason shows in a metric", async || {
        let page = stack.pointsman.page().await;
        page.lines().any(|line| {
            line.starts_with("llm_d_epp_datalayer_")
                && line.contains("_errors_total")
                && !line.ends_with(" 0")
        })
    })
    .await;
    stack.assert_idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_a_server_reach_the_client_as_they_are() {
    let stack = Stack::start(1).await;
    stack.fleet.servers[0].fault(&json!({"error_rate": 1.0, "error_status": 507})).await;
    let reply = stack.client().post("/v1/chat/completions", &chat("no room", 1, false)).await;
    assert_eq!(reply.status, 507, "{reply:?}");
    stack.assert_idle().await;
    let errors =
        stack.pointsman.metric("llm_d_epp_request_error_total", &[("error_code", "ModelServerError")]).await;
    assert_eq!(errors, Some(1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_servers_reset_leave_nothing_behind() {
    let stack = Stack::start(2).await;
    for server in &stack.fleet.servers {
        server.fault(&json!({"reset": true})).await;
    }
    let outcome = load(stack.client(), 20, 4).await;
    assert!(
        outcome.keys().all(|end| ["503", "502", "broken"].iter().any(|known| end.starts_with(known))),
        "{outcome:?}"
    );
    stack.assert_idle().await;
    for server in &stack.fleet.servers {
        server.fault(&json!({"reset": false})).await;
    }
    let reply = stack.client().post("/v1/chat/completions", &chat("again", 1, false)).await;
    assert_eq!(reply.status, 200, "{reply:?}");
}
