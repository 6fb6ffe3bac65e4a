//! The results of an experiment, as a JSON document and as a table.

use std::fmt::Write as _;

use serde::Serialize;

use super::compare::{Compared, Ratio};

/// All results of an experiment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The version of the program.
    pub version: &'static str,
    /// The name of the workload.
    pub trace: String,
    /// The profile of the engine.
    pub engine: String,
    /// The number of servers.
    pub servers: usize,
    /// The seeds of the runs.
    pub seeds: Vec<u64>,
    /// The longest time to the first token, in milliseconds, that goodput allows.
    pub slo_ttft_ms: f64,
    /// The longest mean time between tokens, in milliseconds, that goodput allows.
    pub slo_tbt_ms: f64,
    /// One scenario for each combination of rate, replicas and interval.
    pub scenarios: Vec<Scenario>,
}

/// The choosers under the same circumstances.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Scenario {
    /// The multiple of the trace's rate.
    pub rate: f64,
    /// The number of replicas of the picker.
    pub replicas: usize,
    /// The time between two readings of a server, in milliseconds.
    pub interval_ms: f64,
    /// The results of each chooser. The first one is the chooser that the others are compared with.
    pub choosers: Vec<Compared>,
    /// The plotted lines of the first seed, for each chooser.
    pub plots: Vec<Plot>,
}

/// The plotted lines of one run, reduced to few points.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Plot {
    /// The name of the chooser.
    pub name: String,
    /// The times to the first token, in milliseconds, at evenly spaced shares of the requests from 0 to 1.
    pub ttft_ms: Vec<f64>,
    /// The times, in seconds, of the points of the lines below.
    pub seconds: Vec<f64>,
    /// The number of waiting and running requests, for each server.
    pub load: Vec<Vec<f64>>,
    /// The share of prompt tokens that caches had since the point before.
    pub hit_rate: Vec<f64>,
}

impl Report {
    /// Writes the table for the terminal.
    pub fn table(&self) -> String {
        let mut text = String::new();
        let seeds = self.seeds.len();
        let _ = writeln!(
            text,
            "{} on {} servers like {}; {seeds} seed{}; goodput: first token within {} ms, then at most {} ms a token",
            self.trace,
            self.servers,
            self.engine,
            if seeds == 1 { "" } else { "s" },
            self.slo_ttft_ms,
            self.slo_tbt_ms
        );
        for scenario in &self.scenarios {
            scenario.write(&mut text);
        }
        text
    }
}

impl Scenario {
    fn write(&self, text: &mut String) {
        let (rate, replicas, interval) = (self.rate, self.replicas, self.interval_ms);
        let s = if replicas == 1 { "" } else { "s" };
        let infinite = self.choosers.first().map_or(0.0, |first| first.mean.infinite_hit_rate);
        let _ = writeln!(
            text,
            "\nrate {rate}x, {replicas} replica{s}, a reading every {interval} ms; an infinite cache hits {:.2} %",
            infinite * 100.0
        );
        let width = self.choosers.iter().map(|chooser| chooser.name.len()).max().unwrap_or(0).max(8);
        let _ = writeln!(
            text,
            "{:width$} {:>37} {:>23} {:>7} {:>7} {:>7} {:>7} {:>6}  p90 of the first token to the default's",
            "", "first token, ms", "between tokens, ms", "good-", "cache", "imbal-", "regret", "not"
        );
        let _ = writeln!(
            text,
            "{:width$} {:>7} {:>9} {:>9} {:>9} {:>7} {:>7} {:>7} {:>7} {:>7} {:>7} {:>7} {:>6}",
            "", "mean", "p50", "p90", "p99", "mean", "p90", "p99", "put %", "hits %", "ance", "ms", "done"
        );
        for chooser in &self.choosers {
            let mean = &chooser.mean;
            let (first, between) = (mean.ttft_ms, mean.tbt_ms);
            let _ = writeln!(
                text,
                "{:width$} {:>7.0} {:>9.0} {:>9.0} {:>9.0} {:>7.0} {:>7.0} {:>7.0} {:>7.1} {:>7.2} {:>7.2} {:>7.0} {:>6}  {}",
                chooser.name,
                first.mean,
                first.p50,
                first.p90,
                first.p99,
                between.mean,
                between.p90,
                between.p99,
                mean.goodput * 100.0,
                mean.hit_rate * 100.0,
                mean.imbalance,
                mean.regret_ms,
                mean.requests - mean.answered,
                chooser.ratios.get("ttft_p90_ms").map_or_else(String::new, spelled)
            );
        }
        let _ = writeln!(text, "{:width$} share of requests by server, %", "");
        for chooser in &self.choosers {
            let shares: Vec<String> =
                chooser.mean.shares.iter().map(|share| format!("{:.1}", share * 100.0)).collect();
            let _ = writeln!(text, "{:width$} {}", chooser.name, shares.join(" "));
        }
        for chooser in &self.choosers {
            if let Some(error) = chooser.mean.prediction_error {
                let (name, error) = (&chooser.name, error * 100.0);
                let _ = writeln!(
                    text,
                    "{name:width$} mean error of predicted times to the first token: {error:.1} %"
                );
            }
        }
    }
}

/// Writes a ratio for people.
pub(super) fn spelled(ratio: &Ratio) -> String {
    match (ratio.low, ratio.high) {
        (Some(low), Some(high)) => format!("{:.3} ({low:.3} to {high:.3})", ratio.mean),
        _ => format!("{:.3}", ratio.mean),
    }
}
