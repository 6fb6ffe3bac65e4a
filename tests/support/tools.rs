//! Other people's programs that `make setup` brings, run to their end, and the YAML that they print.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The first of these paths within the project that exists.
pub(crate) fn tool(places: &[&str]) -> PathBuf {
    let found = places.iter().map(|place| Path::new(ROOT).join(place)).find(|place| place.exists());
    found.unwrap_or_else(|| panic!("no {}: run `make setup`", places.join(" and no ")))
}

/// Runs a program in the project's folder: whether it succeeded, standard output, and standard error.
pub(crate) fn run(program: &Path, args: &[&str]) -> (bool, String, String) {
    let output = Command::new(program).args(args).current_dir(ROOT).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

/// The documents of a YAML text; empty ones are left out.
pub(crate) fn documents(text: &str) -> Vec<Value> {
    let all: Vec<Value> = serde_saphyr::from_multiple(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    all.into_iter().filter(|document| !document.is_null()).collect()
}

/// Runs Helm with these arguments: whether it succeeded, standard output, and standard error.
pub(crate) fn helm(args: &[&str]) -> (bool, String, String) {
    run(&tool(&["target/kubernetes/helm"]), args)
}

/// The objects of the chart for this release with these further arguments, or what Helm has against them.
pub(crate) fn render(release: &str, namespace: &str, args: &[&str]) -> Result<Vec<Value>, String> {
    let usual = ["template", release, "deploy/charts/pointsman", "--namespace", namespace];
    // The Helm that is built from source takes the cluster for an ancient one.
    let version = ["--kube-version", "1.33.0"];
    let (good, out, error) = helm(&[&usual[..], &version, args].concat());
    if good { Ok(documents(&out)) } else { Err(error) }
}
