//! Requests whose tokens are made by somebody quick, slow, or gone.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::tests::{COMPLETION, ask, parts};
use super::*;
use crate::metrics::Format;
use crate::request::{Headers, Parsers, Tokenized, TokenizedPrompt};
use crate::scheduling::{
    PrepareCall, PrepareError, PrepareLimits, Prepared, Preparer, Preparing, ProfilePlugin,
};
use crate::telemetry::Span;

const MS: Duration = Duration::from_millis(1);
const PATIENCE: Duration = Duration::from_millis(50);
const NEVER: u64 = u64::MAX;
const FAILS: u64 = u64::MAX - 1;

/// Gives 100 tokens after as many milliseconds as it is set to.
struct Tokens {
    after: AtomicU64,
    working: Arc<AtomicUsize>,
    asked: AtomicUsize,
    timeout: Duration,
    concurrent: usize,
}

/// Work in progress, counted until it is dropped.
struct Work(Arc<AtomicUsize>);

impl Drop for Work {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Tokens {
    fn after(millis: u64) -> Self {
        Self {
            after: AtomicU64::new(millis),
            working: Arc::default(),
            asked: AtomicUsize::new(0),
            timeout: Duration::from_secs(5),
            concurrent: 100,
        }
    }
}

impl Preparer for Tokens {
    fn limits(&self) -> PrepareLimits {
        PrepareLimits { timeout: self.timeout, patience: PATIENCE, concurrent: self.concurrent }
    }

    fn prepare(&self, call: &PrepareCall<'_>) -> Option<Preparing> {
        assert_eq!((call.path, call.target_model), ("/v1/completions", "m"));
        self.asked.fetch_add(1, Relaxed);
        Some(self.probe())
    }

    fn probe(&self) -> Preparing {
        self.working.fetch_add(1, Relaxed);
        let (work, after) = (Work(Arc::clone(&self.working)), self.after.load(Relaxed));
        Box::pin(async move {
            match after {
                0 => {}
                FAILS => return Err(PrepareError::Failed("gone".to_owned())),
                NEVER => std::future::pending().await,
                millis => tokio::time::sleep(Duration::from_millis(millis)).await,
            }
            drop(work);
            let prompt = TokenizedPrompt { ids: vec![7; 100], media: Vec::new() };
            Ok(Prepared { tokens: Some(Tokenized { prompts: vec![prompt] }), ..Prepared::default() })
        })
    }
}

/// Admits everyone after a while; notes the tokens that it was told of.
#[derive(Default)]
struct Queue {
    after: Duration,
    told: parking_lot::Mutex<Vec<Option<u64>>>,
}

impl Admission for Queue {
    fn admit<'a>(
        &'a self,
        call: AdmissionCall<'a>,
    ) -> Pin<Box<dyn Future<Output = Result<AdmissionPlace, Refusal>> + Send + 'a>> {
        self.told.lock().push(call.tokens);
        Box::pin(async {
            if !self.after.is_zero() {
                tokio::time::sleep(self.after).await;
            }
            Ok(None)
        })
    }
}

struct Setup {
    director: Director,
    tokens: Arc<Tokens>,
    queue: Arc<Queue>,
}

impl Setup {
    fn new(tokens: Tokens, wait: Duration) -> Self {
        let (tokens, queue) = (Arc::new(tokens), Arc::new(Queue { after: wait, ..Queue::default() }));
        let preparer: Arc<dyn Preparer> = Arc::clone(&tokens) as _;
        let admission: Arc<dyn Admission> = Arc::clone(&queue) as _;
        let director = Director::new(DirectorParts {
            preparers: vec![ProfilePlugin::new("token-producer", "token-producer", preparer)],
            admission: Some(admission),
            ..parts(&[8000], &Parsers::default())
        });
        Self { director, tokens, queue }
    }

    /// Sends a request. How long it took, and its tokens in the load of the endpoint: 100 exact ones, or 7 estimated.
    async fn send(&self) -> (Duration, u64) {
        let began = tokio::time::Instant::now();
        let ask = ask(COMPLETION, Headers::new());
        let routed = self.director.handle(ask, Instant::now(), &mut Span::off()).await.unwrap();
        let tokens = self.director.pool().snapshot().endpoints()[0].load().in_flight_tokens();
        drop(routed);
        (began.elapsed(), tokens)
    }

