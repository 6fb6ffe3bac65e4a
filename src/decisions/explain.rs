//! A decision in words: a table of candidates and scorers, the winner, and a sentence for each loser that says what
//! would have had to differ.

use std::fmt::Write as _;

use super::view::{CandidateView, DecisionView, OutcomeView, ProfileView, RowView, ScorerView, ShadowView};

/// Differences of totals below this are not spoken of.
const SLIGHT: f64 = 0.005;

/// What to say of a decision.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'w> {
    /// Most rows of a table, and sentences.
    pub rows: usize,
    /// The endpoint that is asked about: `namespace/name`, its name alone, or its address.
    pub why_not: Option<&'w str>,
}

/// The decision in words. The texts in `view` are printed as they are.
pub fn explain(view: &DecisionView, wanted: Wanted<'_>) -> String {
    let mut text = String::new();
    head(&mut text, view);
    if let Some(endpoint) = wanted.why_not {
        why_not(&mut text, view, endpoint);
        return text;
    }
    for profile in &view.profiles {
        table(&mut text, view, profile, wanted.rows);
        sentences(&mut text, view, profile, wanted.rows);
    }
    if let Some(shadow) = &view.shadow {
        second_choice(&mut text, shadow);
    }
    if !view.left_out.is_empty() {
        let names = first_of(&view.left_out, wanted.rows);
        let _ =
            writeln!(text, "no candidates (outside the subset hint, unreachable, or screened out): {names}");
    }
    foot(&mut text, view);
    text
}

fn head(text: &mut String, view: &DecisionView) {
    let model = if view.model == view.target_model || view.target_model.is_empty() {
        view.model.clone()
    } else {
        format!("{} → {}", view.model, view.target_model)
    };
    let _ = writeln!(text, "request {} at {}", view.id, view.time);
    let _ = writeln!(text, "model {model}, priority {}, fairness id {}", view.priority, view.fairness_id);
    let prompt = &view.prompt;
    let counted = if prompt.exact { "counted" } else { "estimated" };
    let _ = write!(text, "prompt of {} tokens ({counted})", prompt.tokens);
    if prompt.blocks > 0 {
        let _ = write!(text, ", {} blocks of {}", prompt.blocks, prompt.block_size);
    }
    let _ = match view.wait.waited_for.as_str() {
        "nothing" => writeln!(text, "; waited for nothing, decided after {:.1} ms", view.decided_ms),
        reason => writeln!(
            text,
            "; waited {:.1} ms for {reason} in band {}, decided after {:.1} ms",
            view.wait.queue_ms + view.wait.preparation_ms,
            view.wait.band,
            view.decided_ms
        ),
    };
}

/// Rows by total, highest first.
fn ranked(profile: &ProfileView) -> Vec<&RowView> {
    let mut rows: Vec<&RowView> = profile.rows.iter().collect();
    rows.sort_by(|a, b| b.total.total_cmp(&a.total));
    rows
}

fn candidate<'v>(view: &'v DecisionView, endpoint: &str) -> Option<&'v CandidateView> {
    view.candidates.iter().find(|candidate| candidate.endpoint == endpoint)
}

