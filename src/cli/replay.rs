//! `pointsman replay`: decisions of a capture, made again.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;
use serde_json::json;

use super::deciding;
use super::exit::USAGE_ERROR;
use super::report;
use crate::capture::lines::ConfigLine;
use crate::config::{self, Carried, ConfigSource, LoadOptions, Plan};
use crate::document::Level;
use crate::metrics::Metrics;
use crate::plugins::Registry;
use crate::prefix::{DEFAULT_PREFIX_MEMORY_BYTES, PrefixMemory};
use crate::replay::{Played, Policy, Side, html, play, table};

/// Makes the decisions of a capture again.
///
/// With the configuration that the capture holds, every decision comes out the same, bit for bit, or the exit code is 1
/// and the first difference is explained. With --config, the report says what another configuration would have chosen
/// from the same figures. It does not say what would have happened afterwards.
#[derive(Args, Clone, Debug)]
pub(super) struct ReplayArgs {
    /// File of a capture, or a folder with files of captures
    #[arg(value_name = "CAPTURE")]
    capture: PathBuf,
    /// Configuration to compare with that of the capture
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// File for the report: one HTML page with plots. Needs --config
    #[arg(long, value_name = "FILE", requires = "config")]
    report: Option<PathBuf>,
    /// File for the result as JSON; - is standard output, instead of the table
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Plays, and prints what came of it.
pub(super) fn run(args: &ReplayArgs, registry: Registry) -> ExitCode {
    match replay(args, registry) {
        // The other configuration is not asked to agree; that of the capture is, whatever else is asked.
        Ok(played) if played.differing > 0 => ExitCode::FAILURE,
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::from(USAGE_ERROR)
        }
    }
}

fn replay(args: &ReplayArgs, registry: Registry) -> anyhow::Result<Played> {
    let other = args.config.clone().map(ConfigSource::File);
    let mut loads = Loads { registry, other, captured: Chain::default(), beside: Chain::default() };
    let mut loader = |side: Side, line: &ConfigLine, fresh: bool| loads.policy(side, line, fresh);
    let played = play(&args.capture, args.config.is_some(), &mut loader)?;
    anyhow::ensure!(
        played.decisions + played.refused > 0,
        "{}: the capture holds no decision",
        args.capture.display()
    );
    let name = args.config.as_deref().map(label).unwrap_or_default();
    let json = || {
        let value = json!({
            "decisions": played.decisions,
            "refused": played.refused,
            "differing": played.differing,
            "first_difference": played.first_difference,
            "comparison": played.comparison,
            "notes": played.notes,
        });
        serde_json::to_string_pretty(&value).context("cannot write the result")
    };
    let (to, page) = (args.json.as_deref(), args.report.as_deref());
    report::write(to, page, || table(&played, &name), json, || html(&played, &name))?;
    Ok(played)
}

fn label(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

/// What a side leaves to its next configuration.
#[derive(Default)]
struct Chain {
    carried: Option<Arc<Carried>>,
    metrics: Arc<Metrics>,
    memory: Option<Arc<PrefixMemory>>,
    /// Producers of data, with their parameters.
    producers: Vec<String>,
}

struct Loads {
    registry: Registry,
    other: Option<ConfigSource>,
    captured: Chain,
    beside: Chain,
}

impl Loads {
    /// The policy of a side. Plugins that stay keep what they know, as at a reload.
    fn policy(&mut self, side: Side, line: &ConfigLine, fresh: bool) -> anyhow::Result<Policy> {
        let source = match (side, &self.other) {
            (Side::Other, Some(other)) => other.clone(),
            _ => ConfigSource::Text(line.text.clone()),
        };
        let state = match side {
            Side::Captured => &mut self.captured,
            Side::Other => &mut self.beside,
        };
        if fresh {
            *state = Chain::default();
        }
        let memory = state.memory.get_or_insert_with(|| PrefixMemory::new(DEFAULT_PREFIX_MEMORY_BYTES));
        let options = LoadOptions {
            allow_experimental: true,
            allow_missing: true,
            registry: self.registry,
            seed: line.seed.parse().unwrap_or_default(),
            feature_gates: line.feature_gates.clone(),
            prefix_memory: Arc::clone(memory),
            carried: state.carried.clone(),
            ..LoadOptions::new(Arc::clone(&state.metrics))
        };
        let mut plan = config::load(&source, &options).map_err(|problems| {
            let errors: Vec<String> = problems.of(Level::Error).map(ToString::to_string).collect();
            anyhow::anyhow!("{} cannot be used:\n{}", source.name(), errors.join("\n"))
        })?;
        state.carried = Some(Arc::new(std::mem::take(&mut plan.carried)));
        state.producers = producers(&plan);
        let recorded = side == Side::Captured || self.captured.producers == self.beside.producers;
        Ok(policy(plan, recorded))
    }
}

/// The instances that produce data, as texts that are equal if they are.
fn producers(plan: &Plan) -> Vec<String> {
    let makes = plan.instances.iter().filter(|instance| !instance.produces.is_empty());
    makes.map(|it| format!("{} {} {:?}", it.name, it.kind, it.parameters)).collect()
}

fn policy(plan: Plan, recorded_matches: bool) -> Policy {
    let hooks = deciding::hooks(plan.pre_request, plan.response_headers, plan.response_ends);
    Policy {
        scheduler: plan.scheduler,
        entry: plan.entry,
        producers: plan.producers,
        hooks,
        media: plan.media,
        shown_matches: plan.shown_matches,
        indexes: plan.shared_indexes,
        recorded_matches,
    }
}
