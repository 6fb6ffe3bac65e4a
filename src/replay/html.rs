//! Writes a comparison as one HTML page without other files.

use std::fmt::Write as _;

use super::compare::{Comparison, EndpointShare};
use super::play::Played;
use crate::decisions::Regret;

const STYLE: &str = "body{font:15px/1.45 system-ui,sans-serif;margin:2em auto;max-width:70em;padding:0 1em}\
:root{color-scheme:light dark}table{border-collapse:collapse;margin:1em 0}td,th{padding:.25em .7em;text-align:right;\
border-bottom:1px solid #8884}td:first-child,th:first-child{text-align:left}figure{margin:1.5em 0}svg{width:100%;\
height:auto}svg text{font-size:11px;fill:currentColor}figcaption{opacity:.75}";

/// Two colours that colour-blind readers can tell apart.
const COLOURS: [&str; 2] = ["#0072b2", "#d55e00"];
/// The most endpoints in a plot, and the most rows in a table.
const PLOTTED: usize = 50;
const ROWS: usize = 1000;
/// The number of columns in the plot of the regret.
const BINS: usize = 20;

/// Reads one figure of an endpoint, for both configurations.
type Read = fn(&EndpointShare) -> [u64; 2];

pub(super) fn page(played: &Played, other: &str) -> String {
    let mut out = String::new();
    let _ = write!(
        out,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>Replay</title><style>{STYLE}</style></head><body>\
         <h1>Replay of {} decisions</h1>",
        played.decisions
    );
    let _ = write!(
        out,
        "<p>{} requests were refused before any profile ran. The configuration of the capture decides {} decisions \
         differently when they are made again.</p>",
        played.refused, played.differing
    );
    if let Some(first) = &played.first_difference {
        let _ = write!(out, "<p>First difference: {}</p>", escaped(first));
    }
    if let Some(comparison) = &played.comparison {
        compared(&mut out, comparison, &escaped(other));
    }
    if !played.notes.is_empty() {
        out.push_str("<h2>Notes</h2><ul>");
        for note in &played.notes {
            let _ = write!(out, "<li>{}</li>", escaped(note));
        }
        out.push_str("</ul>");
    }
    out.push_str("</body></html>\n");
    out
}

fn compared(out: &mut String, comparison: &Comparison, other: &str) {
    let share = comparison.differ as f64 / comparison.decisions.max(1) as f64 * 100.0;
    let _ = write!(
        out,
        "<h2>The capture and {other}</h2><p>{other} chooses another endpoint in <b>{} of {} decisions</b> ({share:.1} \
         %). It finds no endpoint for {} requests more. {} requests belong to a conversation that is on a server.</p>\
         <p>Each decision is judged from the figures that were real at its time. What would have happened afterwards is \
         not known: <b>latency is not predicted here</b>.</p>",
        comparison.differ, comparison.decisions, comparison.refused_by_other, comparison.bound
    );
    out.push_str("<table><tr><th>regret<th>sum<th>most<th>ruled out</tr>");
    for (whose, Regret { sum, most, ruled_out }) in [
        (format!("{other} under the capture"), comparison.regret_of_other),
        (format!("the capture under {other}"), comparison.regret_of_captured),
    ] {
        let _ = write!(out, "<tr><td>{whose}<td>{sum:.4}<td>{most:.4}<td>{ruled_out}</tr>");
    }
    out.push_str("</table><table><tr><th>profile<th>runs<th>choose another endpoint</tr>");
    for (name, [both, differ]) in &comparison.profiles {
        let _ = write!(out, "<tr><td>{}<td>{both}<td>{differ}</tr>", escaped(name));
    }
    out.push_str("</table>");
    let rows: Vec<(&String, &EndpointShare)> = comparison.endpoints.iter().collect();
    let plots: [(&str, Read); 3] = [
        ("Requests", |share| share.requests),
        ("Prompt tokens", |share| share.tokens),
        ("Predicted cached tokens", |share| share.cached_tokens),
    ];
    for (title, read) in plots {
        bars(out, &format!("{title} by endpoint: the capture (blue) and {other} (orange)."), &rows, read);
    }
    let regrets = comparison.differences.iter().filter_map(|difference| difference.regret_of_other);
    distribution(
        out,
        &format!("Regret of {other} under the capture: number of decisions."),
        &regrets.collect::<Vec<_>>(),
    );
    table(out, &rows, comparison.total());
}

