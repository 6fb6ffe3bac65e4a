//! `pointsman migrate`: prints a configuration in the form of today.
//!
//! The document goes to standard output, with its comments where they can be kept; each edit, and what is left to do by
//! hand, goes to standard error. Exit code 0 if the printed document can be used, else 1.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;

use crate::config::{ConfigSource, LoadOptions, load, migrate};
use crate::document::Level;
use crate::metrics::Metrics;
use crate::plugins::Registry;

/// Flags of `migrate`.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct MigrateArgs {
    /// Configuration file (YAML or JSON)
    #[arg(long, value_name = "PATH", default_value = "", hide_default_value = true)]
    config_file: String,
    /// Configuration as text
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    config_text: String,
}

/// Migrates, and prints.
pub(super) fn run(args: &MigrateArgs, registry: Registry) -> ExitCode {
    let (mut out, mut told) = (io::stdout().lock(), io::stderr().lock());
    match report(args, registry, &mut out, &mut told).and_then(|good| out.flush().map(|()| good)) {
        Ok(true) => ExitCode::SUCCESS,
        // Nobody left to read the output is no fault of the configuration.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// Prints the document to `out` and the edits to `told`. True if the document can be used.
fn report(
    args: &MigrateArgs,
    registry: Registry,
    out: &mut impl Write,
    told: &mut impl Write,
) -> io::Result<bool> {
    let text = Some(args.config_text.clone());
    let source = match ConfigSource::from_flags(Some(args.config_file.clone().into()), text) {
        Ok(ConfigSource::BuiltIn) => {
            writeln!(told, "nothing to migrate: give --config-file or --config-text")?;
            return Ok(false);
        }
        Ok(source) => source,
        Err(message) => {
            writeln!(told, "{message}")?;
            return Ok(false);
        }
    };
    let migrated = match migrate(&source) {
        Ok(migrated) => migrated,
        Err(problems) => {
            writeln!(told, "{problems}")?;
            return Ok(false);
        }
    };
    out.write_all(migrated.text.as_bytes())?;
    for edit in &migrated.edits {
        writeln!(told, "edited: {edit}")?;
    }
    if !migrated.keeps_comments {
        writeln!(told, "the document is written anew, without its comments: its lines could not be edited")?;
    }
    let options = LoadOptions {
        allow_experimental: true,
        allow_missing: true,
        registry,
        ..LoadOptions::new(Arc::new(Metrics::new()))
    };
    let problems = match load(&ConfigSource::Text(migrated.text), &options) {
        Ok(plan) => plan.problems,
        Err(problems) => problems,
    };
    for problem in problems.iter().filter(|problem| problem.level != Level::Note) {
        let (level, path, message) = (problem.level.name(), &problem.path, &problem.message);
        let gap = if path.is_empty() { "" } else { ": " };
        writeln!(told, "left, {level}: line {} of the output: {path}{gap}{message}", problem.line)?;
    }
    let edits = migrated.edits.len();
    writeln!(told, "{}: {edits} edit{}", source.name(), if edits == 1 { "" } else { "s" })?;
    Ok(!problems.has_errors())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::REGISTRY;

    fn migrated(text: &str) -> (bool, String, String) {
        let args = MigrateArgs { config_text: text.to_owned(), ..MigrateArgs::default() };
        let (mut out, mut told) = (Vec::new(), Vec::new());
        let good = report(&args, REGISTRY, &mut out, &mut told).unwrap();
        (good, String::from_utf8(out).unwrap(), String::from_utf8(told).unwrap())
    }

    #[test]
    fn the_document_goes_to_one_stream_and_the_edits_to_the_other() {
        let (good, out, told) = migrated("# ours\nplugins:\n- type: kv-cache-scorer # kv\n");
        assert!(good, "{told}");
        assert_eq!(
            out,
            "# ours\nplugins:\n- type: kv-cache-utilization-scorer  # kv\n  name: kv-cache-scorer\n"
        );
        assert!(told.contains("edited: --config-text:3: plugins[0].type:"), "{told}");
        assert!(told.ends_with("--config-text: 1 edit\n"), "{told}");
    }

    #[test]
    fn what_nobody_can_translate_is_left_and_told() {
        let (good, out, told) = migrated("plugins:\n- type: qeue-scorer\n");
        assert!(!good);
        assert_eq!(out, "plugins:\n- type: qeue-scorer\n");
        assert!(told.contains("left, error: line 2 of the output: plugins[0].type"), "{told}");
        assert!(!migrated("").0, "there is nothing to migrate");
        assert!(!migrated("a: [").0);
    }
}
