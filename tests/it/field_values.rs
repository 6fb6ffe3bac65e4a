//! Helm values that people use, for the charts `inferencepool` 0.3 to 1.5 and `llm-d-router-*`, with this chart.
//!
//! They lie beside the project as data and are no part of it; without them the tests say so. Every file is rendered as
//! it is, and the rendered picker is started: the real program, with the arguments and the configuration of the pod,
//! and with endpoints from a file in the place of the cluster.

#![allow(clippy::print_stdout, reason = "the tallies are for whoever runs the tests")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use parking_lot::Mutex;
use serde_json::Value;

use crate::support::{self, field, program};

/// Name of the release.
const RELEASE: &str = "field";
/// Of a hundred files of each kind, at least so many render.
const RENDERING: [(&str, usize); 2] = [("gie", 97), ("router", 95)];
/// Of a hundred rendered pods, at least so many start. It may rise, never fall. The chart gives
/// `--allow-missing-plugins`, so plugin types that are not built yet are in nobody's way.
const STARTING: usize = 94;

/// What became of one file.
enum Outcome {
    Refused(String),
    Rendered { warnings: usize, started: Result<(), String> },
}

/// The files, by kind; `None` without the data.
fn files() -> Option<Vec<(&'static str, PathBuf)>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/field/values");
    let folder = std::env::var_os("POINTSMAN_FIELD_VALUES").map_or(folder, PathBuf::from);
    let mut all: Vec<_> = std::fs::read_dir(folder)
        .ok()?
        .filter_map(|file| {
            let path = file.unwrap().path();
            let name = path.file_stem()?.to_str()?.to_owned();
            let kind = RENDERING.iter().find(|(kind, _)| name.ends_with(&format!("-{kind}")))?.0;
            Some((kind, path))
        })
        .collect();
    all.sort();
    Some(all)
}

/// Renders the file and starts what it renders.
fn try_file(path: &Path) -> Outcome {
    let objects = match support::render(RELEASE, "default", &["--values", path.to_str().unwrap()]) {
        Ok(objects) => objects,
        Err(error) => return Outcome::Refused(error),
    };
    let deployment = of_kind(&objects, "Deployment");
    let said = &deployment["metadata"]["annotations"]["pointsman/values"];
    Outcome::Rendered {
        warnings: said.as_str().map_or(0, |text| text.lines().count()),
        started: start(&objects, deployment),
    }
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    let wanted = format!("{RELEASE}-epp");
    let named = |object: &&Value| object["kind"] == kind && object["metadata"]["name"] == wanted.as_str();
    objects.iter().find(named).unwrap_or_else(|| panic!("no {kind} {wanted}"))
}

/// Starts the picker's container: its configuration from the rendered ConfigMap, and a file of endpoints in the place
/// of the API server.
fn start(objects: &[Value], deployment: &Value) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    let inside = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(inside("endpoints.yaml"), "endpoints: []\n").unwrap();
    for (name, text) in of_kind(objects, "ConfigMap")["data"].as_object().unwrap() {
        std::fs::write(inside(name), beside(text.as_str().unwrap(), &inside("endpoints.yaml"))).unwrap();
    }
    // The certificate of replicas is a Secret of the release, which the pod mounts.
    let secrets = objects.iter().filter(|object| object["kind"] == "Secret");
    for (name, encoded) in secrets.filter_map(|secret| secret["data"].as_object()).flatten() {
        let bytes = BASE64_STANDARD.decode(encoded.as_str().unwrap()).unwrap();
        std::fs::write(inside(name), bytes).unwrap();
    }
    let containers = deployment["spec"]["template"]["spec"]["containers"].as_array().unwrap();
    let picker = containers.iter().find(|container| container["name"] == "epp").unwrap();
    // Replicas are found through the cluster, which is not there: they are named instead.
    let replicas = format!("--peer-service={RELEASE}-epp-peers");
    let args = picker["args"].as_array().unwrap().iter().map(|arg| {
        let arg = arg
            .as_str()
            .unwrap()
            .replace("$(NAMESPACE)", "default")
            .replace(&replicas, "--peers=127.0.0.1:9");
        let arg =
            arg.replace("--peer-cert-dir=/peers", &format!("--peer-cert-dir={}", folder.path().display()));
        arg.replace("--config-file=/config/", &format!("--config-file={}/", folder.path().display()))
    });
    let mut environment = BTreeMap::new();
    for variable in picker["env"].as_array().unwrap() {
        let value = variable["value"].as_str().unwrap_or("filled-in");
        environment.insert(variable["name"].as_str().unwrap(), value);
    }
    run(args.collect(), &environment)
}

