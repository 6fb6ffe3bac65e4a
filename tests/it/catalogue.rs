//! `pointsman plugins` and `pointsman schema`.

use std::path::Path;
use std::process::{Command, Output};

use pointsman::document;
use serde_json::{Value, json};

use crate::support::program;

fn pointsman(arguments: &[&str]) -> Output {
    Command::new(program()).args(arguments).output().unwrap()
}

fn printed(arguments: &[&str]) -> String {
    let output = pointsman(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn value(yaml: &str) -> Option<Value> {
    document::parse(yaml).ok().flatten().map(|node| node.to_json())
}

/// Every configuration in the repository, be it a file or a block of a page, with where it stands.
fn configurations() -> Vec<(String, Value)> {
    let mut found = Vec::new();
    let mut take = |place: String, text: &str| {
        found.extend(
            value(text).filter(|value| value["kind"] == "EndpointPickerConfig").map(|value| (place, value)),
        );
    };
    for entry in std::fs::read_dir(root().join("config")).unwrap() {
        let path = entry.unwrap().path();
        take(path.display().to_string(), &std::fs::read_to_string(&path).unwrap());
    }
    for entry in std::fs::read_dir(root().join("docs")).unwrap() {
        let path = entry.unwrap().path();
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        for (index, block) in text.split("```yaml\n").skip(1).enumerate() {
            take(format!("{} block {index}", path.display()), block.split("```").next().unwrap());
        }
    }
    found
}

#[test]
fn every_configuration_of_the_repository_fits_the_schema_that_is_printed() {
    let schema: Value = serde_json::from_str(&printed(&["schema"])).unwrap();
    jsonschema::draft202012::meta::validate(&schema).unwrap();
    let own: jsonschema::Validator = jsonschema::draft202012::new(&schema).unwrap();
    let configurations = configurations();
    assert!(configurations.len() > 50, "{}", configurations.len());
    for (place, configuration) in configurations {
        // The page on own plugins has a type that the built-in schema does not know.
        let faults: Vec<String> = own.iter_errors(&configuration).map(|fault| fault.to_string()).collect();
        assert!(faults.is_empty() || place.contains("own-plugins.md"), "{place}: {faults:?}");
    }
}

#[test]
fn the_schema_finds_misspelt_fields_types_and_parameters() {
    let schema: Value = serde_json::from_str(&printed(&["schema"])).unwrap();
    let own = jsonschema::draft202012::new(&schema).unwrap();
    let fits = |plugins: Value| own.is_valid(&json!({"plugins": plugins}));
    assert!(fits(json!([{"type": "load-aware-scorer", "parameters": {"threshold": 3}}])));
    assert!(fits(json!([{"type": "queue-scorer", "name": "q", "parameters": null}])));
    assert!(!fits(json!([{"type": "load-aware-scorer", "parameters": {"threshhold": 3}}])));
    assert!(!fits(json!([{"type": "load-aware-scorer", "parameters": {"threshold": "many"}}])));
    assert!(!fits(json!([{"type": "qeue-scorer"}])));
    assert!(!fits(json!([{"name": "q"}])));
    assert!(!own.is_valid(&json!({"plugin": []})));
    assert!(!own.is_valid(&json!({"flowControl": {"priorityBands": [{"priorty": 1}]}})));
}

#[test]
fn the_list_of_plugins_leads_to_explanations_whose_examples_load() {
    let list = printed(&["plugins"]);
    let known =
        list.split("Accepted without effect").next().unwrap().split("Not in force yet").next().unwrap();
    let names: Vec<&str> =
        known.lines().filter_map(|line| line.strip_prefix("  ")?.split_whitespace().next()).collect();
    assert!(names.len() > 50, "{list}");
    // Each example is loaded by a unit test; here the way of a user, for some.
    for name in names.iter().step_by(7) {
        let text = printed(&["plugins", name]);
        let example = text.split("\nExample\n\n").nth(1).unwrap_or_else(|| panic!("{text}"));
        let checked = pointsman(&["check", "--allow-experimental-plugins", "--config-text", example]);
        assert!(checked.status.success(), "{name}: {}", String::from_utf8_lossy(&checked.stdout));
    }
}

#[test]
fn a_plugin_that_does_not_exist_is_an_error_that_names_one_like_it() {
    let output = pointsman(&["plugins", "queue-scorrer"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("did you mean `queue-scorer`?"), "{said}");
}
