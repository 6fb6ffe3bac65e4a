//! Configurations become choosers.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use anyhow::ensure;

use super::captures::Captures;
use crate::cli::deciding::{Kept, director};
use crate::cli::holding::Holding;
use crate::clock;
use crate::config::{self, ConfigSource, LoadOptions, Plan};
use crate::director::{Beside, BodyBudget, DirectorSettings};
use crate::document::Level;
use crate::metrics::{Format, Metrics};
use crate::plugins::Registry;
use crate::pool::Pool;
use crate::prefix::PrefixMemory;
use crate::simulate::{Brain, Policy};

/// The configuration that the figures recommend; it stands in the repository as a file.
const RECOMMENDED: &str = include_str!("../../../config/recommended.yaml");
/// Bodies that are held at once.
const BODIES: u64 = 8 << 30;
/// Most configurations of one call.
const MOST: usize = 32;

/// The choosers of these values of `--config`, after the reference's default.
pub(super) fn policies(
    given: &[String],
    registry: Registry,
    captures: Option<&Rc<Captures>>,
) -> anyhow::Result<Vec<Policy<'static>>> {
    ensure!(given.len() <= MOST, "--config: got {} of them, at most {MOST} are compared", given.len());
    let policy = |name, source| policy(name, source, registry, captures.cloned());
    let mut policies = vec![policy("default".to_owned(), ConfigSource::BuiltIn)?];
    for name in given {
        let known =
            policies.iter().filter(|policy| policy.name == *name || stem(name) == policy.name).count();
        policies.push(match name.as_str() {
            "default" => continue,
            "round-robin" => Policy { name: name.clone(), brain: None },
            "recommended" if !Path::new(name).exists() => {
                policy(name.clone(), ConfigSource::Text(RECOMMENDED.to_owned()))?
            }
            path => {
                let label = if known == 0 { stem(path) } else { path.to_owned() };
                policy(label, ConfigSource::File(PathBuf::from(path)))?
            }
        });
    }
    Ok(policies)
}

fn stem(path: &str) -> String {
    Path::new(path).file_stem().map_or_else(|| path.to_owned(), |stem| stem.to_string_lossy().into_owned())
}

/// Fails here, and not in the middle of a run, if the configuration cannot be used.
fn policy(
    name: String,
    source: ConfigSource,
    registry: Registry,
    captures: Option<Rc<Captures>>,
) -> anyhow::Result<Policy<'static>> {
    let plan = load(&source, 0, &Arc::new(Metrics::new()), registry)?;
    for note in not_simulated(&plan) {
        eprintln!("{name}: {note}");
    }
    let label = name.clone();
    let brain = move |seed: u64, objectives: &[(String, i32)]| {
        let begin = |plan: &Plan, metrics: &Metrics, pool: &Pool| match &captures {
            Some(captures) => captures.begin(&label, plan, metrics, pool, seed),
            None => Ok(None),
        };
        brain(&source, seed, objectives, registry, &begin)
    };
    Ok(Policy { name, brain: Some(Box::new(brain)) })
}

fn load(
    source: &ConfigSource,
    seed: u64,
    metrics: &Arc<Metrics>,
    registry: Registry,
) -> anyhow::Result<Plan> {
    let options = LoadOptions {
        allow_experimental: true,
        registry,
        seed,
        prefix_memory: PrefixMemory::new(crate::prefix::DEFAULT_PREFIX_MEMORY_BYTES),
        ..LoadOptions::new(Arc::clone(metrics))
    };
    config::load(source, &options).map_err(|problems| {
        let errors: Vec<String> = problems.of(Level::Error).map(ToString::to_string).collect();
        anyhow::anyhow!("{} cannot be used:\n{}", source.name(), errors.join("\n"))
    })
}

/// Parts of a plan that have no counterpart in a simulation.
fn not_simulated(plan: &Plan) -> Vec<String> {
    let mut notes = Vec::new();
    if !plan.preparers.is_empty() {
        notes.push(
            "exact tokens and windows of bursts are not simulated; plugins work with estimates".to_owned(),
        );
    }
    if !plan.kv_events.is_empty() {
        notes.push("cache events of engines are not simulated; their index stays empty".to_owned());
    }
    notes
}

/// Begins a capture of what is decided, if one is to be made.
type BeginCapture<'c> = dyn Fn(&Plan, &Metrics, &Pool) -> anyhow::Result<Option<Arc<Beside>>> + 'c;

fn brain(
    source: &ConfigSource,
    seed: u64,
    objectives: &[(String, i32)],
    registry: Registry,
    capture: &BeginCapture<'_>,
) -> anyhow::Result<Brain> {
    let metrics = Arc::new(Metrics::new());
    let mut plan = load(source, seed, &metrics, registry)?;
    plan.preparers.clear();
    let pool = Arc::new(Pool::new("default", "simulated", clock::now()));
    pool.set_objectives(objectives.iter().cloned().collect());
    let holding = plan.flow.clone().map(|flow| Holding::new(flow, &pool, &metrics));
    if let Some(holding) = &holding {
        holding.provision();
    }
    let controller = holding.as_ref().map(|holding| Arc::clone(&holding.controller));
    let settings = DirectorSettings { seed, ..DirectorSettings::default() };
    let beside = capture(&plan, &metrics, &pool)?;
    let kept = Kept { decisions: None, budget: Arc::new(BodyBudget::new(BODIES)), beside };
    let director = director(plan, &pool, &metrics, holding.as_ref(), settings, kept);
    let prediction_error = Box::new(move || prediction_error(&metrics.encode(Format::Text)));
    Ok(Brain { director, controller, pool, prediction_error })
}

/// The error of predicted times to the first token, by the program's own page of metrics.
fn prediction_error(page: &str) -> Option<f64> {
    let samples = page.lines().filter(|line| line.starts_with("pointsman_latency_prediction_error_ratio{"));
    samples.filter(|line| line.contains("\"ttft\"")).find_map(|line| line.rsplit_once(' ')?.1.parse().ok())
}
