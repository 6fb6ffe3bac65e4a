//! Command lines that people run, from public manifests and charts of all versions of the reference.
//!
//! They lie beside the project as data and are no part of it; without them the test says so. Values that are filled in
//! elsewhere are filled in here, the configuration is one with file discovery, and ports are those that the system
//! chooses.

use std::path::{Path, PathBuf};
use std::process::Command;

use parking_lot::Mutex;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{SCORERS, config, field, program};

/// Of a hundred lines, at least so many start.
const STARTING: usize = 95;

/// Certificate, endpoints and configuration, for every line the same.
struct Files {
    folder: TempDir,
}

impl Files {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(folder.path().join("tls.crt"), signed.cert.pem()).unwrap();
        std::fs::write(folder.path().join("tls.key"), signed.signing_key.serialize_pem()).unwrap();
        std::fs::write(folder.path().join("endpoints.yaml"), "endpoints: []\n").unwrap();
        let text = config(&folder.path().join("endpoints.yaml"), SCORERS);
        std::fs::write(folder.path().join("epp.yaml"), text).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn text(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("epp.yaml")).unwrap()
    }

    /// The line with everything filled in. What it says of ports, files and the configuration stays, with values that
    /// fit here.
    fn fill(&self, line: &[String]) -> Vec<String> {
        let mut filled: Vec<String> = Vec::new();
        let mut configured = false;
        for word in line {
            let word = alternative(word);
            let of = filled.last().map(|before| flag_name(before)).unwrap_or_default();
            let (flag, value) = match word.split_once('=').filter(|_| word.starts_with('-')) {
                Some((flag, value)) => (format!("{flag}="), value),
                None => (String::new(), word.as_str()),
            };
            let of = if flag.is_empty() { of } else { flag_name(&flag) };
            let value = match of.as_str() {
                "configfile" => self.path("epp.yaml"),
                "configtext" => self.text(),
                "certpath" => self.path(""),
                _ => fill_in(value, &of),
            };
            configured |= of.starts_with("config");
            filled.push(format!("{flag}{value}"));
        }
        if !configured {
            filled.extend(["--config-text".to_owned(), self.text()]);
        }
        let ports =
            "--bind-address 127.0.0.1 --print-addresses --grpc-port 0 --grpc-health-port 0 --metrics-port 0";
        filled.extend(ports.split(' ').map(str::to_owned));
        filled
    }
}

/// Of the alternatives of a condition the first that is a flag; other words as they are.
fn alternative(word: &str) -> String {
    let first = word.split("TPL").find(|part| part.starts_with("--")).filter(|_| word.starts_with("TPL--"));
    first.unwrap_or(word).to_owned()
}

/// A flag's name, in whatever spelling; empty for other words.
fn flag_name(word: &str) -> String {
    let name = word.strip_prefix("--").or_else(|| word.strip_prefix('-')).unwrap_or_default();
    name.trim_end_matches('=').replace('-', "").to_ascii_lowercase()
}

/// The value of a flag, with placeholders filled in.
fn fill_in(value: &str, flag: &str) -> String {
    if value == "--TPL" {
        // A chart's loop over whatever flags its user gives.
        return "--v".to_owned();
    }
    if let Some((_, default)) =
        value.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')?.split_once(":-"))
    {
        return default.to_owned();
    }
    let is_placeholder = value.contains("TPL") || value.contains('$');
    if !is_placeholder {
        return value.to_owned();
    }
    match flag {
        "v" | "tpl" => "2",
        "poolgroup" => "inference.networking.k8s.io",
        "refreshmetricsinterval" => "50ms",
        port if port.ends_with("port") => "0",
        switch if switch.contains("serving") || switch.contains("auth") || switch.contains("election") => {
            "true"
        }
        _ => "filled-in",
    }
    .to_owned()
}

/// Starts the program with this line until it listens; `Err` is what it says else.
fn start(line: &[String]) -> Result<Vec<String>, String> {
    let said = field::started(Command::new(program()).args(line))?;
    Ok(said.lines().map(str::to_owned).collect())
}