fn table(text: &mut String, view: &DecisionView, profile: &ProfileView, most: usize) {
    let _ = writeln!(text, "\nprofile {} ({}, draw {})", profile.name, profile.picker_type, profile.draw);
    let mut header: Vec<String> = vec![String::new(), "endpoint".to_owned()];
    header.extend(profile.scorers.iter().map(|scorer| format!("{}×{}", scorer.name, scorer.weight)));
    header.push("total".to_owned());
    let shadow = view.shadow.as_ref().and_then(|shadow| of_shadow(shadow, &profile.name));
    if shadow.is_some() {
        header.push("shadow".to_owned());
    }
    header.extend(["queue", "running", "kv", "in flight", "sent since", "blocks", "age"].map(str::to_owned));
    let mut lines = vec![header];
    let picked = profile.picked.first();
    let rows = ranked(profile);
    for row in rows.iter().take(most) {
        let mark = if Some(&row.endpoint) == picked { "*" } else { "" };
        let mut line = vec![mark.to_owned(), row.endpoint.clone()];
        line.extend(row.scores.iter().map(|score| format!("{score:.3}")));
        line.push(format!("{:.3}", row.total));
        line.extend(shadow.map(|shadow| shadow_cell(shadow, &row.endpoint)));
        if let Some(figures) = candidate(view, &row.endpoint) {
            line.extend([
                figures.waiting.to_string(),
                figures.running.to_string(),
                format!("{:.0}%", figures.kv_usage * 100.0),
                figures.in_flight.to_string(),
                figures.sent_since_reading.to_string(),
                figures.matched_blocks.map_or_else(|| "-".to_owned(), |blocks| blocks.to_string()),
                figures.age_ms.map_or_else(|| "never".to_owned(), |age| format!("{age} ms")),
            ]);
        }
        lines.push(line);
    }
    columns(text, &lines);
    if rows.len() > most {
        let _ = writeln!(text, "  … and {} more", rows.len() - most);
    }
}

/// The last run of the shadow's profile of this name.
fn of_shadow<'v>(shadow: &'v ShadowView, profile: &str) -> Option<&'v ProfileView> {
    shadow.profiles.iter().rfind(|run| run.name == profile)
}

/// The shadow's total of an endpoint, with a mark if it is its pick.
fn shadow_cell(shadow: &ProfileView, endpoint: &str) -> String {
    let mark = if shadow.picked.first().is_some_and(|picked| picked == endpoint) { "*" } else { "" };
    let row = shadow.rows.iter().find(|row| row.endpoint == endpoint);
    row.map_or_else(|| "-".to_owned(), |row| format!("{mark}{:.3}", row.total))
}

/// What the shadow would have done, in a sentence.
fn second_choice(text: &mut String, shadow: &ShadowView) {
    let worse = |regret: Option<f64>| match regret {
        Some(regret) => format!("scores {regret:.2} worse"),
        None => "is ruled out".to_owned(),
    };
    let _ = match (&shadow.endpoint, shadow.agrees) {
        (Some(endpoint), true) => writeln!(text, "shadow: {endpoint} too"),
        (Some(endpoint), false) => writeln!(
            text,
            "shadow: {endpoint} instead; that {} here, and the pick {} there",
            worse(shadow.regret_of_shadow),
            worse(shadow.regret_of_running)
        ),
        (None, _) => writeln!(
            text,
            "shadow: it finds no endpoint: {}",
            shadow.refusal.as_deref().unwrap_or("no profile chose one")
        ),
    };
}

/// Lines with their cells below each other.
fn columns(text: &mut String, lines: &[Vec<String>]) {
    let count = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..count).map(width).collect();
    for line in lines {
        let mut out = String::from("  ");
        for (column, cell) in line.iter().enumerate() {
            let pad = widths[column].saturating_sub(cell.chars().count());
            // Names stand left, numbers right.
            if column < 2 {
                let _ = write!(out, "{cell}{:pad$} ", "");
            } else {
                let _ = write!(out, " {:pad$}{cell} ", "");
            }
        }
        let _ = writeln!(text, "{}", out.trim_end());
    }
}

fn sentences(text: &mut String, view: &DecisionView, profile: &ProfileView, most: usize) {
    match profile.picked.first() {
        Some(winner) => {
            let _ = writeln!(text, "{}", of_winner(view, profile, winner));
            let losers = ranked(profile).into_iter().filter(|row| row.endpoint != *winner);
            for row in losers.take(most) {
                let _ = writeln!(text, "  {}", of_loser(view, profile, row));
            }
        }
        None => {
            let _ = writeln!(text, "  it found no endpoint");
        }
    }
    for removed in &profile.removed {
        let names = first_of(&removed.endpoints, most);
        let _ = writeln!(text, "  removed by filter {}: {names}", removed.filter);
    }
}

fn first_of(names: &[String], most: usize) -> String {
    let mut text = names.iter().take(most).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > most {
        let _ = write!(text, " and {} more", names.len() - most);
    }
    text
}

