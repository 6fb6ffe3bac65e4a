//! `pointsman simulate`: flags, wiring and output.

mod captures;
mod conditions;
mod policies;
mod values;

use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use pointsman_sim::EngineProfile;

use super::report;
use crate::plugins::Registry;
use crate::simulate::{
    Condition, Experiment, GENERATORS, Generator, Objective, Report, Step, Workload, html, read_trace,
};

/// Wall time between two lines of progress.
const BETWEEN_LINES: Duration = Duration::from_secs(2);

/// Plays a trace against simulated servers in virtual time, and compares configurations.
///
/// The simulation decides with the parser, the plugins, the flow control and the ledger that `serve` builds from the
/// same configuration. The same seed gives the same result.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct SimulateArgs {
    /// Trace file (Mooncake, Qwen-Bailian, Azure, BurstGPT), folder or file of agent sessions, or a generated load:
    /// chat, lora, batch, shared-server, slow-server, restarts, bursts, demo
    #[arg(long, value_name = "PATH|NAME")]
    trace: String,
    /// Configuration file to compare; repeat the flag for several. `recommended` is config/recommended.yaml, and
    /// `round-robin` sends to each server in turn. The reference's default always comes first, and the others are
    /// compared with it
    #[arg(long, value_name = "PATH|NAME")]
    config: Vec<String>,
    /// Number of simulated servers
    #[arg(long, default_value_t = 8, value_parser = values::servers)]
    servers: usize,
    /// Kind of the simulated servers: h100-70b, h100-70b-tp8, a100-70b, a100-70b-tp8, demo
    #[arg(long, default_value = "h100-70b", value_parser = values::engine)]
    engine: &'static EngineProfile,
    /// Multiple of the trace's request rate, such as 1.5x; several values are separated by commas
    #[arg(long, default_value = "1x", value_delimiter = ',', value_parser = values::rate)]
    rate: Vec<f64>,
    /// Number of repetitions, each with a seed of its own
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1000))]
    seeds: u64,
    /// Seed of the first repetition
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Replicas of the picker, 1 to 64. Several values are separated by commas; a range such as 1..8 means 1,2,4,8
    #[arg(long, default_value = "1", value_parser = values::replicas)]
    replicas: values::Counts,
    /// Server that fails: from a time on, such as server=3@120s, or for a while, such as server=3@120s+30s
    #[arg(long, value_name = "CONDITION", value_parser = conditions::fail)]
    fail: Vec<conditions::Conditions>,
    /// Server that changes its speed from a time on: server=3@60s:0.5 halves it
    #[arg(long, value_name = "CONDITION", value_parser = conditions::slow)]
    slow: Vec<conditions::Conditions>,
    /// Server that also serves other clients from a time on: server=3@60s:48 keeps 48 of their requests running
    #[arg(long, value_name = "CONDITION", value_parser = conditions::busy)]
    busy: Vec<conditions::Conditions>,
    /// Time between two readings of a server's metrics; several values are separated by commas
    #[arg(long, default_value = "50ms", value_delimiter = ',', value_parser = values::interval)]
    interval: Vec<Duration>,
    /// Time from the request for a server's metrics until they are read
    #[arg(long, default_value = "2ms", value_parser = values::duration)]
    latency: Duration,
    /// Largest random addition to --latency
    #[arg(long, default_value = "3ms", value_parser = values::duration)]
    jitter: Duration,
    /// Time to first token up to which an answer counts as good
    #[arg(long, default_value = "5s", value_parser = values::duration)]
    slo_ttft: Duration,
    /// Mean time between tokens up to which an answer counts as good
    #[arg(long, default_value = "200ms", value_parser = values::duration)]
    slo_tbt: Duration,
    /// Number of requests to play, from the start of the trace; 0 means all
    #[arg(long, default_value_t = 0)]
    requests: usize,
    /// Length of a generated load
    #[arg(long = "for", default_value = "10m", value_parser = values::length)]
    length: Duration,
    /// File for the report: one HTML page with plots
    #[arg(long, value_name = "PATH")]
    report: Option<PathBuf>,
    /// File for the figures as JSON. With - the figures go to standard output in place of the table
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,
    /// Folder for captures of the decisions, one for each configuration: those of the first replica in the first run.
    /// `pointsman replay` makes them again
    #[arg(long, value_name = "FOLDER")]
    capture: Option<PathBuf>,
}

/// Runs the experiments, and writes the table, the report and the figures.
pub(super) fn run(args: &SimulateArgs, registry: Registry) -> ExitCode {
    match simulate(args, registry) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn simulate(args: &SimulateArgs, registry: Registry) -> anyhow::Result<()> {
    let conditions =
        [&args.fail, &args.slow, &args.busy].into_iter().flatten().flat_map(|given| given.0.clone());
    let conditions: Vec<Condition> = conditions.collect();
    for condition in &conditions {
        let (server, servers) = (condition.server, args.servers);
        anyhow::ensure!(server < servers, "server={server}: there are {servers} servers, numbered from 0");
    }
    let captures = args.capture.clone().map(|folder| Rc::new(captures::Captures::new(folder)));
    let experiment = Experiment {
        policies: policies::policies(&args.config, registry, captures.as_ref())?,
        servers: args.servers,
        profile: args.engine,
        rates: args.rate.clone(),
        replicas: args.replicas.0.clone(),
        intervals: args.interval.clone(),
        latency: args.latency,
        jitter: args.jitter,
        conditions,
        objective: Objective { first_token: args.slo_ttft, between_tokens: args.slo_tbt },
        seeds: (0..args.seeds).map(|number| args.seed.wrapping_add(number)).collect(),
    };
    let mut told = Instant::now();
    let report = experiment.run(&|seed| workload(args, seed), &mut |step| tell(&mut told, step))?;
    if let Some(captures) = captures {
        captures.end();
    }
    write(args, &report)
}

/// The requests of a seed.
fn workload(args: &SimulateArgs, seed: u64) -> anyhow::Result<Workload> {
    let path = Path::new(&args.trace);
    let whole = match Generator::named(&args.trace) {
        Some(generator) => generator.workload(args.servers, args.length, seed),
        None if !path.exists() => {
            let names: Vec<&str> = GENERATORS.iter().map(|generator| generator.name).collect();
            anyhow::bail!(
                "--trace: there is no file {:?}; made-up loads are {}",
                args.trace,
                names.join(", ")
            )
        }
        None => read_trace(path, seed)?,
    };
    Ok(if args.requests == 0 { whole } else { whole.first(args.requests) })
}

/// Prints a line of progress every [`BETWEEN_LINES`].
fn tell(told: &mut Instant, step: Step<'_>) {
    if told.elapsed() < BETWEEN_LINES {
        return;
    }
    *told = Instant::now();
    let Step { number, of, policy, progress } = step;
    let end = if io::stderr().is_terminal() { '\r' } else { '\n' };
    eprint!(
        "run {number} of {of}, {policy}: {} of {} requests, {:.0} s of virtual time   {end}",
        progress.over,
        progress.of,
        progress.now.as_secs_f64()
    );
}

fn write(args: &SimulateArgs, figures: &Report) -> anyhow::Result<()> {
    let json = || serde_json::to_string_pretty(figures).context("cannot write the figures");
    let (to, page) = (args.json.as_deref(), args.report.as_deref());
    report::write(to, page, || figures.table(), json, || html(figures))
}
