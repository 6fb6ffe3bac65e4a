//! The engine in virtual time.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::{
    Engine, EngineLimits, Event, Fetch, FinishReason, Prompt, RequestId, StepTimes, Submission, SubmitError,
};

fn limits() -> EngineLimits {
    EngineLimits {
        max_running: 2,
        max_waiting: 10,
        max_adapters: None,
        max_step_tokens: 1000,
        block_size: 4,
        blocks: 64,
        first_token_base: Duration::from_millis(5),
        step_times: StepTimes::Linear {
            prefill_per_token: Duration::from_millis(1),
            inter_token: Duration::from_millis(10),
        },
        transfer_base: Duration::from_millis(3),
        transfer_per_token: Duration::from_micros(100),
    }
}

fn ask(prompt: std::ops::Range<u32>, max_tokens: u32) -> Submission {
    Submission {
        prompt: Prompt::Tokens(prompt.collect()),
        adapter: None,
        max_tokens,
        stops_by_itself: false,
        answer_seed: 1,
        fetch: Fetch::Nothing,
    }
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn play_to_the_end(engine: &mut Engine) -> (Duration, Vec<Event>) {
    let (mut now, mut events) = (Duration::ZERO, engine.advance(Duration::ZERO));
    while let Some(at) = engine.next_event_time() {
        now = at.max(now);
        events.extend(engine.advance(now));
        engine.check();
    }
    (now, events)
}

#[test]
fn the_first_token_waits_for_base_and_prefill_and_the_rest_come_at_the_decode_pace() {
    let mut engine = Engine::new(limits());
    let id = engine.submit(ask(0..20, 3), ms(0)).unwrap();
    assert_eq!(engine.next_event_time(), Some(ms(5)));
    assert_eq!(engine.advance(ms(24)), []);
    assert_eq!(engine.advance(ms(25)), [Event::FirstToken { id, cached_tokens: 0 }]);
    assert_eq!(engine.advance(ms(35)), [Event::Token { id }]);
    let finished = Event::Finished { id, reason: FinishReason::Length };
    assert_eq!(engine.advance(ms(45)), [Event::Token { id }, finished]);
    assert_eq!(engine.next_event_time(), None);
}

#[test]
fn a_fetched_prompt_costs_its_transfer_and_the_last_block() {
    for (fetch, first_token) in [
        // Base 5, transfer 3 + 16 tokens of 0.1, the last 4 tokens of 1.
        (Fetch::Now, Duration::from_micros(13_600)),
        // The other server takes 5 + 20 before.
        (Fetch::WhenPrefilled, Duration::from_micros(38_600)),
        (Fetch::Nothing, ms(25)),
    ] {
        let mut engine = Engine::new(limits());
        let id = engine.submit(Submission { fetch, ..ask(0..20, 1) }, ms(0)).unwrap();
        let (at, events) = play_to_the_end(&mut engine);
        assert_eq!(at, first_token, "{fetch:?}");
        let cached_tokens = if fetch == Fetch::Nothing { 0 } else { 16 };
        assert_eq!(events[0], Event::FirstToken { id, cached_tokens });
        // What came stays: asked again it is cached.
        assert_eq!(engine.uncached_tokens(&ask(0..20, 1).prompt, None), 4);
    }
}

#[test]
fn a_cached_prefix_costs_no_prefill_but_the_last_block_is_always_computed() {
    let mut engine = Engine::new(limits());
    engine.submit(ask(0..20, 1), ms(0)).unwrap();
    engine.advance(ms(100));
    let id = engine.submit(ask(0..20, 1), ms(100)).unwrap();
    assert_eq!(engine.advance(ms(109))[0], Event::FirstToken { id, cached_tokens: 16 });
    let stats = engine.values().stats;
    assert_eq!((stats.cache_queries, stats.cache_hits, stats.prompt_tokens), (40, 16, 40));
}

#[test]
fn an_adapter_does_not_share_the_cache_of_the_base_model() {
    let mut engine = Engine::new(EngineLimits { max_adapters: Some(1), ..limits() });
    engine.submit(ask(0..20, 1), ms(0)).unwrap();
    engine.advance(ms(100));
    engine.submit(Submission { adapter: Some(Arc::from("a")), ..ask(0..20, 1) }, ms(100)).unwrap();
    engine.advance(ms(200));
    assert_eq!(engine.values().stats.cache_hits, 0);
}

#[test]
fn requests_beyond_the_batch_wait_in_order() {
    let mut engine = Engine::new(limits());
    let ids: Vec<RequestId> =
        (0..4).map(|i| engine.submit(ask(i * 100..i * 100 + 4, 2), ms(0)).unwrap()).collect();
    let values = engine.values();
    assert_eq!((values.running, values.waiting), (2, 2));
    let (_, events) = play_to_the_end(&mut engine);
    let finished: Vec<RequestId> = events
        .iter()
        .filter(|event| matches!(event, Event::Finished { .. }))
        .map(|event| event.id())
        .collect();
    assert_eq!(finished, ids);
}

#[test]
fn a_full_queue_refuses_and_counts() {
    let mut engine = Engine::new(EngineLimits { max_running: 1, max_waiting: 1, ..limits() });
    engine.submit(ask(0..4, 1), ms(0)).unwrap();
    engine.submit(ask(0..4, 1), ms(0)).unwrap();
    assert_eq!(engine.submit(ask(0..4, 1), ms(0)), Err(SubmitError::QueueFull));
    assert_eq!(engine.values().stats.queue_rejections, 1);
}

#[test]
fn what_cannot_fit_alone_is_refused() {
    let mut engine = Engine::new(limits());
    assert_eq!(engine.submit(ask(0..256, 1), ms(0)), Err(SubmitError::TooLong { limit: 256 }));
    assert_eq!(engine.submit(ask(0..0, 1), ms(0)), Err(SubmitError::EmptyPrompt));
    assert!(engine.submit(ask(0..255, 1), ms(0)).is_ok());
}

#[test]
fn usage_counts_held_blocks_only_and_returns_to_zero() {
    let mut engine = Engine::new(limits());
    engine.submit(ask(0..32, 4), ms(0)).unwrap();
    assert!((engine.values().kv_usage - 8.0 / 64.0).abs() < 1e-12);
    play_to_the_end(&mut engine);
    assert!(engine.values().kv_usage.abs() < 1e-12);
}

#[test]
fn a_cancelled_request_leaves_at_once_and_says_nothing_more() {
    let mut engine = Engine::new(EngineLimits { max_running: 1, ..limits() });
    let running = engine.submit(ask(0..4, 50), ms(0)).unwrap();
    let waiting = engine.submit(ask(0..4, 50), ms(0)).unwrap();
    let last = engine.submit(ask(0..4, 1), ms(0)).unwrap();
    engine.cancel(waiting, ms(1));
    engine.cancel(running, ms(20));
    engine.cancel(running, ms(20));
    let (_, events) = play_to_the_end(&mut engine);
    assert!(events.iter().all(|event| event.id() == last), "{events:?}");
    let stats = engine.values().stats;
    assert_eq!((stats.aborted, stats.limited), (2, 1));
}

#[test]
fn when_blocks_run_out_the_youngest_starts_over_and_still_finishes() {
    let mut engine = Engine::new(EngineLimits { blocks: 8, ..limits() });
    let old = engine.submit(ask(0..8, 20), ms(0)).unwrap();
    let young = engine.submit(ask(100..108, 20), ms(0)).unwrap();
    let (_, events) = play_to_the_end(&mut engine);
    let count = |id| events.iter().filter(|event| event.id() == id).count();
    assert_eq!((count(old), count(young)), (21, 21));
    assert!(engine.values().stats.preemptions > 0);
}

#[test]
fn an_adapter_beyond_the_maximum_waits_while_others_overtake_it() {
    let mut engine = Engine::new(EngineLimits { max_running: 3, max_adapters: Some(1), ..limits() });
    let adapter = |name: &str| Submission { adapter: Some(Arc::from(name)), ..ask(0..4, 5) };
    engine.submit(adapter("a"), ms(0)).unwrap();
    engine.submit(adapter("b"), ms(0)).unwrap();
    engine.submit(ask(0..4, 5), ms(0)).unwrap();
    let values = engine.values();
    assert_eq!((values.running, values.waiting, values.deferred), (2, 1, 1));
    let newest = values.adapter_rows.last().unwrap();
    assert_eq!((newest.running.as_str(), newest.waiting.as_str()), ("a", "b"));
    play_to_the_end(&mut engine);
    assert_eq!(engine.values().stats.limited, 3);
}

#[test]
fn a_long_prompt_slows_the_decoding_of_its_neighbours() {
    let mut engine = Engine::new(limits());
    let first = engine.submit(ask(0..4, 10), ms(0)).unwrap();
    assert_eq!(engine.advance(ms(9)).len(), 1);
    engine.submit(ask(200..304, 10), ms(10)).unwrap();
    let seen: Vec<Event> = engine.advance(ms(142)).into_iter().filter(|event| event.id() == first).collect();
    assert_eq!(seen, [Event::Token { id: first }; 2], "the step from 29 ms has 104 ms of prefill in it");
    assert_eq!(engine.advance(ms(143)).len(), 2);
}

#[test]
fn a_turn_of_a_conversation_finds_the_answer_before_it_in_the_cache() {
    let mut engine = Engine::new(limits());
    engine.submit(ask(0..8, 9), ms(0)).unwrap();
    engine.advance(ms(1000));
    let mut prompt: Vec<u32> = (0..8).collect();
    prompt.extend((0..9).map(|i| super::tokens::word_token(1, i)));
    engine.submit(Submission { prompt: Prompt::Tokens(prompt), ..ask(0..0, 1) }, ms(1000)).unwrap();
    assert_eq!(engine.values().stats.cache_hits, 16);
}

#[derive(Debug, Clone)]
enum Act {
    Submit { first: u32, length: u32, max_tokens: u32, adapter: Option<u8> },
    Cancel(usize),
    Wait(u64),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (0_u32..3, 1_u32..40, 1_u32..30, proptest::option::of(0_u8..3)).prop_map(
            |(first, length, max_tokens, adapter)| Act::Submit { first, length, max_tokens, adapter }
        ),
        1 => (0_usize..40).prop_map(Act::Cancel),
        3 => (0_u64..60).prop_map(Act::Wait),
    ]
}