fn of_winner(view: &DecisionView, profile: &ProfileView, winner: &str) -> String {
    let Some(row) = profile.rows.iter().find(|row| row.endpoint == winner) else { return winner.to_owned() };
    let others = profile.rows.iter().filter(|other| other.endpoint != winner);
    let best = others.map(|row| row.total).max_by(f64::total_cmp);
    let margin = match best {
        None => "it was alone".to_owned(),
        Some(best) if row.total - best >= SLIGHT => format!("{:.2} ahead of the next", row.total - best),
        Some(best) if best - row.total >= SLIGHT => {
            format!("{:.2} behind the best: the picker draws", best - row.total)
        }
        Some(_) => "level with another: the draw decided".to_owned(),
    };
    let overruled = match &view.endpoint {
        Some(endpoint)
            if view.bound && view.primary.as_deref() == Some(&profile.name) && endpoint != winner =>
        {
            format!("; the conversation that the request belongs to sent it to {endpoint}")
        }
        _ => String::new(),
    };
    format!("→ {winner}: total {:.3}, {margin}{overruled}", row.total)
}

/// One scorer's part in the difference between two endpoints.
struct Part<'p> {
    scorer: &'p ScorerView,
    score: f64,
    difference: f64,
}

fn parts<'p>(profile: &'p ProfileView, row: &RowView, winner: &RowView) -> Vec<Part<'p>> {
    let scores = profile.scorers.iter().zip(row.scores.iter().zip(&winner.scores));
    let mut parts: Vec<Part<'_>> = scores
        .map(|(scorer, (score, best))| Part {
            scorer,
            score: f64::from(*score),
            difference: scorer.weight * (f64::from(*score) - f64::from(*best)),
        })
        .collect();
    parts.sort_by(|a, b| a.difference.total_cmp(&b.difference));
    parts
}

/// Why this endpoint was not picked, and what would have had to differ.
fn of_loser(view: &DecisionView, profile: &ProfileView, row: &RowView) -> String {
    let name = &row.endpoint;
    let winner =
        profile.picked.first().and_then(|winner| profile.rows.iter().find(|row| row.endpoint == *winner));
    let Some(winner) = winner else { return format!("{name}: nobody was picked") };
    let behind = winner.total - row.total;
    let parts = parts(profile, row, winner);
    let figures = candidate(view, name);
    let told: Vec<String> = parts
        .iter()
        .filter(|part| part.difference.abs() >= SLIGHT)
        .map(|part| {
            let verb = if part.difference < 0.0 { "costs" } else { "gives" };
            format!("{} {verb} {:.2}", subject(part, figures), part.difference.abs())
        })
        .collect();
    let reasons = if told.is_empty() { String::new() } else { format!("; {}", told.join(", ")) };
    if behind < -SLIGHT {
        return format!("{name}: {:.2} ahead, but the picker drew another{reasons}", -behind);
    }
    if behind < SLIGHT {
        return format!("{name}: level with the winner, the draw decided{reasons}");
    }
    // The nearest change of one score that would have been enough.
    let enough = parts.iter().filter(|part| part.scorer.weight > 0.0).find_map(|part| {
        let needed = part.score + behind / part.scorer.weight;
        (needed <= 1.0).then(|| {
            format!("; {} above {needed:.2} instead of {:.2} would have won", part.scorer.name, part.score)
        })
    });
    format!("{name}: {behind:.2} behind{reasons}{}", enough.unwrap_or_default())
}

/// What a scorer judges an endpoint by.
fn subject(part: &Part<'_>, figures: Option<&CandidateView>) -> String {
    let other = || format!("its score of {:.2} by {}", part.score, part.scorer.name);
    let Some(figures) = figures else { return other() };
    match part.scorer.r#type.as_str() {
        "queue-scorer" | "load-aware-scorer" => format!("its queue of {}", figures.waiting),
        "running-requests-size-scorer" => format!("its batch of {} running", figures.running),
        "kv-cache-utilization-scorer" => format!("its KV usage of {:.0} %", figures.kv_usage * 100.0),
        "active-request-scorer" => format!("its load of {} in flight", figures.in_flight),
        "token-load-scorer" => format!("its load of {} tokens in flight", figures.in_flight_tokens),
        kind if kind.contains("prefix") => match figures.matched_blocks {
            Some(blocks) => format!("its prefix of {blocks} cached blocks"),
            None => other(),
        },
        _ => other(),
    }
}

