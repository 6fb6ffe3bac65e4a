//! Rules on files: they need no running process, so `pointsman check` has them too.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use clap::Args as _;
use serde_json::Value;

use crate::cli::ServeFlags;
use crate::cli::arguments::make_readable;
use crate::config::{ConfigSource, LoadOptions, load};
use crate::doctor::configuration::{self, Remark};
use crate::doctor::waits::Waits;
use crate::doctor::{Finding, envoy};
use crate::document::{self, Level, Problems};
use crate::metrics::Metrics;
use crate::plugins::{REGISTRY, Registry};

/// Longest file that is read, in bytes.
const LONGEST: u64 = 16 << 20;

/// A document of YAML in a text of JSON; null if it is none.
pub(in crate::cli) fn document(text: &Value) -> Value {
    let parsed = text.as_str().and_then(|text| document::parse(text).ok().flatten());
    parsed.map_or(Value::Null, |node| node.to_json())
}

/// The effective configuration of a file, null if it has errors, and what is wrong with it.
pub(super) fn configuration(file: &Path, registry: Option<Registry>) -> (Value, Vec<Finding>) {
    let options = LoadOptions {
        allow_experimental: true,
        allow_missing: true,
        registry: registry.unwrap_or(REGISTRY),
        ..LoadOptions::new(Arc::new(Metrics::new()))
    };
    match load(&ConfigSource::File(file.to_owned()), &options) {
        Ok(plan) => {
            let effective = document(&Value::String(plan.effective_yaml()));
            (effective, configuration::findings(&remarks(&plan.problems)))
        }
        Err(problems) => (Value::Null, configuration::findings(&remarks(&problems))),
    }
}

fn remarks(problems: &Problems) -> Vec<Remark> {
    let told = problems.iter().filter(|problem| problem.level != Level::Note);
    told.map(|problem| Remark {
        refused: problem.level == Level::Error,
        place: format!("{}:{}: {}", problem.source, problem.line, problem.path),
        message: problem.message.clone(),
        mend: problem.remedy.clone(),
    })
    .collect()
}

/// What is wrong with the file that Envoy starts with.
pub(in crate::cli) fn envoy_file(path: &Path, waits: Option<Waits>) -> Vec<Finding> {
    let name = path.display().to_string();
    let unreadable = |problem: String| {
        let mend = format!("`envoy --mode validate -c {name}` says what is wrong with it");
        vec![envoy::UNREACHABLE.found(&name, problem, mend)]
    };
    match read(path) {
        Err(error) => unreadable(format!("cannot be read: {error}")),
        Ok(text) => match document::parse(&text) {
            Ok(Some(node)) => {
                let mut found = envoy::findings(&name, &envoy::EnvoyFacts::of_file(&node.to_json()), waits);
                for finding in &mut found {
                    if finding.subject != name {
                        finding.subject = format!("{name}: {}", finding.subject);
                    }
                }
                found
            }
            Ok(None) => unreadable("is empty".to_owned()),
            Err(error) => unreadable(format!("is no YAML: {error}")),
        },
    }
}

/// Older names of series in a file of alerts or a dashboard. A file that cannot be read is a finding too.
pub(in crate::cli) fn monitoring(path: &Path) -> Vec<Finding> {
    let name = path.display().to_string();
    match read(path) {
        Ok(text) => crate::doctor::monitoring::older_names(&name, &text),
        Err(error) => configuration::findings(&[Remark {
            refused: true,
            place: name,
            message: format!("cannot be read: {error}"),
            mend: Some("`--monitoring FILE` of a file that can be read".to_owned()),
        }]),
    }
}

/// What is wrong with flags of `serve`.
pub(in crate::cli) fn flags(subject: &str, words: &[String]) -> Vec<Finding> {
    let command = ServeFlags::augment_args(clap::Command::new("pointsman"));
    let line = std::iter::once("pointsman".into()).chain(words.iter().map(Into::into));
    let readable = make_readable(line, &command);
    let mut found = configuration::flags(subject, &readable.warnings);
    found.extend(configuration::flags(subject, &readable.problems));
    if let Err(error) = command.args_override_self(true).try_get_matches_from(readable.arguments)
        && error.use_stderr()
    {
        let first = error.to_string().lines().next().unwrap_or_default().to_owned();
        let remark = Remark { refused: true, place: subject.to_owned(), message: first, mend: None };
        found.extend(configuration::findings(&[remark]));
    }
    found
}

fn read(path: &Path) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(LONGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LONGEST {
        return Err(std::io::Error::other(format!("it has more than {LONGEST} bytes")));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
