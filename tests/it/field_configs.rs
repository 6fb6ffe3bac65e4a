//! What teams run: every configuration document of the field data loads, or is refused for a reason that is counted
//! here.
//!
//! The data lies beside the checkout and is no part of it; without it the tests say so and pass.

#![allow(clippy::print_stdout, reason = "the tallies are for whoever runs the tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;

use pointsman::config::{ConfigSource, LoadOptions, load, migrate};
use pointsman::document::{Level, Problem, Problems};
use pointsman::metrics::Metrics;

/// Documents of the field that the newest reference takes, and how many of them load here. The second may rise, never
/// fall. One has a placeholder where the address of a render endpoint belongs, which nothing could ask.
const TAKEN: Tally = Tally { of: 147, load: 146 };
/// The same of those it no longer takes; documentation with `...` in it is among them. Since `token-producer` and the
/// precise prefix cache are built, their parameters are checked, and some of these documents have impossible ones.
const FORMER: Tally = Tally { of: 264, load: 220 };

/// Documents in today's form that the reference refused for want of the files that they name.
const WITHOUT_FILES: [&str; 2] = ["0076", "0524"];

/// Share of the documents without placeholders that load, of those that no release takes today.
const LEAST_SHARE: f64 = 0.85;

/// What stands where a value belongs in documents that are filled in elsewhere, or shortened.
const PLACEHOLDERS: &[&str] = &["...", "${", "{{", "<", "custom-"];

/// True for a document in which something is left to fill in.
fn has_placeholder(text: &str) -> bool {
    let values = text.lines().map(|line| line.split(" #").next().unwrap_or_default().trim());
    let values = values.filter(|line| !line.starts_with('#'));
    values
        .flat_map(|line| line.rsplit([' ', '"', '\'', '[', ',']).map(str::trim))
        .any(|value| PLACEHOLDERS.iter().any(|sign| value.starts_with(sign)) && value != "<<:")
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    of: usize,
    load: usize,
}

struct Sample {
    id: String,
    taken: bool,
    text: String,
}

/// The documents; `None` where the data is absent, which is printed.
fn samples() -> Option<Vec<Sample>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data/field/configs");
    let folder = if folder.exists() { folder } else { PathBuf::from(std::env::var_os("FIELD_CONFIGS")?) };
    let index = std::fs::read_to_string(folder.join("index.tsv")).ok()?;
    let mut samples = Vec::new();
    for row in index.lines().skip(1) {
        let mut cells = row.split('\t');
        let (Some(id), Some(takes)) = (cells.next(), cells.next()) else { continue };
        let text = std::fs::read_to_string(folder.join(format!("{id}.yaml"))).unwrap();
        samples.push(Sample { id: id.to_owned(), taken: takes == "y", text });
    }
    Some(samples)
}

fn samples_or_say() -> Option<Vec<Sample>> {
    let samples = samples();
    if samples.is_none() {
        println!("skipped: the field data is not there");
    }
    samples
}

/// What loading `text` says: all findings, and whether it loaded.
fn outcome(text: &str) -> (bool, Problems) {
    let mut options = LoadOptions::new(Arc::new(Metrics::new()));
    options.allow_experimental = true;
    // As `pointsman check` does.
    options.allow_missing = true;
    match load(&ConfigSource::Text(text.to_owned()), &options) {
        Ok(plan) => (true, plan.problems),
        Err(problems) => (false, problems),
    }
}

/// A missing plugin type is counted by its name, other faults by path and message without numbers.
fn reason(problem: &Problem) -> String {
    let path: String = problem.path.chars().filter(|letter| !letter.is_ascii_digit()).collect();
    format!("{path}: {}", problem.message)
}

