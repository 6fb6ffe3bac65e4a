//! Runs an experiment: each chooser in each scenario with each seed.

use std::time::Duration;

use pointsman_sim::EngineProfile;

use super::compare::compare;
use super::figures::{Figures, Objective, figures};
use super::picker::Brain;
use super::plot::plot;
use super::report::{Plot, Report, Scenario};
use super::workload::{Condition, Workload};
use super::world::{Chooser, Progress, Setting, run};

/// Makes a replica of the picker from a seed and the named priorities of a workload.
pub type MakeBrain<'p> = Box<dyn Fn(u64, &[(String, i32)]) -> anyhow::Result<Brain> + 'p>;

/// A chooser of servers.
pub struct Policy<'p> {
    /// The name of the chooser in the report.
    pub name: String,
    /// Makes the replicas of a picker. `None` sends requests to the servers in turn.
    pub brain: Option<MakeBrain<'p>>,
}

impl std::fmt::Debug for Policy<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Policy").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The runs of an experiment.
#[derive(Debug)]
pub struct Experiment<'p> {
    /// The choosers. The report compares the others with the first one.
    pub policies: Vec<Policy<'p>>,
    /// The number of servers.
    pub servers: usize,
    /// The profile of the servers' engine.
    pub profile: &'static EngineProfile,
    /// The multiples of the workload's rate to run.
    pub rates: Vec<f64>,
    /// The numbers of replicas to run.
    pub replicas: Vec<usize>,
    /// The times between two readings of a server to run.
    pub intervals: Vec<Duration>,
    /// The time from the request for a server's metrics until they are read.
    pub latency: Duration,
    /// The largest random addition to that time.
    pub jitter: Duration,
    /// The faults of servers, in addition to those of the workload.
    pub conditions: Vec<Condition>,
    /// The objective by which goodput is counted.
    pub objective: Objective,
    /// The seeds of the runs.
    pub seeds: Vec<u64>,
}

/// The run that is under way, and its progress.
#[derive(Debug, Clone, Copy)]
pub struct Step<'s> {
    /// The number of the run, from 1.
    pub number: usize,
    /// The number of all runs.
    pub of: usize,
    /// The name of the chooser.
    pub policy: &'s str,
    /// The progress of the run.
    pub progress: Progress,
}

impl Experiment<'_> {
    /// Runs each chooser in each scenario with each seed. `workload` makes the requests of a seed.
    pub fn run(
        &self,
        workload: &dyn Fn(u64) -> anyhow::Result<Workload>,
        step: &mut dyn FnMut(Step<'_>),
    ) -> anyhow::Result<Report> {
        let mut report = Report {
            version: env!("CARGO_PKG_VERSION"),
            trace: String::new(),
            engine: format!("{} ({})", self.profile.name, self.profile.about),
            servers: self.servers,
            seeds: self.seeds.clone(),
            slo_ttft_ms: self.objective.first_token.as_secs_f64() * 1e3,
            slo_tbt_ms: self.objective.between_tokens.as_secs_f64() * 1e3,
            scenarios: Vec::new(),
        };
        let circumstances = self.circumstances();
        let mut number = 0;
        for (rate, replicas, interval) in &circumstances {
            let mut runs: Vec<Vec<Figures>> = vec![Vec::new(); self.policies.len()];
            let mut plots: Vec<Plot> = Vec::new();
            for seed in &self.seeds {
                let workload = workload(*seed)?.at_rate(*rate);
                report.trace.clone_from(&workload.name);
                let infinite = workload.infinite_cache();
                let setting = self.setting(*replicas, *interval, *seed);
                for (policy, runs) in self.policies.iter().zip(&mut runs) {
                    number += 1;
                    let of = circumstances.len() * self.seeds.len() * self.policies.len();
                    let mut tell = |progress| step(Step { number, of, policy: &policy.name, progress });
                    let notes = run(&workload, &setting, || policy.choosers(&workload, &setting), &mut tell)?;
                    runs.push(figures(&workload, &notes, self.objective, infinite));
                    if Some(seed) == self.seeds.first() {
                        plots.push(plot(&policy.name, &notes));
                    }
                }
            }
            let first = runs.first().cloned().unwrap_or_default();
            let compared =
                self.policies.iter().zip(&runs).map(|(policy, runs)| compare(&policy.name, runs, &first));
            report.scenarios.push(Scenario {
                rate: *rate,
                replicas: *replicas,
                interval_ms: interval.as_secs_f64() * 1e3,
                choosers: compared.collect(),
                plots,
            });
        }
        Ok(report)
    }

    fn circumstances(&self) -> Vec<(f64, usize, Duration)> {
        let mut all = Vec::new();
        for rate in &self.rates {
            for replicas in &self.replicas {
                all.extend(self.intervals.iter().map(|interval| (*rate, *replicas, *interval)));
            }
        }
        all
    }

    fn setting(&self, replicas: usize, interval: Duration, seed: u64) -> Setting {
        Setting {
            servers: self.servers,
            profile: self.profile,
            replicas,
            interval,
            latency: self.latency,
            jitter: self.jitter,
            seed,
            conditions: self.conditions.clone(),
            objective: self.objective,
        }
    }
}

impl Policy<'_> {
    fn choosers(&self, workload: &Workload, setting: &Setting) -> anyhow::Result<Chooser> {
        let Some(brain) = &self.brain else { return Ok(Chooser::RoundRobin) };
        let seeds = (0..setting.replicas as u64)
            .map(|replica| setting.seed.wrapping_mul(0x1_0000).wrapping_add(replica));
        let brains = seeds.map(|seed| brain(seed, &workload.objectives)).collect::<anyhow::Result<_>>()?;
        Ok(Chooser::Pickers(brains))
    }
}
