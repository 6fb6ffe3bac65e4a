//! The chart, rendered by a real Helm.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

/// Runs Helm with these arguments in the project's folder.
pub(crate) fn helm(args: &[&str]) -> Output {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = root.join("target/kubernetes/helm");
    assert!(program.exists(), "no Helm at {}: run `make setup`", program.display());
    Command::new(program).args(args).current_dir(root).output().unwrap()
}

/// The objects of the chart for this release with these `--set` values.
pub(crate) fn template(release: &str, namespace: &str, sets: &[&str]) -> Vec<Value> {
    let mut args = vec![
        "template",
        release,
        "deploy/charts/pointsman",
        "--namespace",
        namespace,
        "--kube-version",
        "1.35.0",
    ];
    for set in sets {
        args.extend(["--set", set]);
    }
    let output = helm(&args);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    super::documents(&String::from_utf8(output.stdout).unwrap())
}
