//! `pointsman sidecar`: flags of all released sidecars, and the wiring of ours.

mod flags;
#[cfg(test)]
mod flags_tests;
mod help;
mod run;
mod settings;
mod values;

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

pub(super) use run::run;

/// Names by which manifests call a sidecar in its image.
const NAMES: [&str; 2] = ["pd-sidecar", "llm-d-routing-sidecar"];

/// True if the program was called by a sidecar's name.
pub(super) fn called(program: &OsStr) -> bool {
    Path::new(program).file_name().and_then(OsStr::to_str).is_some_and(|name| NAMES.contains(&name))
}

/// Runs the command with the words behind its name.
pub(super) fn command(words: &[OsString]) -> ExitCode {
    run(words)
}