proptest! {
    #[test]
    fn every_request_ends_once_with_all_its_tokens_and_all_blocks_come_back(
        acts in proptest::collection::vec(act(), 1..80),
        blocks in 20_usize..40,
        step_tokens in 1_usize..60,
        instant in any::<bool>(),
    ) {
        let mut limits = EngineLimits {
            max_running: 3, max_waiting: 12, max_adapters: Some(2), max_step_tokens: step_tokens, blocks, ..limits()
        };
        if instant {
            limits.first_token_base = Duration::ZERO;
            limits.step_times =
                StepTimes::Linear { prefill_per_token: Duration::ZERO, inter_token: Duration::ZERO };
        }
        let mut engine = Engine::new(limits);
        let mut now = Duration::ZERO;
        let mut wanted: Vec<(RequestId, u32)> = Vec::new();
        let mut cancelled: Vec<RequestId> = Vec::new();
        let mut events = Vec::new();
        for act in acts {
            match act {
                Act::Submit { first, length, max_tokens, adapter } => {
                    let adapter = adapter.map(|name| Arc::from(format!("adapter-{name}")));
                    let submission = Submission { adapter, ..ask(first..first + length, max_tokens) };
                    if let Ok(id) = engine.submit(submission, now) {
                        wanted.push((id, max_tokens));
                    }
                }
                Act::Cancel(index) => if let Some((id, _)) = wanted.get(index) {
                    events.extend(engine.advance(now));
                    if !events.iter().any(|event| matches!(event, Event::Finished { id: done, .. } if done == id)) {
                        cancelled.push(*id);
                    }
                    engine.cancel(*id, now);
                },
                Act::Wait(time) => {
                    now += ms(time);
                    events.extend(engine.advance(now));
                }
            }
            engine.check();
        }
        while let Some(at) = engine.next_event_time() {
            events.extend(engine.advance(at));
            engine.check();
        }
        let values = engine.values();
        prop_assert_eq!((values.running, values.waiting), (0, 0));
        prop_assert!(values.kv_usage == 0.0);
        for (id, max_tokens) in wanted {
            let own: Vec<&Event> = events.iter().filter(|event| event.id() == id).collect();
            if cancelled.contains(&id) {
                let ended = own.iter().any(|event| matches!(event, Event::Finished { .. }));
                prop_assert!(!ended);
                continue;
            }
            prop_assert_eq!(own.len(), max_tokens as usize + 1);
            let first = matches!(own.first(), Some(Event::FirstToken { .. }));
            let last = matches!(own.last(), Some(Event::Finished { .. }));
            prop_assert!(first && last);
        }
    }
}