fn is_called(endpoint: &str, asked: &str, view: &DecisionView) -> bool {
    endpoint == asked
        || endpoint.rsplit('/').next() == Some(asked)
        || candidate(view, endpoint).is_some_and(|candidate| candidate.address == asked)
}

fn why_not(text: &mut String, view: &DecisionView, asked: &str) {
    let _ = writeln!(text);
    if let Some(name) = view.left_out.iter().find(|name| is_called(name, asked, view)) {
        let _ = writeln!(
            text,
            "{name}: no candidate: it is outside the subset hint, unreachable, or screened out"
        );
        return;
    }
    if !view.candidates.iter().any(|candidate| is_called(&candidate.endpoint, asked, view)) {
        let _ = writeln!(text, "{asked}: no endpoint of the pool had this name when the request was decided");
        return;
    }
    if view.profiles.is_empty() {
        let _ = writeln!(text, "{asked}: no profile ran");
    }
    for profile in &view.profiles {
        let removed = profile
            .removed
            .iter()
            .find(|removed| removed.endpoints.iter().any(|name| is_called(name, asked, view)));
        if let Some(removed) = removed {
            let _ = writeln!(
                text,
                "profile {}: {asked}: removed by filter {} ({})",
                profile.name, removed.filter, removed.r#type
            );
            continue;
        }
        let Some(row) = profile.rows.iter().find(|row| is_called(&row.endpoint, asked, view)) else {
            let _ =
                writeln!(text, "profile {}: {asked}: another endpoint was to be chosen from", profile.name);
            continue;
        };
        let sentence = if profile.picked.first() == Some(&row.endpoint) {
            of_winner(view, profile, &row.endpoint)
        } else {
            of_loser(view, profile, row)
        };
        let _ = writeln!(text, "profile {}: {sentence}", profile.name);
    }
}

fn foot(text: &mut String, view: &DecisionView) {
    for edit in &view.edits {
        let _ = match edit.value.as_str() {
            "" => writeln!(text, "header {} removed", edit.name),
            value => writeln!(text, "header {}: {value}", edit.name),
        };
    }
    if let Some(refusal) = &view.refusal {
        let _ = writeln!(text, "refused with {}: {} {}", refusal.status, refusal.reason, refusal.message);
        return;
    }
    let _ = writeln!(text, "outcome: {}", outcome(&view.outcome));
}

fn outcome(outcome: &OutcomeView) -> String {
    let mut parts = vec![outcome.state.clone()];
    if let Some(status) = outcome.status {
        parts.push(format!("status {status}"));
    }
    if let Some(endpoint) = &outcome.served_by {
        parts.push(format!("served by {endpoint}"));
    }
    if let Some(first) = outcome.ttft_ms {
        parts.push(format!("first byte after {first:.1} ms"));
    }
    if let Some(duration) = outcome.duration_ms {
        parts.push(format!("{duration:.1} ms in all"));
    }
    if let Some(usage) = &outcome.usage {
        parts
            .push(format!("{} prompt and {} generated tokens", usage.prompt_tokens, usage.completion_tokens));
    }
    let cached = outcome.usage.as_ref().and_then(|usage| usage.cached_tokens);
    match (cached, outcome.predicted_cached_tokens) {
        (Some(cached), Some(predicted)) => {
            parts.push(format!("{cached} tokens cached, {predicted} predicted"));
        }
        (Some(cached), None) => parts.push(format!("{cached} tokens cached")),
        (None, Some(predicted)) => parts.push(format!("{predicted} cached tokens predicted")),
        (None, None) => {}
    }
    parts.join(", ")
}

#[cfg(test)]
#[path = "explain_tests.rs"]
mod tests;