/// The configuration with discovery from this file. What has no plugins or cannot be read stays as it is, and the
/// program says what it has against it.
fn beside(text: &str, endpoints: &str) -> String {
    let Ok(mut document) = serde_saphyr::from_str::<Value>(text) else { return text.to_owned() };
    let Some(plugins) = document.get_mut("plugins").and_then(Value::as_array_mut) else {
        return text.to_owned();
    };
    plugins.push(serde_json::json!({
        "type": "file-discovery", "name": "beside", "parameters": {"path": endpoints, "watchFile": false},
    }));
    let data = document.get("dataLayer").is_some_and(Value::is_object);
    if !data {
        document["dataLayer"] = serde_json::json!({});
    }
    document["dataLayer"]["discovery"] = serde_json::json!({"pluginRef": "beside"});
    document.to_string()
}

fn run(args: Vec<String>, environment: &BTreeMap<&str, &str>) -> Result<(), String> {
    let ports = "--bind-address 127.0.0.1 --print-addresses --grpc-port 0 --grpc-health-port 0 --metrics-port 0 --metrics-endpoint-auth=false";
    let mut picker = Command::new(program());
    picker.args(args).args(ports.split(' ')).envs(environment);
    field::started(picker.env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")).map(|_| ())
}

/// What the program has against the configuration, each fault once; else its last line.
fn reasons(said: &str) -> Vec<String> {
    let read = |line: &str| {
        let line: Value = serde_json::from_str(line).ok()?;
        Some(line["problem"].as_str().filter(|_| line["level"] == "error")?.to_owned())
    };
    let all: Vec<String> = said.lines().filter_map(read).collect();
    if all.is_empty() { said.lines().last().map(str::to_owned).into_iter().collect() } else { all }
}

/// What became of the files of one kind.
#[derive(Default)]
struct Tally {
    files: usize,
    rendered: usize,
    warned: usize,
    started: usize,
}

impl Tally {
    fn add(&mut self, name: &str, outcome: &Outcome) {
        self.files += 1;
        match outcome {
            Outcome::Refused(error) => println!("{name} is refused: {}", error.trim()),
            Outcome::Rendered { warnings, started } => {
                self.rendered += 1;
                self.warned += usize::from(*warnings > 0);
                match started {
                    Ok(()) => self.started += 1,
                    Err(said) => {
                        println!("{name} does not start: {}", reasons(said).join("; "));
                    }
                }
            }
        }
    }

    fn print(&self, kind: &str) {
        println!(
            "{kind}: {} of {} render, {} of them with warnings; {} start",
            self.rendered, self.files, self.warned, self.started
        );
    }
}

#[test]
fn values_that_people_use_render_and_what_they_render_starts() {
    let Some(files) = files() else {
        println!(
            "SKIPPED: there is no ../shared/data/field/values, nor a folder that POINTSMAN_FIELD_VALUES names"
        );
        return;
    };
    let outcomes = Mutex::new(Vec::new());
    field::try_each(&files, |(kind, path)| {
        let outcome = try_file(path);
        outcomes.lock().push((*kind, path, outcome));
    });
    let mut outcomes = outcomes.into_inner();
    outcomes.sort_by_key(|(_, path, _)| *path);
    let mut few = Vec::new();
    let mut all = Tally::default();
    for (kind, least) in RENDERING {
        let mut tally = Tally::default();
        for (_, path, outcome) in outcomes.iter().filter(|(other, ..)| *other == kind) {
            tally.add(path.file_name().unwrap().to_str().unwrap(), outcome);
        }
        tally.print(kind);
        if tally.rendered * 100 < least * tally.files {
            few.push(kind);
        }
        all.rendered += tally.rendered;
        all.started += tally.started;
    }
    println!("{} of {} rendered pods start", all.started, all.rendered);
    assert!(few.is_empty(), "too many values are refused: {few:?}");
    assert!(all.started * 100 >= STARTING * all.rendered, "too few of the rendered pods start");
}
