//! `pointsman check`: loads a configuration the way serving does, and says what it comes to.
//!
//! With `--endpoints-file` it checks an endpoints file too, or alone if no configuration is given.
//!
//! On standard output: the effective configuration as a document, then warnings and notes as comments, so that the
//! whole loads again. Exit code 0. If the configuration cannot be used: every problem, one a line, and exit code 1.

use std::fs::File;
use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;

use super::doctor::files;
use super::engine;
use crate::config::{ConfigSource, LoadOptions, load};
use crate::decisions::terminal::shown;
use crate::discovery::FileState;
use crate::doctor::waits::Waits;
use crate::doctor::{Finding, Severity};
use crate::document::{Level, MAX_DOCUMENT_BYTES, Problems};
use crate::metrics::Metrics;
use crate::plugins::{REGISTRY, Registry};

/// Flags of `check`.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct CheckArgs {
    /// Plugin types that a configuration may name. This field is not a flag.
    #[arg(skip)]
    pub(super) registry: Option<Registry>,
    /// Configuration file (YAML or JSON)
    #[arg(long, value_name = "PATH", default_value = "", hide_default_value = true)]
    pub(super) config_file: String,
    /// Configuration as text
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(super) config_text: String,
    /// Endpoints file of file discovery (YAML or JSON). Without a configuration, only this file is checked
    #[arg(long, value_name = "PATH", default_value = "", hide_default_value = true)]
    pub(super) endpoints_file: String,
    /// File that Envoy starts with: says what in it breaks long prompts or answers; without a configuration it is
    /// checked alone
    #[arg(long, value_name = "PATH")]
    pub(super) envoy_file: Option<PathBuf>,
    /// File of alerts or a dashboard in which to look for older names of series; once for each file
    #[arg(long, value_name = "PATH")]
    pub(super) monitoring: Vec<PathBuf>,
    /// Flags of `serve`, behind --: says which are deprecated or have no effect
    #[arg(last = true, value_name = "FLAGS")]
    pub(super) flags: Vec<String>,
    /// Running model server, as http://HOST:PORT. The size of its cache blocks is compared with the configured size
    #[arg(long, value_name = "URL", default_value = "", hide_default_value = true)]
    pub(super) url: String,
    /// Accept plugin types of Alpha stability, which may still change
    #[arg(long, action = clap::ArgAction::Set, num_args = 0..=1, default_value_t = false, default_missing_value = "true")]
    pub(super) allow_experimental_plugins: bool,
}

