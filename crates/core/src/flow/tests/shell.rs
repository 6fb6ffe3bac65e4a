//! The controller under paused time.

use std::future::{Future as _, poll_fn};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::task::{JoinHandle, yield_now};
use tokio::time::{advance, sleep};

use super::pool::{FakePool, arrival, millis};
use crate::flow::detector::{Concurrency, Detector, DetectorKind};
use crate::flow::settings::{BandSettings, Fairness};
use crate::flow::{Controller, DropReason, FlowSettings, Observer, Outcome, Permit, Rejection};

#[derive(Clone, Default)]
struct Record {
    cycles: Arc<AtomicU64>,
    /// One for each that was issued, ten for each that was confirmed.
    revocations: Arc<AtomicU64>,
    given_up: Arc<AtomicU64>,
}

impl Observer for Record {
    fn cycle(&self, _: Duration) {
        self.cycles.fetch_add(1, SeqCst);
    }
    fn revocation_issued(&self, _: i32) {
        self.revocations.fetch_add(1, SeqCst);
    }
    fn revocation_ended(&self, confirmed: bool, _: Duration) {
        let (counter, by) = if confirmed { (&self.revocations, 10) } else { (&self.given_up, 1) };
        counter.fetch_add(by, SeqCst);
    }
}

struct Fixture {
    controller: Arc<Controller>,
    pool: FakePool,
    record: Record,
}

type Admitted = JoinHandle<Result<Permit, Rejection>>;

impl Fixture {
    fn new(settings: FlowSettings, endpoints: u64, capacity: u64) -> Self {
        let (pool, record) = (FakePool::new(endpoints, capacity), Record::default());
        let controller = Controller::new(settings, pool.clone(), record.clone());
        tokio::spawn(Arc::clone(&controller).run());
        Self { controller, pool, record }
    }

    /// Submits a request, and lets it come as far as it gets.
    async fn submit(&self, priority: i32) -> Admitted {
        let controller = Arc::clone(&self.controller);
        let task = tokio::spawn(async move { controller.admit(arrival(priority, "a")).await });
        yield_now().await;
        task
    }