fn table(out: &mut String, rows: &[(&String, &EndpointShare)], total: EndpointShare) {
    out.push_str(
        "<table><tr><th>endpoint<th colspan=2>requests<th colspan=2>prompt tokens<th colspan=2>predicted cached \
         tokens</tr>",
    );
    let name = "all".to_owned();
    for (name, share) in rows.iter().copied().take(ROWS).chain([(&name, &total)]) {
        let _ = write!(out, "<tr><td>{}", escaped(name));
        for [before, after] in [share.requests, share.tokens, share.cached_tokens] {
            let _ = write!(out, "<td>{before}<td>{after}");
        }
        out.push_str("</tr>");
    }
    out.push_str("</table>");
}

fn bars(out: &mut String, caption: &str, rows: &[(&String, &EndpointShare)], read: Read) {
    let rows = rows.get(..PLOTTED).unwrap_or(rows);
    let most = rows.iter().flat_map(|(_, share)| read(share)).max().unwrap_or(0).max(1) as f64;
    let height = rows.len() * 26 + 6;
    let _ = write!(out, "<figure><svg viewBox=\"0 0 800 {height}\" role=\"img\" aria-label=\"{caption}\">");
    for (row, (name, share)) in rows.iter().enumerate() {
        let top = row * 26 + 4;
        let label: String = name.chars().take(36).collect();
        let _ = write!(out, "<text x=\"0\" y=\"{}\">{}</text>", top + 14, escaped(&label));
        for (side, value) in read(share).into_iter().enumerate() {
            let (y, width) = (top + side * 11, value as f64 / most * 440.0);
            let colour = COLOURS[side];
            let _ = write!(
                out,
                "<rect x=\"240\" y=\"{y}\" width=\"{width:.1}\" height=\"10\" fill=\"{colour}\"/><text x=\"{:.1}\" \
                 y=\"{}\">{value}</text>",
                width + 246.0,
                y + 9
            );
        }
    }
    let _ = write!(out, "</svg><figcaption>{caption}</figcaption></figure>");
}

fn distribution(out: &mut String, caption: &str, values: &[f64]) {
    let most = values.iter().copied().fold(0.0, f64::max);
    if values.is_empty() || most <= 0.0 {
        return;
    }
    let mut bins = [0_u64; BINS];
    for value in values {
        let bin = (value.max(0.0) / most * BINS as f64) as usize;
        bins[bin.min(BINS - 1)] += 1;
    }
    let top = bins.iter().copied().max().unwrap_or(1).max(1) as f64;
    let _ = write!(out, "<figure><svg viewBox=\"0 0 800 180\" role=\"img\" aria-label=\"{caption}\">");
    for (index, count) in bins.iter().enumerate() {
        let (x, tall) = (index as f64 * 40.0, *count as f64 / top * 130.0);
        let _ = write!(
            out,
            "<rect x=\"{:.0}\" y=\"{:.1}\" width=\"36\" height=\"{tall:.1}\" fill=\"{}\"/><text x=\"{:.0}\" \
             y=\"{:.1}\">{count}</text><text x=\"{:.0}\" y=\"172\">{:.3}</text>",
            x + 2.0,
            155.0 - tall,
            COLOURS[0],
            x + 4.0,
            151.0 - tall,
            x + 2.0,
            index as f64 / BINS as f64 * most
        );
    }
    let _ = write!(out, "</svg><figcaption>{caption}</figcaption></figure>");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