    fn counted(&self, outcome: &str) -> u64 {
        let page = self.director.parts.metrics.encode(Format::Text);
        let labels = format!(r#"outcome="{outcome}""#);
        let line = page
            .lines()
            .find(|line| line.starts_with("pointsman_preparations_total") && line.contains(&labels));
        line.and_then(|line| line.rsplit(' ').next()).map_or(0, |count| count.parse().unwrap())
    }
}

#[tokio::test(start_paused = true)]
async fn tokens_made_in_time_reach_the_cycle_and_admission() {
    let quick = Setup::new(Tokens::after(0), Duration::ZERO);
    assert_eq!(quick.send().await, (Duration::ZERO, 100));
    assert_eq!(*quick.queue.told.lock(), [Some(100)]);
    let waited_for = Setup::new(Tokens::after(20), Duration::ZERO);
    let (took, tokens) = waited_for.send().await;
    assert!(took >= 20 * MS && took < 25 * MS, "{took:?}");
    assert_eq!((tokens, waited_for.counted("done")), (100, 1));
    assert_eq!(*waited_for.queue.told.lock(), [None]);
}

#[tokio::test(start_paused = true)]
async fn requests_lose_50_ms_in_sum_to_whoever_hangs_and_then_nothing() {
    let setup = Setup::new(Tokens::after(NEVER), Duration::ZERO);
    let mut lost = Duration::ZERO;
    for _ in 0..200 {
        let (took, tokens) = setup.send().await;
        assert_eq!(tokens, 7);
        lost += took;
        tokio::time::advance(20 * MS).await;
    }
    assert!(lost <= PATIENCE + 2 * MS, "{lost:?}");
    // Two probes in four seconds, which no request waited for.
    assert_eq!((setup.counted("late"), setup.counted("skipped")), (1, 199));
    assert_eq!(setup.tokens.asked.load(Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn of_requests_that_come_one_after_another_none_loses_more_than_is_left_when_it_comes() {
    let setup = Arc::new(Setup::new(Tokens::after(NEVER), Duration::ZERO));
    let mut sent = Vec::new();
    for _ in 0..10 {
        let setup = Arc::clone(&setup);
        sent.push(tokio::spawn(async move { setup.send().await.0 }));
        tokio::time::sleep(10 * MS).await;
    }
    for (place, request) in sent.into_iter().enumerate() {
        let most = PATIENCE.saturating_sub(10 * MS * place as u32) + 3 * MS;
        let took = request.await.unwrap();
        assert!(took <= most, "request {place} took {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_in_flow_control_anyway_waits_no_longer_for_its_tokens() {
    let setup = Setup::new(Tokens::after(300), 400 * MS);
    for _ in 0..3 {
        let (took, tokens) = setup.send().await;
        assert!(took < 405 * MS, "{took:?}");
        assert_eq!(tokens, 100);
    }
}

#[tokio::test(start_paused = true)]
async fn who_answers_slowly_is_asked_for_held_requests_and_waited_for_by_nobody() {
    let mut setup = Setup::new(Tokens::after(300), Duration::ZERO);
    assert_eq!(setup.send().await.1, 7);
    // A second later a probe tells slow from gone.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let (took, _) = setup.send().await;
    assert!(took < 2 * MS, "{took:?}");
    tokio::time::sleep(400 * MS).await;
    let asked = setup.tokens.asked.load(Relaxed);
    assert!(setup.send().await.0 < 2 * MS);
    assert_eq!(setup.tokens.asked.load(Relaxed), asked);
    // The same with a queue.
    setup.queue = Arc::new(Queue { after: 400 * MS, ..Queue::default() });
    setup.director.parts.admission = Some(Arc::clone(&setup.queue) as _);
    let (took, tokens) = setup.send().await;
    assert!(took < 405 * MS, "{took:?}");
    assert_eq!((tokens, setup.tokens.asked.load(Relaxed)), (100, asked + 1));
}

#[tokio::test(start_paused = true)]
async fn a_preparer_that_works_again_is_waited_for_again() {
    let setup = Setup::new(Tokens::after(NEVER), Duration::ZERO);
    setup.send().await;
    setup.tokens.after.store(5, Relaxed);
    assert_eq!(setup.send().await.1, 7);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    // The probe runs, and this one does not wait for it.
    assert_eq!(setup.send().await.1, 7);
    tokio::time::sleep(10 * MS).await;
    assert_eq!(setup.send().await.1, 100);
}

#[tokio::test(start_paused = true)]
async fn whoever_refuses_at_once_is_not_asked_for_every_request() {
    let setup = Setup::new(Tokens::after(FAILS), Duration::ZERO);
    for _ in 0..50 {
        assert_eq!(setup.send().await.1, 7);
    }
    assert_eq!((setup.counted("failed"), setup.counted("skipped")), (5, 45));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_takes_the_work_with_it() {
    for wait in [Duration::ZERO, Duration::from_mins(1)] {
        let setup = Setup::new(Tokens::after(NEVER), wait);
        assert!(tokio::time::timeout(30 * MS, setup.send()).await.is_err());
        assert_eq!((setup.tokens.working.load(Relaxed), setup.counted("cancelled")), (0, 1), "{wait:?}");
    }
    // What it waited counts, or clients with less patience than this would wait for ever.
    let setup = Setup::new(Tokens::after(NEVER), Duration::ZERO);
    for _ in 0..2 {
        assert!(tokio::time::timeout(30 * MS, setup.send()).await.is_ok() || setup.counted("late") == 0);
    }
    assert!(setup.send().await.0 < 2 * MS);
}

#[tokio::test(start_paused = true)]
async fn no_more_work_runs_at_once_than_is_allowed_and_none_longer() {
    let tokens = Tokens { concurrent: 3, timeout: Duration::from_secs(2), ..Tokens::after(NEVER) };
    let setup = Arc::new(Setup::new(tokens, Duration::from_mins(1)));
    let send = |setup: &Arc<Setup>| {
        let setup = Arc::clone(setup);
        tokio::spawn(async move { setup.send().await })
    };
    let sent: Vec<_> = (0..10).map(|_| send(&setup)).collect();
    tokio::time::sleep(MS).await;
    assert_eq!((setup.tokens.working.load(Relaxed), setup.counted("busy")), (3, 7));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!((setup.tokens.working.load(Relaxed), setup.counted("timeout")), (0, 3));
    sent.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(start_paused = true)]
async fn tokens_count_in_the_memory_of_bodies_and_are_dropped_where_that_is_full() {
    let mut setup = Setup::new(Tokens::after(0), Duration::ZERO);
    let budget = Arc::new(BodyBudget::new(300));
    setup.director = Director::new(DirectorParts {
        budget: Arc::clone(&budget),
        preparers: setup.director.parts.preparers.clone(),
        ..parts(&[8000], &Parsers::default())
    });
    assert_eq!((setup.send().await.1, setup.counted("no_room"), budget.used()), (7, 1, 0));
}