    fn resize(&self, endpoints: u64, capacity: u64) {
        self.pool.set(endpoints, capacity);
        self.controller.notify_load();
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_goes_at_once_while_there_is_room_and_the_next_one_when_the_permit_is_dropped() {
    let it = Fixture::new(FlowSettings::default(), 1, 1);
    let first = it.controller.admit(arrival(0, "a")).await.unwrap();
    let second = it.submit(0).await;
    assert_eq!((it.controller.queued().requests, it.controller.in_flight()), (1, 1));
    advance(millis(40)).await;
    assert_eq!(first.waited(), Duration::ZERO);
    drop(first);
    let second = second.await.unwrap().unwrap();
    assert_eq!(second.waited(), millis(40));
    drop(second);
    assert!(it.controller.is_idle());
    assert_eq!(it.controller.unplaced(), crate::flow::Unplaced::default());
    assert_eq!(it.controller.undecided(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_future_withdraws_its_request() {
    let it = Fixture::new(FlowSettings::default(), 1, 0);
    let task = it.submit(0).await;
    assert_eq!(it.controller.queued().bytes, 1);
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    assert!(it.controller.is_idle());
    assert_eq!(it.controller.undecided(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_future_dropped_after_its_release_gives_the_place_to_the_next() {
    let it = Fixture::new(FlowSettings::default(), 1, 0);
    let (first, second) = (it.submit(0).await, it.submit(0).await);
    it.resize(1, 1);
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    let second = second.await.unwrap().unwrap();
    assert_eq!((it.controller.in_flight(), second.waited()), (1, Duration::ZERO));
    drop(second);
    assert!(it.controller.is_idle());
    assert_eq!(it.controller.undecided(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_timer_ends_waits_on_time_and_then_sleeps() {
    let settings = FlowSettings { default_request_ttl: Some(millis(1500)), ..FlowSettings::default() };
    let it = Fixture::new(settings, 1, 0);
    let began = tokio::time::Instant::now();
    let refusal = it.controller.admit(arrival(0, "a")).await.unwrap_err();
    assert_eq!((refusal.outcome, refusal.pool_empty), (Outcome::EvictedTtl, false));
    assert_eq!((began.elapsed(), it.controller.undecided()), (millis(1500), 0));
    sleep(Duration::from_secs(10)).await;
    let cycles = it.record.cycles.load(SeqCst);
    sleep(Duration::from_hours(24)).await;
    for _ in 0..1000 {
        it.controller.notify_load();
    }
    assert_eq!(it.record.cycles.load(SeqCst), cycles, "an empty controller does nothing");
}

#[tokio::test(start_paused = true)]
async fn an_arrival_that_finds_a_wait_over_gets_nothing_of_that_ones_answer() {
    let settings = FlowSettings { default_request_ttl: Some(millis(1500)), ..FlowSettings::default() };
    let pool = FakePool::new(1, 0);
    // Its timer does not run, so that it is the arrival that ends the wait.
    let controller = Controller::new(settings, pool.clone(), Record::default());
    let [mut first, mut second] = ["a", "b"].map(|flow| Box::pin(controller.admit(arrival(0, flow))));
    let poll = |cx: &mut Context<'_>| Poll::Ready(first.as_mut().poll(cx).is_pending());
    assert!(poll_fn(poll).await);
    advance(millis(1500)).await;
    let poll = |cx: &mut Context<'_>| Poll::Ready(second.as_mut().poll(cx).is_pending());
    assert!(poll_fn(poll).await);
    assert_eq!(first.await.unwrap_err().outcome, Outcome::EvictedTtl);
    assert_eq!(controller.queued().requests, 1);
    pool.set(1, 1);
    controller.notify_load();
    drop(second.await.unwrap());
    assert!(controller.is_idle());
    assert_eq!(controller.unplaced(), crate::flow::Unplaced::default());
}

#[tokio::test(start_paused = true)]
async fn a_waiting_request_goes_in_the_instant_the_first_endpoint_comes() {
    let it = Fixture::new(FlowSettings::default(), 0, 0);
    let tasks = [it.submit(0).await, it.submit(0).await, it.submit(0).await];
    sleep(Duration::from_mins(5)).await;
    assert_eq!(it.controller.queued().requests, 3);
    it.resize(1, 100);
    for task in tasks {
        assert_eq!(task.await.unwrap().unwrap().waited(), Duration::from_mins(5));
    }
}

#[tokio::test(start_paused = true)]
async fn those_who_watch_see_the_first_request_wait_and_the_last_one_go() {
    let it = Fixture::new(FlowSettings::default(), 0, 0);
    let mut waiting = it.controller.waiting();
    assert!(!*waiting.borrow_and_update());
    let tasks = [it.submit(0).await, it.submit(0).await];
    assert!(waiting.has_changed().unwrap() && *waiting.borrow_and_update());
    it.resize(1, 1);
    assert!(!waiting.has_changed().unwrap());
    it.resize(1, 2);
    assert!(!*waiting.borrow_and_update());
    for task in tasks {
        drop(task.await.unwrap().unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn a_drain_goes_on_releasing_and_closing_refuses_what_is_left() {
    let it = Fixture::new(FlowSettings::default(), 1, 0);
    let (first, second) = (it.submit(0).await, it.submit(0).await);
    let controller = Arc::clone(&it.controller);
    let drain = tokio::spawn(async move { controller.drain().await });
    yield_now().await;
    assert!(it.controller.is_draining());
    it.resize(1, 1);
    let permit = first.await.unwrap().unwrap();
    assert!(!drain.is_finished());
    it.controller.close();
    assert_eq!(second.await.unwrap().unwrap_err().drop_reason(), DropReason::ShuttingDown);
    drain.await.unwrap();
    let refusal = it.controller.admit(arrival(0, "a")).await.unwrap_err();
    assert_eq!(refusal.outcome, Outcome::RejectedOther);
    drop(permit);
    assert!(it.controller.is_idle());
}

#[tokio::test(start_paused = true)]
async fn a_full_band_refuses_at_once() {
    let band = BandSettings { max_requests: 1, ..BandSettings::default() };
    let settings = FlowSettings { bands: [(0, band)].into(), ..FlowSettings::default() };
    let it = Fixture::new(settings, 1, 0);
    let task = it.submit(0).await;
    let refusal = it.controller.admit(arrival(0, "a")).await.unwrap_err();
    assert_eq!(refusal.outcome, Outcome::RejectedCapacity);
    assert_eq!(it.controller.bands().first().map(|band| band.queued.requests), Some(1));
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn a_running_request_hears_that_it_should_stop() {
    let kind = DetectorKind::Concurrency(Concurrency::default());
    let settings = FlowSettings {
        eviction: true,
        detector: Detector { kind, ..Detector::default() },
        bands: [(0, BandSettings::default()), (-1, BandSettings::default())].into(),
        ..FlowSettings::default()
    };
    let it = Fixture::new(settings, 1, 1);
    let mut running = it.controller.admit(arrival(-1, "a")).await.unwrap();
    let urgent = it.submit(0).await;
    running.revoked().await;
    drop(running);
    drop(urgent.await.unwrap().unwrap());
    assert_eq!(it.record.revocations.load(SeqCst), 11, "one issued, one confirmed");
    assert!(it.controller.is_idle());
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_released_and_chosen_to_be_stopped_in_one_call_hears_that_it_should_stop() {
    let kind = DetectorKind::Concurrency(Concurrency::default());
    let band = BandSettings { fairness: Fairness::RoundRobin, ..BandSettings::default() };
    let settings = FlowSettings {
        eviction: true,
        detector: Detector { kind, ..Detector::default() },
        bands: [(0, band)].into(),
        ..FlowSettings::default()
    };
    let it = Fixture::new(settings, 1, 0);
    let first = [it.submit(0).await, it.submit(0).await];
    // There is room for two, which the next arrival finds. Its priority has no band of its own, so it takes its flow's
    // turn in band 0.
    it.pool.set(1, 2);
    let mut running = it.controller.admit(arrival(-5, "b")).await.unwrap();
    assert_eq!(it.record.revocations.load(SeqCst), 1);
    tokio::time::timeout(millis(1), running.revoked()).await.expect("it was not told");
    drop(running);
    for task in first {
        drop(task.await.unwrap().unwrap());
    }
    assert!(it.controller.is_idle());
}

#[tokio::test(start_paused = true)]
async fn a_request_that_takes_up_less_of_its_endpoint_wakes_the_queue() {
    let it = Fixture::new(FlowSettings::default(), 1, 1);
    let running = it.controller.admit(arrival(0, "a")).await.unwrap();
    let waiting = it.submit(0).await;
    it.pool.set(1, 2);
    running.eased();
    assert_eq!(waiting.await.unwrap().unwrap().waited(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn readings_of_a_large_pool_are_looked_at_together_and_none_is_lost() {
    let it = Fixture::new(FlowSettings::default(), 1000, 0);
    let waiting = it.submit(0).await;
    let before = it.pool.looks.load(SeqCst);
    // 20,000 readings within a second, as a pool of 1,000 endpoints gives every second.
    for _ in 0..20_000 {
        it.controller.notify_load();
        advance(Duration::from_micros(50)).await;
    }
    let looks = it.pool.looks.load(SeqCst) - before;
    assert!((500..=1100).contains(&looks), "{looks} looks at the whole pool");
    it.controller.notify_load();
    it.pool.set(1000, 1);
    it.controller.notify_load();
    let waited = waiting.await.unwrap().unwrap().waited();
    assert!(
        waited <= millis(1002),
        "waited {waited:?}: the last reading was not looked at within two milliseconds"
    );
}

#[tokio::test(start_paused = true)]
async fn every_reading_of_a_small_pool_is_looked_at_at_once() {
    let it = Fixture::new(FlowSettings::default(), 64, 0);
    let waiting = it.submit(0).await;
    it.controller.notify_load();
    it.resize(64, 1);
    assert_eq!(waiting.await.unwrap().unwrap().waited(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_stopped_request_that_does_not_end_is_given_up_though_nobody_waits_any_more() {
    let kind = DetectorKind::Concurrency(Concurrency::default());
    let settings = FlowSettings {
        eviction: true,
        detector: Detector { kind, ..Detector::default() },
        bands: [(0, BandSettings::default()), (-1, BandSettings::default())].into(),
        ..FlowSettings::default()
    };
    let it = Fixture::new(settings, 1, 1);
    let mut running = it.controller.admit(arrival(-1, "a")).await.unwrap();
    let urgent = it.submit(0).await;
    running.revoked().await;
    urgent.abort();
    let promised = it.controller.reclaim().unwrap().1;
    assert!(promised > 0.0);
    sleep(Duration::from_secs(11)).await;
    assert_eq!(it.controller.reclaim(), Some((0.0, 0.0)), "it gives nothing any more");
    assert_eq!(it.record.given_up.load(SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_tasks_that_come_wait_hang_up_and_run_leave_nothing_behind() {
    let it = Fixture::new(FlowSettings::default(), 1, 7);
    let tasks: Vec<_> = (0..10_000_u32)
        .map(|number| {
            let controller = Arc::clone(&it.controller);
            tokio::spawn(async move {
                if let Ok(permit) = controller.admit(arrival(0, &format!("flow-{}", number % 90))).await {
                    yield_now().await;
                    if number % 3 == 0 {
                        permit.served(5, 5);
                    }
                }
            })
        })
        .collect();
    for _ in 0..3 {
        yield_now().await;
    }
    tasks.iter().step_by(7).for_each(JoinHandle::abort);
    for task in tasks {
        _ = task.await;
    }
    assert!(it.controller.is_idle());
    assert_eq!(it.controller.unplaced().requests, 0);
    assert_eq!(it.controller.undecided(), 0);
}