#[test]
fn documents_of_the_field_load_as_often_as_they_did() {
    let Some(samples) = samples_or_say() else { return };
    let (mut taken, mut former) = (Tally::default(), Tally::default());
    let (mut whole, mut fragments) = (Tally::default(), Tally::default());
    let mut stops: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for sample in &samples {
        let (loads, problems) = catch_unwind(AssertUnwindSafe(|| outcome(&sample.text)))
            .unwrap_or_else(|_| panic!("{} panics", sample.id));
        let tally = if sample.taken { &mut taken } else { &mut former };
        tally.of += 1;
        tally.load += usize::from(loads);
        if !sample.taken {
            let tally = if has_placeholder(&sample.text) { &mut fragments } else { &mut whole };
            tally.of += 1;
            tally.load += usize::from(loads);
        }
        let warned = problems.of(Level::Warning).next().is_some();
        assert!(
            sample.taken || !loads || warned || WITHOUT_FILES.contains(&&*sample.id),
            "{} loads without a word; no release takes it today",
            sample.id
        );
        for problem in problems.of(Level::Error) {
            stops.entry(reason(problem)).or_default().insert(&sample.id);
        }
    }
    println!("taken by the newest reference: {} of {} load", taken.load, taken.of);
    println!("taken by an earlier one, or by none: {} of {} load", former.load, former.of);
    println!("  of these without placeholders: {} of {} load", whole.load, whole.of);
    println!(
        "  of these with placeholders (`...`, `${{X}}`, `<x>`): {} of {} load",
        fragments.load, fragments.of
    );
    assert!(whole.load as f64 >= LEAST_SHARE * whole.of as f64, "{whole:?}");
    let mut stops: Vec<_> = stops.into_iter().collect();
    stops.sort_by_key(|(_, ids)| std::cmp::Reverse(ids.len()));
    for (reason, ids) in stops {
        let some: Vec<&str> = ids.iter().copied().take(6).collect();
        println!("{:4} {reason} ({})", ids.len(), some.join(" "));
    }
    assert_eq!((taken.of, former.of), (TAKEN.of, FORMER.of), "the data changed");
    assert!(taken.load >= TAKEN.load && former.load >= FORMER.load, "{taken:?} {former:?}");
}

/// What a document comes to, without the words that describe it.
fn effect(text: &str) -> Option<String> {
    let mut options = LoadOptions::new(Arc::new(Metrics::new()));
    (options.allow_experimental, options.allow_missing) = (true, true);
    let plan = load(&ConfigSource::Text(text.to_owned()), &options).ok()?;
    let yaml = plan.effective_yaml();
    let rows = yaml.lines().filter(|row| !row.starts_with("- type:") && !row.starts_with("  name:"));
    let rows = rows.map(|row| row.split("  # ").next().unwrap_or_default().trim_end());
    Some(rows.filter(|row| !row.contains("parameters")).collect::<Vec<_>>().join("\n"))
}

#[test]
fn documents_of_the_field_migrate_and_load_without_the_warnings_that_were_answered() {
    let Some(samples) = samples_or_say() else { return };
    let (mut edited, mut kept, mut same) = (0, 0, 0);
    for sample in &samples {
        let Ok(migrated) = migrate(&ConfigSource::Text(sample.text.clone())) else { continue };
        let again = migrate(&ConfigSource::Text(migrated.text.clone())).unwrap();
        assert!(again.edits.is_empty(), "{}: {:?}", sample.id, again.edits);
        let ((loaded, before), (loads, after)) = (outcome(&sample.text), outcome(&migrated.text));
        assert_eq!(loads, loaded, "{}: {before}\n{after}\n{}", sample.id, migrated.text);
        let warned = |problems: &Problems, message: &str| {
            problems.of(Level::Warning).any(|problem| problem.message == message)
        };
        for edit in &migrated.edits {
            assert!(!warned(&after, &edit.message), "{}: {edit}", sample.id);
        }
        let new = after.of(Level::Warning).filter(|problem| !warned(&before, &problem.message));
        let new: Vec<String> = new.map(ToString::to_string).collect();
        if !new.is_empty() {
            println!("{} has new warnings: {new:?}", sample.id);
        }
        if !migrated.edits.is_empty() {
            edited += 1;
            kept += usize::from(migrated.keeps_comments);
        }
        if effect(&sample.text) == effect(&migrated.text) {
            same += 1;
        } else {
            println!("{} is printed differently", sample.id);
        }
    }
    println!(
        "{edited} documents are edited, {kept} with their comments; {same} of {} come to the same",
        samples.len()
    );
    // Thresholds of a detector that are parameters now are printed elsewhere.
    assert!(same + 1 >= samples.len() && kept == edited, "{same} {kept}");
}
