//! The flags, what command lines say, and the page of flags.

use std::collections::BTreeSet;
use std::ffi::OsString;

use super::flags::FLAGS;
use super::help::help;
use super::settings::{AllowedBy, Options, ServingTls, log_level, read};
use super::values::{Unreadable, Values};
use crate::sidecar::{Connector, OnPrefillFailure, Stage};
use crate::telemetry::LogLevel;

const PAGE: &str = include_str!("../../../docs/configuration.md");

fn values(line: &str) -> Values {
    let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
    Values::read(&words).unwrap()
}

fn options(line: &str) -> Result<Options, String> {
    read(&values(line), |_| None).map_err(|problems| problems.join("\n"))
}

#[test]
fn every_flag_has_a_row_in_the_page_and_a_line_in_the_help() {
    let section = PAGE.split_once("\n## Flags of sidecar\n").unwrap().1.split("\n## ").next().unwrap();
    let rows: BTreeSet<&str> =
        section.lines().filter_map(|line| line.strip_prefix("| `--")?.split('`').next()).collect();
    let help = help();
    for flag in FLAGS {
        assert!(
            rows.contains(flag.name)
                || flag.deprecated.is_some() && section.contains(&format!("`--{}`", flag.name)),
            "--{}",
            flag.name
        );
        assert!(help.contains(&format!("--{}\n", flag.name)), "--{}", flag.name);
        if !flag.default.is_empty() && flag.deprecated.is_none() {
            let row = format!("| `--{}` | `{}` |", flag.name, flag.default);
            assert!(section.contains(&row), "{row}");
        }
    }
    assert!(rows.iter().all(|row| FLAGS.iter().any(|flag| flag.name == *row)));
}

#[test]
fn command_lines_of_all_released_sidecars_are_understood() {
    for line in [
        "--port=8000 --vllm-port=8200 --connector=nixlv2 -v=5 --secure-proxy=false",
        "-port=8000 -vllm-port=8200 -connector=nixlv2 -secure-proxy=false -v 6",
        "--port 8000 --model-server-port 8200 --secure-proxy false  --zap-devel --zap-encoder=json --zap-log-level=debug",
        "--port=8000  '' --vllm-port=8200 --kv-connector=nixlv2 --secure-proxy=false stray",
    ] {
        let options = options(line).unwrap();
        assert_eq!((options.settings.port, options.settings.engine_port), (8000, 8200), "{line}");
        assert_eq!((options.settings.connector, options.tls), (Connector::NixlV2, ServingTls::Off), "{line}");
    }
    assert_eq!(log_level(&values("-v=5")), Ok(LogLevel::Trace));
    let options =
        options("--prefiller-use-tls --enable-tls=decoder,encoder --decoder-tls-insecure-skip-verify=true")
            .unwrap();
    assert!(
        [Stage::Prefill, Stage::Decode, Stage::Encode]
            .into_iter()
            .all(|stage| options.settings.tls.of(stage))
    );
    assert!(
        options.settings.skip_verify.of(Stage::Decode) && !options.settings.skip_verify.of(Stage::Prefill)
    );
    assert_eq!(options.tls, ServingTls::SelfSigned);
}

#[test]
fn every_problem_names_its_flag() {
    for (line, expected) in [
        ("--port=0", "--port: got \"0\""),
        ("--port=abc", "--port: got \"abc\""),
        ("--model-server-port=70000", "--model-server-port: got \"70000\""),
        ("--vllm-port=x", "--vllm-port: got \"x\""),
        ("--port=65535 --data-parallel-size=2", "--port: got \"65535\""),
        ("--kv-connector=nixlv3", "did you mean nixlv2?"),
        ("--connector=bogus", "--connector: got \"bogus\""),
        ("--ec-connector=x", "--ec-connector"),
        ("--enable-p2p-pull --kv-connector=sglang", "--enable-p2p-pull"),
        ("--enable-tls=prefill", "--enable-tls: got \"prefill\""),
        ("--enable-ssrf-protection", "--inference-pool"),
        ("--enable-ssrf-protection --inference-pool=a/b/c", "--inference-pool"),
        ("--prefill-max-retries=1 --prefill-retry-backoff=0s", "--prefill-retry-backoff"),
        ("--moriio-write-mode", "--moriio-local-pod-ip"),
        ("--moriio-parallel-dispatch", "--moriio-parallel-dispatch"),
        ("--on-prefill-failure=maybe", "--on-prefill-failure: got \"maybe\""),
        ("--secure-proxy=maybe", "--secure-proxy: got \"maybe\""),
    ] {
        let problem = options(line).unwrap_err();
        assert!(problem.contains(expected), "{line}: {problem}");
    }
    let words = [OsString::from("--prot=1")];
    let Err(Unreadable::Wrong(problem)) = Values::read(&words) else { panic!("no problem") };
    assert!(problem.contains("did you mean --port?"), "{problem}");
}

#[test]
fn the_command_line_goes_before_the_file_and_that_before_the_environment() {
    let environment = |name: &str| {
        (name == "P2P_CONNECTOR_PORT" || name == "MOONCAKE_BOOTSTRAP_PORT").then(|| "1111".to_owned())
    };
    let file = "p2p-connector-port: 2222\nprefill-max-retries: 0\nport: 0\nenable-tls: [prefiller]\non-prefill-failure: next\nvllm-port: 9000";
    let values = values("--port=8001 --kv-connector=sglang")
        .with_environment(environment)
        .with_configuration(file)
        .unwrap();
    let settings = read(&values, |_| None).unwrap().settings;
    assert_eq!((settings.port, settings.p2p_port, settings.mooncake_port), (8001, 2222, 1111));
    assert_eq!(
        (settings.connector, settings.on_prefill_failure),
        (Connector::SgLang, OnPrefillFailure::Next)
    );
    assert!(settings.tls.of(Stage::Prefill));
    assert_eq!(settings.engine_port, 9000);
    let problems = Values::default()
        .with_configuration("prot: 1\nport: 1\nport: 2\nmoriio-write-mode: true")
        .unwrap_err();
    assert_eq!(problems.len(), 3, "{problems:?}");
    assert!(problems[0].contains("did you mean port?"), "{problems:?}");
}

#[test]
fn a_pool_is_named_by_its_two_halves_too() {
    let pool = |line: &str| match options(&format!("--enable-ssrf-protection {line}")).unwrap().allowed {
        AllowedBy::Pool { namespace, name, .. } => (namespace, name),
        other => panic!("{other:?}"),
    };
    let ns = || Some("ns".to_owned());
    assert_eq!(pool("--inference-pool=ns/p"), (ns(), "p".to_owned()));
    assert_eq!(pool("--inference-pool=p"), (None, "p".to_owned()));
    assert_eq!(pool("--inference-pool-namespace=ns --inference-pool-name=p"), (ns(), "p".to_owned()));
}
