//! Callers, against an API server that is played.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use serde_json::{Value, json};

use http_body_util::BodyExt as _;

use super::super::playing::{client, slow_client};
use super::*;
use crate::metrics::Metrics;

/// The answer of the API server: a status code, and whether the caller is allowed.
#[derive(Clone, Copy)]
struct Says(u16, bool);

struct Play {
    reviews: TokenReviews,
    says: Arc<Mutex<Says>>,
    asked: Arc<AtomicUsize>,
    start: Instant,
}

impl Play {
    fn new() -> Self {
        let (says, asked) = (Arc::new(Mutex::new(Says(201, true))), Arc::new(AtomicUsize::new(0)));
        let (answers, count) = (Arc::clone(&says), Arc::clone(&asked));
        let client = client(move |request| {
            count.fetch_add(1, Relaxed);
            let Says(code, allowed) = *answers.lock();
            let is_token = request.uri().path().ends_with("/tokenreviews");
            let body = if code != 201 {
                json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": "no"})
            } else if is_token {
                json!({"spec": {}, "status": {"authenticated": true, "user": {"username": "u"}}})
            } else {
                json!({"spec": {}, "status": {"allowed": allowed}})
            };
            (code, Value::to_string(&body))
        });
        let reviews = TokenReviews::new(client, Metrics::new().kubernetes());
        Self { reviews, says, asked, start: Instant::now() }
    }

    async fn ask(&self, token: Option<&str>, second: u64) -> &'static str {
        let caller = Caller {
            token: token.map(str::to_owned),
            path: "/metrics".to_owned(),
            verb: "get".to_owned(),
            address: None,
        };
        self.reviews.verdict(caller, self.start + Duration::from_secs(second)).await.name()
    }
}

#[tokio::test]
async fn a_decision_is_asked_for_once_a_minute() {
    let play = Play::new();
    assert_eq!((play.ask(None, 0).await, play.asked.load(Relaxed)), ("unauthenticated", 0));
    for second in [0, 30, 59] {
        assert_eq!((play.ask(Some("t"), second).await, play.asked.load(Relaxed)), ("allowed", 2));
    }
    *play.says.lock() = Says(201, false);
    assert_eq!((play.ask(Some("t"), 60).await, play.asked.load(Relaxed)), ("denied", 4));
}

#[tokio::test]
async fn who_was_allowed_is_trusted_while_the_server_is_away_but_not_for_ever() {
    let play = Play::new();
    assert_eq!(play.ask(Some("t"), 0).await, "allowed");
    *play.says.lock() = Says(503, false);
    assert_eq!(play.ask(Some("t"), 100).await, "allowed");
    assert_eq!(play.ask(Some("other"), 100).await, "unavailable");
    assert_eq!(play.ask(Some("t"), 180).await, "unavailable");
}

#[tokio::test]
async fn a_server_that_forbids_us_to_ask_is_no_reason_for_trust() {
    let play = Play::new();
    assert_eq!(play.ask(Some("t"), 0).await, "allowed");
    *play.says.lock() = Says(403, false);
    assert_eq!(play.ask(Some("t"), 100).await, "unavailable");
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_invented_tokens_neither_times_out_known_ones_nor_keeps_a_revoked_one_alive() {
    let revoked = Arc::new(AtomicBool::new(false));
    let is_revoked = Arc::clone(&revoked);
    // The API server hangs over invented tokens, and answers at once about the known one.
    let client = slow_client(move |request| {
        let is_revoked = is_revoked.load(Relaxed);
        Box::pin(async move {
            let is_token = request.uri().path().ends_with("/tokenreviews");
            let body = request.into_body().collect().await.unwrap().to_bytes();
            if String::from_utf8_lossy(&body).contains("invented") {
                tokio::time::sleep(Duration::from_hours(1)).await;
            }
            let body = if is_token {
                json!({"spec": {}, "status": {"authenticated": !is_revoked, "user": {"username": "u"}}})
            } else {
                json!({"spec": {}, "status": {"allowed": true}})
            };
            (201, Value::to_string(&body))
        })
    });
    let reviews = Arc::new(TokenReviews::new(client, Metrics::new().kubernetes()));
    let start = Instant::now();
    let ask = async |token: String, address: &str, second: u64| {
        let address = Some(address.parse().unwrap());
        let caller = Caller { token: Some(token), path: "/metrics".into(), verb: "get".into(), address };
        reviews.verdict(caller, start + Duration::from_secs(second)).await.name()
    };
    assert_eq!(ask("known".to_owned(), "10.0.0.1", 0).await, "allowed");
    let flood = futures_util::future::join_all(
        (0..50).map(|number| ask(format!("invented-{number}"), "10.0.0.9", 65)),
    );
    assert!(flood.await.iter().all(|verdict| *verdict == "unavailable"));
    assert_eq!(ask("known".to_owned(), "10.0.0.1", 70).await, "allowed", "asked again, and answered");
    revoked.store(true, Relaxed);
    let flood = futures_util::future::join_all(
        (50..100).map(|number| ask(format!("invented-{number}"), "10.0.0.9", 135)),
    );
    flood.await;
    assert_eq!(ask("known".to_owned(), "10.0.0.1", 136).await, "unauthenticated", "the cluster is asked");
}
