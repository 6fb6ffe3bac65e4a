//! Pauses, and watches against an API server that is played in virtual time.

use std::sync::Arc;

use kube::Client;
use parking_lot::Mutex;

use super::super::resources::{Pod, PodFacts};
use super::*;
use crate::kubernetes::playing;

fn pauses(failures: &[Failure]) -> Vec<u128> {
    let mut patience = Patience::default();
    failures.iter().map(|failure| patience.pause(*failure, false, 0.0).as_millis()).collect()
}

#[test]
fn pauses_double_up_to_half_a_second_during_an_outage() {
    assert_eq!(pauses(&[Failure::Unavailable; 7]), [100, 200, 400, 500, 500, 500, 500]);
    assert_eq!(pauses(&[Failure::Unavailable; 100])[99], 500);
}

#[test]
fn pauses_double_up_to_ten_seconds_while_the_server_says_no() {
    assert_eq!(pauses(&[Failure::Absent; 9])[6..], [6400, 10_000, 10_000]);
}

#[test]
fn a_server_that_refuses_on_its_way_back_is_asked_again_soon() {
    let mut failures = vec![Failure::Unavailable; 60];
    failures.push(Failure::Forbidden);
    assert_eq!(pauses(&failures)[60], 100);
}

/// The calls to the server, in order: `list` or `watch`.
type Asked = Arc<Mutex<Vec<&'static str>>>;

/// A client whose requests `answer` answers, by what is asked and how often it was before.
fn client(
    asked: &Asked,
    answer: impl Fn(&str, usize) -> (u16, String) + Clone + Send + Sync + 'static,
) -> Client {
    let asked = Arc::clone(asked);
    playing::client(move |request| {
        let is_watch = request.uri().query().unwrap_or_default().contains("watch=true");
        let kind = if is_watch { "watch" } else { "list" };
        let number = asked.lock().iter().filter(|one| **one == kind).count();
        asked.lock().push(kind);
        answer(kind, number)
    })
}

fn list(names: &[&str]) -> String {
    let items: Vec<_> = names
        .iter()
        .map(|name| serde_json::json!({"metadata": {"name": name, "resourceVersion": "5"}}))
        .collect();
    serde_json::json!({"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "7"}, "items": items}).to_string()
}

fn refusal(code: u16) -> String {
    serde_json::json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": "Test", "message": "no"})
        .to_string()
}

/// Runs a watch of pods for this long in virtual time; the steps that it told.
async fn watched(client: Client, time: Duration) -> Vec<Delta<PodFacts>> {
    let (to, mut steps) = mpsc::channel(1024);
    let metrics = crate::metrics::Metrics::new().kubernetes().watch("pods", "");
    let watch =
        Watched { resource: "pods".to_owned(), group: String::new(), without: "there is nothing", metrics };
    let api: Api<Pod> = Api::namespaced_with(client, "ns", &Pod::AT);
    let sink = Sink { to, step: |delta| delta, heard: None };
    let following = watch.follow(api, watcher::Config::default(), |pod: Pod| Some(PodFacts::from(pod)), sink);
    let _ = tokio::time::timeout(time, following).await;
    std::iter::from_fn(|| steps.try_recv().ok()).collect()
}

fn names(delta: &Delta<PodFacts>) -> Vec<String> {
    match delta {
        Delta::Listed(pods) => pods.iter().map(|pod| pod.name.clone()).collect(),
        Delta::Applied(pod) => vec![format!("+{}", pod.name)],
        Delta::Removed(name) => vec![format!("-{name}")],
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_lists_but_does_not_let_watch_is_asked_ever_more_seldom() {
    let asked = Asked::default();
    let client = client(&asked, |kind, _| match kind {
        "list" => (200, list(&["a"])),
        _ => (403, refusal(403)),
    });
    let steps = watched(client, Duration::from_mins(10)).await;
    let lists = asked.lock().iter().filter(|kind| **kind == "list").count();
    assert!((50..90).contains(&lists), "{lists} lists in ten minutes");
    assert!(steps.iter().all(|step| names(step) == ["a"]), "what can be known is known");
}

#[test]
fn a_pause_is_never_longer_than_its_bound_and_replicas_differ() {
    let mut patience = Patience { last: Some(Failure::Absent), attempts: 20 };
    let mut pause = |spread| patience.pause(Failure::Absent, false, spread).as_millis();
    assert_eq!((pause(0.0), pause(1.0)), (10_000, 8_000));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_too_busy_for_watches_is_not_made_to_list_instead() {
    let asked = Asked::default();
    let client = client(&asked, |kind, _| match kind {
        "list" => (200, list(&["a"])),
        _ => (429, refusal(429)),
    });
    watched(client, Duration::from_mins(10)).await;
    let lists = asked.lock().iter().filter(|kind| **kind == "list").count();
    assert!((50..90).contains(&lists), "{lists} lists in ten minutes");
}

#[tokio::test(start_paused = true)]
async fn a_version_that_is_too_old_leads_to_a_list_at_once_and_nothing_is_missed() {
    let asked = Asked::default();
    let gone = format!(
        "{}\n",
        serde_json::json!({"type": "ERROR", "object": serde_json::from_str::<serde_json::Value>(&refusal(410)).unwrap()})
    );
    let added = format!(
        "{}\n",
        serde_json::json!({"type": "ADDED", "object": {"metadata": {"name": "b", "resourceVersion": "8"}}})
    );
    let client = client(&asked, move |kind, number| match (kind, number) {
        ("list", 0) => (200, list(&["a"])),
        ("list", _) => (200, list(&["b", "c"])),
        ("watch", 0) => (200, format!("{added}{gone}")),
        _ => (500, refusal(500)),
    });
    let steps = watched(client, Duration::from_millis(200)).await;
    let told: Vec<_> = steps.iter().map(names).collect();
    assert_eq!(
        told[..3],
        [vec!["a".to_owned()], vec!["+b".to_owned()], vec!["b".to_owned(), "c".to_owned()]]
    );
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_an_hour_is_not_an_hour_of_lists() {
    let asked = Asked::default();
    let client = client(&asked, |_, _| (503, refusal(503)));
    let steps = watched(client, Duration::from_hours(1)).await;
    let count = asked.lock().len();
    assert!(steps.is_empty() && (6_000..9_100).contains(&count), "{count} attempts, one each half second");
}