/// The lines, by their number; `None` without the data.
fn lines() -> Option<Vec<(u64, Vec<String>)>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/field/args.jsonl");
    let path = std::env::var_os("POINTSMAN_FIELD_ARGS").map_or(path, PathBuf::from);
    let text = std::fs::read_to_string(path).ok()?;
    let read = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        let args = line["args"].as_array().unwrap();
        (line["id"].as_u64().unwrap(), args.iter().map(|arg| arg.as_str().unwrap().to_owned()).collect())
    };
    Some(text.lines().map(read).collect())
}

#[test]
fn command_lines_that_people_run_start() {
    let Some(lines) = lines() else {
        println!(
            "SKIPPED: there is no ../shared/data/field/args.jsonl, nor a file that POINTSMAN_FIELD_ARGS names"
        );
        return;
    };
    let files = Files::new();
    let (refused, unwarned) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    field::try_each(&lines, |(id, line)| {
        let filled = files.fill(line);
        match start(&filled) {
            Err(said) => refused.lock().push(format!("{id}: {filled:?}\n{said}")),
            Ok(said) => {
                let early = line
                    .iter()
                    .any(|word| word.starts_with('-') && word.contains("pool") && word.contains('N'));
                if early && !said.iter().any(|line| line.contains("is spelled --pool-n")) {
                    unwarned.lock().push(*id);
                }
            }
        }
    });
    let (refused, unwarned) = (refused.into_inner(), unwarned.into_inner());
    println!("{} of {} command lines start", lines.len() - refused.len(), lines.len());
    for line in &refused {
        println!("refused {line}");
    }
    assert!(unwarned.is_empty(), "spelled in the old way without a warning: {unwarned:?}");
    assert!((lines.len() - refused.len()) * 100 >= STARTING * lines.len(), "too many are refused");
}

/// Starts with these words; all that is said.
fn started(words: &[&str]) -> Vec<String> {
    let line: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
    start(&Files::new().fill(&line)).unwrap_or_else(|said| panic!("{words:?}\n{said}"))
}

#[test]
fn flags_whose_feature_is_not_there_are_taken_and_the_log_says_what_is_not_in_force() {
    let said = started(&[
        "-enable-latency-predictor",
        "--epp-mode",
        "stateless",
        "--stateful-epp-address=epp:9010",
        "--fairness-id-header-key=x-tenant",
        "--plugin-state-staleness-threshold",
        "10m",
        "",
        "--v=TRACE",
        "--kubeconfig",
        "",
        "--fairness-id-metric-label-limit=20",
    ])
    .join("\n");
    for expected in [
        "flag --enable-latency-predictor has no effect",
        "flag --epp-mode has no effect",
        "flag --stateful-epp-address has no effect",
        "flag --fairness-id-header-key has no effect",
        "flag --plugin-state-staleness-threshold has no effect",
    ] {
        assert_eq!(said.matches(expected).count(), 1, "{expected}: {said}");
    }
    assert!(!said.contains("--kubeconfig") && !said.contains("label-limit"), "{said}");
}

#[test]
fn an_unknown_flag_ends_the_start_with_64_in_whatever_spelling() {
    for flag in ["--no-such-flag", "-noSuchFlag=1", "--pool_name=x", "--poolNames", "--model-server-metrics"]
    {
        let output = Command::new(program()).args([flag, "--config-text", "x"]).output().unwrap();
        assert_eq!(output.status.code(), Some(64), "{flag}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("unexpected argument"), "{flag}: {said}");
    }
}

#[test]
fn feature_gates_of_the_command_line_count_over_those_of_the_configuration() {
    let said = started(&["--feature-gates", "flowControl=true,haPopulateNonLeaderDatastore"]).join("\n");
    assert!(!said.contains("feature-gates"), "{said}");
    let files = Files::new();
    let line = files.fill(&["--feature-gates=flowControll".to_owned()]);
    let said = start(&line).unwrap_err();
    assert!(said.contains("unknown feature gate") && said.contains("flowControl"), "{said}");
}

#[test]
fn a_kubeconfig_that_is_not_there_is_named() {
    let line = ["--pool-name", "p", "--kubeconfig", "/does/not/exist", "--metrics-port", "0"];
    let output = Command::new(program())
        .args(line)
        .args(["--grpc-port", "0", "--grpc-health-port", "0", "--bind-address", "127.0.0.1"])
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        !output.status.success() && said.contains("--kubeconfig") && said.contains("/does/not/exist"),
        "{said}"
    );
}
