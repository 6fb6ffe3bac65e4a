//! A decision in words.

use super::*;
use crate::decisions::{RemovedView, UsageView, WaitView};

fn candidate(endpoint: &str, waiting: u32, matched: u32) -> CandidateView {
    CandidateView {
        endpoint: endpoint.into(),
        address: format!("10.0.0.{waiting}:8000"),
        waiting,
        matched_blocks: Some(matched),
        ..CandidateView::default()
    }
}

fn row(endpoint: &str, queue: f32, prefix: f32) -> RowView {
    let total = f64::from(queue) + 2.0 * f64::from(prefix);
    RowView { endpoint: endpoint.into(), scores: vec![queue, prefix], raw_scores: None, total }
}

fn view() -> DecisionView {
    let scorer = |name: &str, weight| ScorerView { name: name.into(), r#type: name.into(), weight };
    DecisionView {
        id: "r".into(),
        candidates: vec![
            candidate("ns/pod-1", 1, 10),
            candidate("ns/pod-2", 2, 0),
            candidate("ns/pod-3", 7, 40),
            candidate("ns/pod-4", 4, 0),
        ],
        left_out: vec!["ns/pod-9".into()],
        profiles: vec![ProfileView {
            name: "default".into(),
            removed: vec![RemovedView {
                filter: "gpu".into(),
                r#type: "label-filter".into(),
                endpoints: vec!["ns/pod-4".into()],
            }],
            scorers: vec![scorer("queue-scorer", 1.0), scorer("prefix-cache-scorer", 2.0)],
            rows: vec![row("ns/pod-1", 0.9, 0.5), row("ns/pod-2", 0.9, 0.5), row("ns/pod-3", 0.25, 0.75)],
            picker_type: "max-score-picker".into(),
            picked: vec!["ns/pod-1".into()],
            ..ProfileView::default()
        }],
        primary: Some("default".into()),
        endpoint: Some("ns/pod-1".into()),
        wait: WaitView { waited_for: "capacity".into(), queue_ms: 12.0, ..WaitView::default() },
        outcome: OutcomeView {
            state: "complete".into(),
            status: Some(200),
            usage: Some(UsageView { prompt_tokens: 9, completion_tokens: 3, cached_tokens: Some(8) }),
            predicted_cached_tokens: Some(16),
            ..OutcomeView::default()
        },
        ..DecisionView::default()
    }
}

#[test]
fn each_loser_has_a_sentence_that_says_what_cost_it_what_and_what_would_have_won() {
    let text = explain(&view(), Wanted { rows: 20, why_not: None });
    for part in [
        "waited 12.0 ms for capacity",
        "→ ns/pod-1: total 1.900, level with another: the draw decided",
        "ns/pod-2: level with the winner, the draw decided",
        "ns/pod-3: 0.15 behind; its queue of 7 costs 0.65, its prefix of 40 cached blocks gives 0.50; \
         queue-scorer above 0.40 instead of 0.25 would have won",
        "removed by filter gpu: ns/pod-4",
        "ns/pod-9",
        "complete, status 200, 9 prompt and 3 generated tokens, 8 tokens cached, 16 predicted",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
}

#[test]
fn one_endpoint_can_be_asked_about_by_any_of_its_names() {
    let why = |endpoint| explain(&view(), Wanted { rows: 20, why_not: Some(endpoint) });
    for name in ["ns/pod-3", "pod-3", "10.0.0.7:8000"] {
        assert!(why(name).contains("0.15 behind"), "{}", why(name));
    }
    assert!(why("pod-4").contains("removed by filter gpu (label-filter)"));
    assert!(why("pod-9").contains("no candidate"));
    assert!(why("pod-5").contains("no endpoint of the pool had this name"));
    assert!(why("pod-1").contains("→ ns/pod-1"));
}

#[test]
fn of_many_candidates_the_best_are_shown_and_the_rest_are_counted() {
    let text = explain(&view(), Wanted { rows: 1, why_not: None });
    assert!(text.contains("… and 2 more"), "{text}");
    assert!(!text.contains("ns/pod-3: "), "{text}");
}
