//! Names, labels and buckets of every series, as they were recorded.

use std::fmt::Write;

use super::tests::exercised;
use super::{Format, Metrics};

/// What follows the bound's opening quote in a line of a bucket. Other labels may end like this one.
fn bound_of(line: &str) -> Option<&str> {
    let parts = line.split_once("{le=\"").or_else(|| line.split_once(",le=\""));
    parts.map(|(_, rest)| rest)
}

/// One line for each family: type, name, labels, buckets.
fn shapes(metrics: &Metrics) -> String {
    let page = metrics.encode(Format::Text);
    let mut shapes = String::new();
    let mut lines = page.lines().peekable();
    while let Some(line) = lines.next() {
        let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) else {
            continue;
        };
        if name.starts_with("process_") {
            continue;
        }
        let sample = lines.peek().copied().unwrap_or_default();
        let labels: Vec<&str> = sample
            .split_once('{')
            .map_or("", |(_, rest)| rest.rsplit_once('}').map_or("", |(labels, _)| labels))
            .split("\",")
            .filter_map(|pair| pair.split_once('=').map(|(label, _)| label))
            .filter(|label| *label != "le")
            .collect();
        let mut bounds = String::new();
        while let Some(rest) = lines.peek().and_then(|line| bound_of(line)) {
            let bound = rest.split_once('"').map_or("", |(bound, _)| bound);
            bounds = format!("{bounds} {bound}");
            lines.next();
        }
        writeln!(shapes, "{kind} {name}{{{}}}{bounds}", labels.join(",")).unwrap();
    }
    shapes
}

#[test]
fn names_labels_and_buckets_are_the_recorded_ones() {
    let golden = include_str!("../../tests/data/metrics_golden.txt");
    let (metrics, _pool) = exercised();
    let shapes = shapes(&metrics);
    let missing: Vec<&str> =
        golden.lines().filter(|line| !shapes.lines().any(|shape| shape == *line)).collect();
    let new: Vec<&str> = shapes.lines().filter(|line| !golden.lines().any(|shape| shape == *line)).collect();
    assert!(missing.is_empty() && new.is_empty(), "missing: {missing:#?}\nnew: {new:#?}\nall:\n{shapes}");
}
