//! The command line.

use std::process::{Command, Output};

use crate::support::{EndpointsFile, Fleet, Pointsman, SCORERS, config, holds, program};

fn run(args: &[&str]) -> Output {
    Command::new(program()).args(args).output().unwrap()
}

/// Runs `check` on this text; whether it passed, and all that it said.
fn check(text: &str) -> (bool, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("epp.yaml");
    std::fs::write(&file, text).unwrap();
    let output = run(&["check", "--config-file", file.to_str().unwrap()]);
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

fn with_plugins(plugins: &str) -> String {
    format!("apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n{plugins}")
}

#[test]
fn check_passes_a_good_file() {
    let (passed, said) = check(&with_plugins("- type: queue-scorer\n- type: max-score-picker\n"));
    assert!(passed, "{said}");
    assert!(said.contains("queue-scorer"), "{said}");
}

#[test]
fn check_says_what_is_wrong_and_where() {
    let profile = "schedulingProfiles:\n- name: default\n  plugins:\n";
    let cases = [
        ("unknown plugin type", with_plugins("- type: queue-scorrer\n"), "queue-scorer"),
        (
            "unknown parameter",
            with_plugins("- type: max-score-picker\n  parameters:\n    maxNumOfEndpoint: 2\n"),
            "maxNumOfEndpoint",
        ),
        ("misspelt field", with_plugins("- tpye: queue-scorer\n"), "type"),
        (
            "dangling reference",
            with_plugins(&format!(
                "- type: queue-scorer\n{profile}  - pluginRef: kv-scorer\n    weight: 1\n"
            )),
            "kv-scorer",
        ),
        (
            "duplicate name",
            with_plugins("- type: queue-scorer\n  name: q\n- type: kv-cache-utilization-scorer\n  name: q\n"),
            "q",
        ),
        (
            "wrong api version",
            "apiVersion: llm-d.ai/v9\nkind: EndpointPickerConfig\n".to_owned(),
            "llm-d.ai/v1alpha1",
        ),
        (
            "tab",
            "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n\t- type: queue-scorer\n"
                .to_owned(),
            "tab",
        ),
    ];
    for (case, text, expected) in cases {
        let (passed, said) = check(&text);
        assert!(!passed, "{case}: passed\n{said}");
        assert!(said.contains(expected), "{case}: {expected:?} is not in\n{said}");
        assert!(said.contains("epp.yaml:"), "{case}: no line in\n{said}");
    }
}

#[test]
fn check_warns_of_a_negative_weight_which_the_reference_takes() {
    let profile =
        "schedulingProfiles:\n- name: default\n  plugins:\n  - pluginRef: queue-scorer\n    weight: -1\n";
    let (passed, said) = check(&with_plugins(&format!("- type: queue-scorer\n{profile}")));
    assert!(passed, "{said}");
    let warning = said.lines().find(|line| line.contains("warning")).unwrap_or_default();
    assert!(warning.contains("epp.yaml:9") && warning.contains("weight") && warning.contains("-1"), "{said}");
}

#[test]
fn check_exits_with_one_when_the_file_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("epp.yaml");
    std::fs::write(&file, "kind: Nonsense\n").unwrap();
    assert_eq!(run(&["check", "--config-file", file.to_str().unwrap()]).status.code(), Some(1));
    assert_eq!(run(&["check", "--config-file", "does-not-exist.yaml"]).status.code(), Some(1));
}

#[test]
fn what_make_builds_stays_in_the_clone_without_a_home_folder_too() {
    let output = Command::new("make")
        .args(["--dry-run", "--always-make", "setup"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env_remove("POINTSMAN_CACHE")
        .env_remove("XDG_CACHE_HOME")
        .env("HOME", "/nonexistent")
        .output()
        .unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.status.success(), "{said}");
    let cache = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("target/cache");
    assert!(said.contains(cache.to_str().unwrap()) && !said.contains("/nonexistent"), "{said}");
}

#[test]
fn a_misspelt_command_does_not_serve_but_is_named() {
    let output = run(&["chek", "--config-file", "x"]);
    assert_eq!(output.status.code(), Some(64));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("\"chek\" is no command; did you mean `check`?"), "{said}");
}

#[test]
fn equal_ports_end_the_start_and_both_flags_are_named() {
    let output = run(&["--grpc-port", "19002", "--metrics-port", "19002", "--config-text", "x"]);
    assert_eq!(output.status.code(), Some(64));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("--grpc-port and --metrics-port are both 19002"), "{said}");
}

#[test]
fn an_unknown_flag_is_named() {
    let output = run(&["--grcp-port", "9002"]);
    assert!(!output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("--grcp-port"), "{said}");
}

#[test]
fn without_a_file_and_without_kubernetes_the_start_ends_and_says_what_there_is_to_choose() {
    for (flags, expected) in [
        (&["--pool-name", "p"][..], "KUBECONFIG"),
        (&["--pool-name", "p"], "file-discovery"),
        (&[], "--endpoint-selector"),
        (&["--endpoint-selector", "app=a b", "--endpoint-target-ports", "8000"], "\\\"a b\\\""),
        (&["--endpoint-selector", "app=a"], "--endpoint-target-ports"),
    ] {
        let mut command = Command::new(program());
        command
            .env_remove("KUBERNETES_SERVICE_HOST")
            .env("KUBECONFIG", "no-such-file")
            .env("POD_NAME", "epp-0");
        let output = command.args(["--grpc-port", "0"]).args(flags).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{flags:?}");
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(said.contains(expected), "{flags:?}: no {expected:?} in {said}");
        assert!(!said.contains("listening"), "{said}");
    }
}

#[test]
fn two_configurations_at_once_are_refused() {
    let output = run(&["--pool-name", "p", "--config-file", "a.yaml", "--config-text", "b"]);
    assert!(!output.status.success());
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(said.contains("config-file") && said.contains("config-text"), "{said}");
}

#[test]
fn help_lists_the_flags_of_the_reference() {
    let output = run(&["serve", "--help"]);
    assert!(output.status.success());
    let said = String::from_utf8(output.stdout).unwrap();
    for flag in [
        "--grpc-port",
        "--grpc-health-port",
        "--metrics-port",
        "--pool-name",
        "--config-file",
        "--drain-timeout",
    ] {
        assert!(said.contains(flag), "{flag} is not in\n{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn flags_as_old_charts_spell_them_still_start_the_program() {
    let fleet = Fleet::start(1, &[]).await;
    let endpoints = EndpointsFile::with(fleet.list());
    let spellings =
        ["--tracing", "false", "--secure-serving", "false", "-v", "3", "--health-checking", "true"];
    let pointsman = Pointsman::start(&config(&endpoints.path(), SCORERS), &spellings[2..]).await;
    holds("the server is ready", async || {
        pointsman.metric("llm_d_epp_ready_endpoints", &[]).await == Some(1.0)
    })
    .await;
}