/// Checks, and prints to standard output.
pub(super) fn run(args: &CheckArgs) -> ExitCode {
    let mut out = io::stdout().lock();
    // Nobody left to read the output is no fault of the configuration.
    let good = report(args, &mut out)
        .and_then(|good| out.flush().map(|()| good))
        .unwrap_or_else(|error| error.kind() == io::ErrorKind::BrokenPipe);
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Checks, and prints to `out`. True if the configuration can be used.
fn report(args: &CheckArgs, out: &mut impl Write) -> io::Result<bool> {
    let others = !args.endpoints_file.is_empty()
        || args.envoy_file.is_some()
        || !args.monitoring.is_empty()
        || !args.flags.is_empty();
    let alone = others && args.config_file.is_empty() && args.config_text.is_empty();
    let (mut good, mut waits) = (true, None);
    if !alone {
        (good, waits) = configuration(args, out)?;
    }
    if !args.endpoints_file.is_empty() {
        good &= endpoints(Path::new(&args.endpoints_file), out)?;
    }
    if let Some(path) = &args.envoy_file {
        good &= told(&path.display().to_string(), &files::envoy_file(path, waits), out)?;
    }
    for path in &args.monitoring {
        good &= told(&path.display().to_string(), &files::monitoring(path), out)?;
    }
    if !args.flags.is_empty() {
        good &= told("command line", &files::flags("command line", &args.flags), out)?;
    }
    Ok(good)
}

/// Prints what rules found at `name`. True if nothing of it is an error.
fn told(name: &str, findings: &[Finding], out: &mut impl Write) -> io::Result<bool> {
    for finding in findings {
        let subject = if finding.subject == name { String::new() } else { format!("{}: ", finding.subject) };
        let level = finding.rule.severity.name();
        writeln!(out, "# {level}: {}", shown(&format!("{subject}{}", finding.problem)))?;
        writeln!(out, "#   why: {}\n#   mend: {}", finding.rule.why, shown(&finding.mend))?;
    }
    let errors = findings.iter().filter(|finding| finding.rule.severity == Severity::Error).count();
    let (errors, warnings) = (counted(errors, "error"), counted(findings.len() - errors, "warning"));
    let good = errors.starts_with("0 ");
    writeln!(out, "# {name} {}: {errors}, {warnings}", if good { "is good" } else { "cannot be used" })?;
    Ok(good)
}

/// Checks the endpoints file as serving reads it, but looks no host name up.
fn endpoints(path: &Path, out: &mut impl Write) -> io::Result<bool> {
    let name = path.display().to_string();
    let mut bytes = Vec::new();
    let read =
        File::open(path).and_then(|file| file.take(MAX_DOCUMENT_BYTES as u64 + 1).read_to_end(&mut bytes));
    if let Err(error) = read {
        writeln!(out, "{name}: cannot be read: {error}")?;
        return Ok(false);
    }
    match FileState::parse(&bytes, &name) {
        Ok(state) => {
            for warning in &state.warnings {
                writeln!(out, "# warning: {warning}")?;
            }
            let (endpoints, hosts) = (state.endpoints.len(), state.hosts.serving.len());
            let (objectives, rewrites) = (state.objectives.len(), state.rewrites.len());
            let counts = [
                counted(endpoints, "endpoint") + &format!(" ({hosts} by host name)"),
                counted(objectives, "objective"),
                counted(rewrites, "model rewrite"),
                counted(state.warnings.len(), "warning"),
            ];
            writeln!(out, "# {name} is good: {}", counts.join(", "))?;
            Ok(true)
        }
        Err(problems) => {
            writeln!(out, "{problems}\n{name} cannot be used: {}", summary(&problems))?;
            Ok(false)
        }
    }
}

fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// Checks the configuration. True if it can be used, and how long requests may wait by it.
fn configuration(args: &CheckArgs, out: &mut impl Write) -> io::Result<(bool, Option<Waits>)> {
    let source =
        ConfigSource::from_flags(Some(args.config_file.clone().into()), Some(args.config_text.clone()));
    let source = match source {
        Ok(source) => source,
        Err(message) => {
            writeln!(out, "{message}")?;
            return Ok((false, None));
        }
    };
    let options = LoadOptions {
        allow_experimental: args.allow_experimental_plugins,
        // Serving decides; here it is enough to say what is not in force.
        allow_missing: true,
        registry: args.registry.unwrap_or(REGISTRY),
        ..LoadOptions::new(Arc::new(Metrics::new()))
    };
    match load(&source, &options) {
        Ok(plan) => {
            let effective = plan.effective_yaml();
            out.write_all(effective.as_bytes())?;
            let waits = Waits::of(&files::document(&effective.into()));
            findings(&plan.problems, "# ", out)?;
            let asked = if args.url.is_empty() { None } else { Some(engine::block_size(&args.url)) };
            match asked {
                None => {}
                Some(Err(message)) => writeln!(out, "# warning: {message}")?,
                Some(Ok(size)) => {
                    writeln!(out, "# {}: the engine's blocks have {size} tokens", args.url)?;
                    for fault in engine::mismatches(&plan.instances, size) {
                        writeln!(out, "# warning: {}\n#   mend: {}", fault.message, fault.remedy)?;
                    }
                }
            }
            if let Some(discovery) = &plan.discovery {
                let path = std::path::absolute(&discovery.path).unwrap_or(discovery.path.clone());
                writeln!(out, "# endpoints come from {}; --endpoints-file checks that file", path.display())?;
            }
            writeln!(out, "# {} is good: {}", source.name(), summary(&plan.problems))?;
            Ok((true, waits))
        }
        Err(problems) => {
            findings(&problems, "", out)?;
            writeln!(out, "{} cannot be used: {}", source.name(), summary(&problems))?;
            Ok((false, None))
        }
    }
}

/// Every finding, and below it what mends it.
fn findings(problems: &Problems, margin: &str, out: &mut impl Write) -> io::Result<()> {
    for problem in problems.iter() {
        let level = match problem.level {
            Level::Error => String::new(),
            level => format!("{}: ", level.name()),
        };
        writeln!(out, "{margin}{level}{}", problem.to_string().replace('\n', " "))?;
        if let Some(remedy) = &problem.remedy {
            writeln!(out, "{margin}  mend: {}", remedy.replace('\n', " "))?;
        }
    }
    Ok(())
}

fn summary(problems: &Problems) -> String {
    let counted = |level: Level| counted(problems.of(level).count(), level.name());
    if problems.has_errors() {
        format!("{}, {}", counted(Level::Error), counted(Level::Warning))
    } else {
        format!("{}, {}", counted(Level::Warning), counted(Level::Note))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(args: &CheckArgs) -> (bool, String) {
        let mut out = Vec::new();
        let good = report(args, &mut out).unwrap();
        (good, String::from_utf8(out).unwrap())
    }

    fn text(text: &str) -> (bool, String) {
        check(&CheckArgs { config_text: text.to_owned(), ..CheckArgs::default() })
    }

    #[test]
    fn the_built_in_default_is_good_and_what_is_printed_loads_again() {
        let (good, printed) = check(&CheckArgs::default());
        assert!(good, "{printed}");
        assert!(printed.contains("# built-in default is good: 0 warnings"), "{printed}");
        let (again, _) = text(&printed);
        assert!(again);
    }

    #[test]
    fn what_is_wrong_comes_with_the_line_that_mends_it() {
        let producer = "- type: approx-prefix-cache-producer\n";
        let profile = |rows: &str| format!("schedulingProfiles:\n- name: default\n  plugins:\n{rows}");
        let cases = [
            (
                format!("plugins:\n- type: queue-scorer\n{}", profile("  - pluginRef: queue-scorer\n")),
                "  mend: `- type: max-score-picker` in `plugins`, and `- pluginRef: max-score-picker` in the profile",
            ),
            (
                "plugins:\n- type: prefix-cache-scorer\n  parameters: {prefixMatchInfoProducerName: mine}\n".to_owned(),
                "  mend: `- type: approx-prefix-cache-producer` with `name: mine` in `plugins`",
            ),
            (
                format!("plugins:\n{producer}- type: queue-scorer\n"),
                "in `plugins` and its name in a profile, or no row for \"approx-prefix-cache-producer\"",
            ),
            (
                "plugins:\n- type: agent-identity\n".to_owned(),
                "  mend: `--allow-experimental-plugins` on the command line",
            ),
            (
                "plugins:\n- type: queue-scorer\n- type: disagg-profile-handler\nschedulingProfiles:\n- name: decode\n  \
                 plugins: [{pluginRef: queue-scorer}]\n- name: other\n  plugins: [{pluginRef: queue-scorer}]\n"
                    .to_owned(),
                "  mend: no profile \"other\"",
            ),
            (
                "plugins:\n- type: queue-scorer\n- type: random-picker\nschedulingProfiles:\n- name: a\n  \
                 plugins: [{pluginRef: random-picker}]\n- name: b\n  plugins: [{pluginRef: queue-scorer}]\n"
                    .to_owned(),
                "  mend: `- type: header-profile-handler` in `plugins`",
            ),
            (
                "plugins:\n- type: endpoint-notification-source\ndataLayer:\n  sources:\n  \
                 - pluginRef: endpoint-notification-source\n"
                    .to_owned(),
                "  mend: `extractors: [{pluginRef: NAME}]` beside it",
            ),
        ];
        for (config, remedy) in cases {
            let (_, printed) = text(&config);
            assert!(printed.contains(remedy), "{printed}");
        }
    }

    #[test]
    fn warnings_do_not_fail_the_check() {
        let (good, printed) = text("apiVersion: config.x-k8s.io/v1alpha1\n");
        assert!(good);
        assert!(printed.contains("# warning: --config-text:1: apiVersion:"), "{printed}");
    }

    #[test]
    fn each_kind_of_mistake_gives_its_line() {
        let cases = [
            ("plugins:\n- type: qeue-scorer\n", ":2: plugins[0].type: unknown plugin type"),
            (
                "plugins:\n- type: metrics-data-source\n  parameters:\n    pth: /m\n",
                ":4: plugins[0].parameters.pth: unknown parameter",
            ),
            ("plugin: []\n", ":1: plugin: unknown field; did you mean `plugins`?"),
            (
                "schedulingProfiles:\n- name: a\n  plugins:\n  - pluginRef: nobody\n",
                ":4: schedulingProfiles[0].plugins[0].pluginRef: there is no plugin",
            ),
            (
                "plugins:\n- type: openai-parser\n- type: openai-parser\n",
                ":3: plugins[1].name: the name \"openai-parser\" is taken",
            ),
            ("apiVersion: v2\n", ":1: apiVersion: got \"v2\", expected"),
            ("plugins:\n\t- type: openai-parser\n", ":2: the line begins with a tab"),
        ];
        for (config, line) in cases {
            let (good, printed) = text(config);
            assert!(!good && printed.contains(line), "{printed}");
        }
    }

    #[test]
    fn a_negative_weight_is_a_warning_with_its_line() {
        let config = "plugins:\n- type: queue-scorer\nschedulingProfiles:\n- name: a\n  plugins:\n  - pluginRef: queue-scorer\n    weight: -1\n";
        let (good, printed) = text(config);
        assert!(
            good && printed
                .contains("# warning: --config-text:7: schedulingProfiles[0].plugins[0].weight: is -1"),
            "{printed}"
        );
    }

    #[test]
    fn no_flag_and_an_empty_flag_mean_the_built_in_default() {
        for line in [&["check"][..], &["check", "--config-file", "", "--config-text="]] {
            let matches = CheckArgs::augment_args(clap::Command::new("check")).get_matches_from(line);
            let args = <CheckArgs as clap::FromArgMatches>::from_arg_matches(&matches).unwrap();
            assert!(check(&args).1.contains("# built-in default is good"));
        }
    }

    #[test]
    fn both_flags_at_once_are_refused() {
        let args = CheckArgs { config_file: "a".into(), config_text: "b".into(), ..CheckArgs::default() };
        assert!(!check(&args).0);
    }

    #[test]
    fn what_is_added_is_told_once() {
        let (_, printed) = check(&CheckArgs::default());
        assert_eq!(printed.matches("a profile names no picker").count(), 1, "{printed}");
    }

    #[test]
    fn an_endpoints_file_is_checked_alone_or_beside_a_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("endpoints.yaml");
        let args = |config: &str| CheckArgs {
            endpoints_file: path.display().to_string(),
            config_text: config.to_owned(),
            ..CheckArgs::default()
        };
        let (good, printed) = check(&args(""));
        assert!(!good && printed.contains("cannot be read"), "{printed}");
        std::fs::write(&path, "endpoints: [{name: a, address: gpu-1, port: 1, colour: red}]\n").unwrap();
        let (good, printed) = check(&args(""));
        let counts = "is good: 1 endpoint (1 by host name), 0 objectives, 0 model rewrites, 1 warning\n";
        assert!(good && printed.ends_with(counts) && !printed.contains("plugins:"), "{printed}");
        let (good, printed) = check(&args("plugins: [{type: queue-scorer}]"));
        assert!(good && printed.contains("plugins:") && printed.ends_with(counts), "{printed}");
        let (good, _) = check(&args("plugins: [{type: nobody}]"));
        assert!(!good, "the configuration is at fault");
        std::fs::write(&path, "endpoints: [{name: a, adress: gpu-1, port: 1}]\n").unwrap();
        let (good, printed) = check(&args("plugins: [{type: queue-scorer}]"));
        assert!(!good && printed.contains("did you mean `address`?"), "{printed}");
        assert!(printed.ends_with("cannot be used: 1 error, 1 warning\n"), "{printed}");
    }
}
