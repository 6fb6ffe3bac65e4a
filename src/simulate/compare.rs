//! Compares choosers (configurations, or round robin) over several seeds.

use std::collections::BTreeMap;

use serde::Serialize;

use super::figures::{Figures, MEASURES, Times};

/// A ratio to the first chooser, with its 95 % confidence interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Ratio {
    /// The geometric mean of the ratios of all seeds.
    pub mean: f64,
    /// The lower end of the interval; `None` with one seed.
    pub low: Option<f64>,
    /// The upper end of the interval; `None` with one seed.
    pub high: Option<f64>,
}

/// The results of one chooser in one scenario.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Compared {
    /// The name of the chooser.
    pub name: String,
    /// The means over the seeds.
    pub mean: Figures,
    /// Ratios to the first chooser, by figure. There is no ratio if the first chooser's figure is 0.
    pub ratios: BTreeMap<&'static str, Ratio>,
    /// The figures of each seed.
    pub seeds: Vec<Figures>,
}

/// Compares the runs of one chooser with those of the first chooser, seed by seed.
pub(super) fn compare(name: &str, runs: &[Figures], first: &[Figures]) -> Compared {
    let mut ratios = BTreeMap::new();
    for measure in MEASURES {
        let logs: Option<Vec<f64>> = runs
            .iter()
            .zip(first)
            .map(|(run, first)| {
                let (value, base) = ((measure.of)(run), (measure.of)(first));
                (value > 0.0 && base > 0.0).then(|| (value / base).ln())
            })
            .collect();
        if let Some(ratio) = logs.and_then(|logs| interval(&logs)) {
            ratios.insert(measure.name, ratio);
        }
    }
    Compared { name: name.to_owned(), mean: mean(runs), ratios, seeds: runs.to_vec() }
}

/// The quantiles of Student's t-distribution at 0.975, for 1 to 30 degrees of freedom.
const STUDENT: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
];

fn interval(logs: &[f64]) -> Option<Ratio> {
    let count = logs.len() as f64;
    let mean = (!logs.is_empty()).then(|| logs.iter().sum::<f64>() / count)?;
    let freedom = logs.len() - 1;
    let half = (freedom > 0).then(|| {
        let variance = logs.iter().map(|log| (log - mean).powi(2)).sum::<f64>() / freedom as f64;
        STUDENT.get(freedom - 1).copied().unwrap_or(1.96) * (variance / count).sqrt()
    });
    Some(Ratio {
        mean: mean.exp(),
        low: half.map(|half| (mean - half).exp()),
        high: half.map(|half| (mean + half).exp()),
    })
}

fn mean(runs: &[Figures]) -> Figures {
    let count = runs.len().max(1);
    let of = |read: &dyn Fn(&Figures) -> f64| runs.iter().map(read).sum::<f64>() / count as f64;
    let whole = |read: &dyn Fn(&Figures) -> usize| (runs.iter().map(read).sum::<usize>() + count / 2) / count;
    let times = |read: &dyn Fn(&Figures) -> Times| Times {
        mean: of(&|run| read(run).mean),
        p50: of(&|run| read(run).p50),
        p90: of(&|run| read(run).p90),
        p95: of(&|run| read(run).p95),
        p99: of(&|run| read(run).p99),
    };
    let servers = runs.first().map_or(0, |run| run.shares.len());
    Figures {
        requests: whole(&|run| run.requests),
        answered: whole(&|run| run.answered),
        refused: whole(&|run| run.refused),
        failed: whole(&|run| run.failed),
        unfinished: whole(&|run| run.unfinished),
        seconds: of(&|run| run.seconds),
        ttft_ms: times(&|run| run.ttft_ms),
        tbt_ms: times(&|run| run.tbt_ms),
        goodput: of(&|run| run.goodput),
        hit_rate: of(&|run| run.hit_rate),
        infinite_hit_rate: of(&|run| run.infinite_hit_rate),
        imbalance: of(&|run| run.imbalance),
        regret_ms: of(&|run| run.regret_ms),
        shares: (0..servers)
            .map(|server| of(&|run| run.shares.get(server).copied().unwrap_or(0.0)))
            .collect(),
        prediction_error: runs
            .iter()
            .map(|run| run.prediction_error)
            .sum::<Option<f64>>()
            .filter(|_| !runs.is_empty())
            .map(|sum| sum / count as f64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(p90: f64) -> Figures {
        Figures { ttft_ms: Times { p90, ..Times::default() }, ..Figures::default() }
    }

    #[test]
    fn a_ratio_compares_seed_by_seed_and_says_how_sure_it_is() {
        let first = [run(100.0), run(200.0), run(400.0)];
        let compared = compare("x", &[run(50.0), run(100.0), run(200.0)], &first);
        let ratio = compared.ratios["ttft_p90_ms"];
        assert!((ratio.mean - 0.5).abs() < 1e-9 && (ratio.high.unwrap() - 0.5).abs() < 1e-9);
        let compared = compare("x", &[run(50.0), run(150.0), run(200.0)], &first);
        let ratio = compared.ratios["ttft_p90_ms"];
        assert!(ratio.low.unwrap() < 0.5 && ratio.high.unwrap() > 0.75, "{ratio:?}");
        assert!(!compared.ratios.contains_key("goodput"), "there is nothing to divide by");
        let one = compare("x", &[run(50.0)], &[run(100.0)]);
        assert_eq!(one.ratios["ttft_p90_ms"].low, None);
    }
}
