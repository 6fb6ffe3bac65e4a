//! The results of an experiment, as a document and as a table.

use std::fmt::Write as _;

use serde::Serialize;

use super::compare::{Compared, Ratio};

/// All results of an experiment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Version of the program.
    pub version: &'static str,
    /// The workload.
    pub trace: String,
    /// The engine's profile.
    pub engine: String,
    /// Servers.
    pub servers: usize,
    /// Seeds of the runs.
    pub seeds: Vec<u64>,
    /// Goodput counts answers whose first token came within this time.
    pub slo_ttft_ms: f64,
    /// Goodput counts answers whose mean time between tokens is at most this.
    pub slo_tbt_ms: f64,
    /// One for each combination of rate, replicas and interval.
    pub scenarios: Vec<Scenario>,
}

/// Choosers under the same circumstances.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Scenario {
    /// Multiple of the trace's rate.
    pub rate: f64,
    /// Replicas of the picker.
    pub replicas: usize,
    /// Time between two readings of a server, in milliseconds.
    pub interval_ms: f64,
    /// Choosers, the reference's default first.
    pub choosers: Vec<Compared>,
    /// Plots of the first seed, by chooser.
    pub plots: Vec<Plot>,
}

/// Lines of one run, thinned out.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Plot {
    /// The chooser.
    pub name: String,
    /// Times to first token in milliseconds at evenly spaced shares of the requests, from 0 to 1.
    pub ttft_ms: Vec<f64>,
    /// Seconds of the lines below.
    pub seconds: Vec<f64>,
    /// Waiting and running requests, by server.
    pub load: Vec<Vec<f64>>,
    /// Share of prompt tokens that caches had, in the time since the point before.
    pub hit_rate: Vec<f64>,
}

impl Report {
    /// The table for the terminal.
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
    }
}

/// A ratio as people read it.
pub(super) fn spelled(ratio: &Ratio) -> String {
    match (ratio.low, ratio.high) {
        (Some(low), Some(high)) => format!("{:.3} ({low:.3} to {high:.3})", ratio.mean),
        _ => format!("{:.3}", ratio.mean),
    }
}
