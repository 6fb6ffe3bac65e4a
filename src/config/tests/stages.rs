//! Profile handlers and the deciders they ask, over the built-in catalogue.

use std::sync::Arc;

use crate::config::{ConfigSource, LoadOptions, Origin, Plan, load};
use crate::document::{Level, Problems};
use crate::metrics::Metrics;

fn loaded(text: &str) -> Result<Plan, Problems> {
    let mut options = LoadOptions::new(Arc::new(Metrics::new()));
    options.allow_experimental = true;
    load(&ConfigSource::Text(text.to_owned()), &options)
}

fn outcome(text: &str) -> (bool, Problems) {
    match loaded(text) {
        Ok(plan) => (true, plan.problems),
        Err(problems) => (false, problems),
    }
}

fn said(problems: &Problems, level: Level) -> Vec<String> {
    problems
        .of(level)
        .map(|problem| format!("{} {}: {}", problem.line, problem.path, problem.message))
        .collect()
}

const PROFILES: &str = "\
schedulingProfiles:
- name: decode
  plugins: [{pluginRef: decode-filter}, {pluginRef: queue-scorer}]
- name: prefill
  plugins: [{pluginRef: prefill-filter}, {pluginRef: queue-scorer}]
";

fn with_handler(rows: &str) -> String {
    format!("plugins:\n- type: decode-filter\n- type: prefill-filter\n- type: queue-scorer\n{rows}{PROFILES}")
}

#[test]
fn a_handler_finds_its_decider_before_and_behind_it() {
    let handler = "- type: disagg-profile-handler\n  parameters: {deciders: {prefill: mine}}\n";
    let decider = "- {type: prefix-based-pd-decider, name: mine, parameters: {nonCachedTokens: 64}}\n";
    for rows in [[handler, decider].concat(), [decider, handler].concat()] {
        let (loads, problems) = outcome(&with_handler(&rows));
        assert!(loads, "{:?}", said(&problems, Level::Error));
        assert_eq!(said(&problems, Level::Warning), [""; 0]);
        let plan = loaded(&with_handler(&rows)).unwrap();
        let added = plan.instances.iter().find(|instance| &*instance.name == "approx-prefix-cache-producer");
        assert!(added.is_some_and(|added| added.origin != Origin::Listed), "{:?}", plan.instances);
    }
}

#[test]
fn a_decider_that_is_missing_or_none_is_an_error_at_its_parameter() {
    for (parameters, path) in [
        ("{deciders: {prefill: always-disagg-pd-decidr}}", "parameters.deciders.prefill"),
        ("{deciders: {encode: queue-scorer}}", "parameters.deciders.encode"),
        ("{deciderPluginName: nobody}", "parameters.deciderPluginName"),
    ] {
        let rows = format!(
            "- type: always-disagg-pd-decider\n- type: disagg-profile-handler\n  parameters:\n    {parameters}\n"
        );
        let (loads, problems) = outcome(&with_handler(&rows));
        let errors = said(&problems, Level::Error);
        assert!(!loads && errors.len() == 1, "{errors:?}");
        assert!(errors[0].starts_with(&format!("8 plugins[4].{path}: ")), "{errors:?}");
    }
}

#[test]
fn profiles_that_no_request_reaches_are_told() {
    let (loads, problems) = outcome(&with_handler("- type: disagg-profile-handler\n"));
    let warnings = said(&problems, Level::Warning);
    assert!(loads && warnings.len() == 1, "{warnings:?}");
    assert!(warnings[0].contains("prefill has no decider; name one, such as `always-disagg-pd-decider`"));
    let (loads, problems) = outcome(&with_handler(
        "- type: disagg-profile-handler\n  parameters: {profiles: {decode: decoder}}\n",
    ));
    let errors = said(&problems, Level::Error);
    assert!(!loads && errors[0].contains("\"decoder\"") && errors[0].contains("\"decode\", \"prefill\""));
}

#[test]
fn a_decider_that_nobody_asks_is_told() {
    let (_, problems) = outcome("plugins:\n- type: queue-scorer\n- type: always-disagg-pd-decider\n");
    let warnings = said(&problems, Level::Warning);
    assert!(warnings.iter().any(|text| text.contains("nothing refers to it")), "{warnings:?}");
}

#[test]
fn the_older_handler_without_the_one_that_writes_the_header_is_told() {
    let rows = "- type: always-disagg-pd-decider\n- type: pd-profile-handler\n  parameters: {deciderPluginName: always-disagg-pd-decider}\n";
    let silent = "no plugin writes the prefill server";
    let (loads, problems) = outcome(&with_handler(rows));
    let warnings = said(&problems, Level::Warning);
    assert!(loads && warnings.iter().any(|text| text.contains(silent)), "{warnings:?}");
    let (loads, problems) = outcome(&with_handler(&format!("{rows}- type: prefill-header-handler\n")));
    let warnings = said(&problems, Level::Warning);
    assert!(loads && !warnings.iter().any(|text| text.contains(silent)), "{warnings:?}");
}
