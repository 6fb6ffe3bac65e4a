use super::*;

#[test]
fn a_missing_field_keeps_its_value_and_the_age_restarts() {
    let start = Instant::now();
    let load = Load::new(start);
    assert_eq!(load.age(start), Age::Never);
    load.record(Reading { waiting: Some(3), kv_usage: Some(0.5), ..Reading::default() }, 0, start);
    let later = start + Duration::from_secs(1);
    assert_eq!(load.age(later), Age::Since(Duration::from_secs(1)));
    load.record(Reading { waiting: Some(4), ..Reading::default() }, 0, later);
    assert_eq!((load.waiting(), load.kv_usage()), (4, 0.5));
    assert_eq!(load.age(later), Age::Since(Duration::ZERO));
}

#[test]
fn a_figure_that_vanishes_from_the_page_grows_stale_by_itself() {
    let start = Instant::now();
    let load = Load::new(start);
    load.record(Reading { waiting: Some(3), kv_usage: Some(0.5), ..Reading::default() }, 0, start);
    let later = start + Duration::from_secs(9);
    load.record(Reading { kv_usage: Some(0.6), ..Reading::default() }, 0, later);
    let nine = Age::Since(Duration::from_secs(9));
    assert_eq!(load.figure_age(LoadFigure::Waiting, later), nine);
    assert_eq!(load.figure_age(LoadFigure::KvUsage, later), Age::Since(Duration::ZERO));
    assert_eq!(load.figure_age(LoadFigure::Running, later), Age::Never);
    assert_eq!(load.fullness_age(later), nine);
    assert_eq!(load.age(later), Age::Since(Duration::ZERO));
}

#[test]
fn a_figure_that_a_server_never_had_does_not_make_it_stale() {
    let start = Instant::now();
    let load = Load::new(start);
    load.record(Reading { waiting: Some(3), ..Reading::default() }, 0, start);
    assert_eq!(load.fullness_age(start), Age::Since(Duration::ZERO));
}

#[test]
fn numbers_beyond_belief_are_bounded() {
    let start = Instant::now();
    let load = Load::new(start);
    let usual = Reading { block_size: Some(16), kv_usage: Some(0.5), ..Reading::default() };
    load.record(usual, 0, start);
    let absurd = Reading {
        waiting: Some(u64::MAX),
        running: Some(u64::MAX),
        kv_usage: Some(f64::INFINITY),
        block_size: Some(u32::MAX),
        ..Reading::default()
    };
    load.record(absurd, 0, start);
    assert_eq!((load.waiting(), load.running()), (MOST_REQUESTS, MOST_REQUESTS));
    assert_eq!((load.kv_usage(), load.block_size()), (0.5, 16));
}

#[test]
fn an_empty_reading_does_not_make_an_endpoint_fresh() {
    let start = Instant::now();
    let load = Load::new(start);
    load.record(Reading::default(), 0, start);
    assert_eq!(load.age(start), Age::Never);
}

#[test]
fn a_server_counts_as_unreachable_after_two_silent_scrapes_or_one_refused_connection() {
    let load = Load::new(Instant::now());
    assert!(load.is_reachable(), "never scraped is no fault");
    load.note_silence(false);
    assert!(load.is_reachable());
    load.note_silence(false);
    assert!(!load.is_reachable());
    load.note_answer();
    assert!(load.is_reachable());
    load.note_silence(true);
    assert!(!load.is_reachable());
}

#[test]
fn what_peers_have_under_way_counts_until_they_take_it_back() {
    let load = Load::new(Instant::now());
    load.begin(10);
    load.set_elsewhere(Share { requests: 2, tokens: 30, dispatched: 9 }, 2);
    assert_eq!((load.in_flight(), load.in_flight_tokens(), load.dispatched_since_reading()), (3, 40, 3));
    assert_eq!(load.own(), Share { requests: 1, tokens: 10, dispatched: 1 });
    load.set_elsewhere(Share::default(), 0);
    assert_eq!((load.in_flight(), load.in_flight_tokens(), load.dispatched()), (1, 10, 3));
}

#[test]
fn a_reading_is_carried_on_by_what_was_sent_and_what_ended_since() {
    let start = Instant::now();
    let load = Load::new(start);
    load.begin(1);
    assert_eq!((load.outstanding(), load.waiting_by_now()), (1, 0), "never read");
    let before = load.dispatched();
    load.begin(1);
    // The page counts the first request, and five of others.
    let page = Reading { running: Some(4), waiting: Some(2), ..Reading::default() };
    load.record(page, before, start);
    assert_eq!((load.outstanding(), load.waiting_by_now()), (7, 3));
    load.end();
    load.end();
    assert_eq!((load.outstanding(), load.waiting_by_now()), (5, 1));
}

#[test]
fn own_prompts_without_an_answer_are_no_waiting_requests_of_others() {
    let start = Instant::now();
    let load = Load::new(start);
    (0..3).for_each(|_| load.begin(5));
    load.begin(0);
    load.end_tokens(5);
    let before = load.dispatched();
    load.begin(5);
    load.record(Reading { waiting: Some(6), ..Reading::default() }, before, start);
    // Two of the six are this process's; the one that was sent after the scrape is not among them.
    assert_eq!(load.waiting_of_others(), 4);
    load.forget_reading();
    assert_eq!(load.waiting_of_others(), 0);
}

#[test]
fn requests_sent_while_a_scrape_was_under_way_count_as_unread() {
    let start = Instant::now();
    let load = Load::new(start);
    load.begin(1);
    let before = load.dispatched();
    load.begin(1);
    load.record(Reading { running: Some(1), ..Reading::default() }, before, start);
    assert_eq!(load.dispatched_since_reading(), 1);
}

#[test]
fn the_cache_fills_by_what_was_sent_since_the_reading() {
    let start = Instant::now();
    let load = Load::new(start);
    load.begin(160);
    assert!(load.kv_usage_by_now().abs() < 1e-12, "nothing is known of its size");
    let page =
        Reading { kv_usage: Some(0.5), block_size: Some(16), num_blocks: Some(100), ..Reading::default() };
    load.record(page, load.dispatched(), start);
    assert!((load.kv_usage_by_now() - 0.5).abs() < 1e-12);
    load.begin(160);
    assert!((load.kv_usage_by_now() - 0.6).abs() < 1e-12);
    load.begin(1 << 40);
    assert!((load.kv_usage_by_now() - 1.0).abs() < 1e-12);
}
