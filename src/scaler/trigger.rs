//! The request of a ScaledObject's trigger.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::time::Duration;

use super::{ScalerSource, milli};
use crate::document::{hint, scalar::go_duration};

/// Cool-down where the trigger names none. KEDA's own `cooldownPeriod` comes after it.
const DEFAULT_COOL_DOWN: Duration = Duration::from_secs(30);
/// Longest cool-down.
const MAX_COOL_DOWN: Duration = Duration::from_hours(24);

/// Keys that are Pointsman's.
const OWN: [&str; 5] = ["metric", "targetValue", "activationValue", "coolDown", "pool"];
/// Keys that tell KEDA how to reach a scaler. It passes on all that the trigger has.
const OF_KEDA: [&str; 7] =
    ["scalerAddress", "enableTLS", "unsafeSsl", "caCert", "tlsCertFile", "tlsClientCert", "tlsClientKey"];

/// A key of the metadata that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("metadata key `{key}`: {fault}")]
pub struct TriggerError {
    /// The key.
    pub key: String,
    /// The value that it has, and the values that would be right.
    pub fault: String,
}

/// The figure that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// Requests that wait.
    QueueDepth,
    /// Requests that run.
    RunningRequests,
    /// Prompt tokens of the requests that wait.
    QueuedTokens,
    /// Saturation of the pool, 1.0 = full.
    Saturation,
}

impl Metric {
    const NAMES: [&str; 4] = ["queueDepth", "runningRequests", "queuedTokens", "saturation"];

    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "queueDepth" => Self::QueueDepth,
            "runningRequests" => Self::RunningRequests,
            "queuedTokens" => Self::QueuedTokens,
            "saturation" => Self::Saturation,
            _ => return None,
        })
    }

    /// Name under which the autoscaler asks for the value. Lower case: it becomes part of a path.
    pub fn name(self) -> &'static str {
        match self {
            Self::QueueDepth => "pointsman-queue-depth",
            Self::RunningRequests => "pointsman-running-requests",
            Self::QueuedTokens => "pointsman-queued-tokens",
            Self::Saturation => "pointsman-saturation",
        }
    }

    /// The value now; `None` if it is not known.
    pub fn value(self, source: &dyn ScalerSource) -> Option<f64> {
        let value = match self {
            Self::QueueDepth => source.queue_depth() as f64,
            Self::RunningRequests => source.running() as f64,
            Self::QueuedTokens => source.queued_tokens() as f64,
            Self::Saturation => source.saturation(),
        };
        value.is_finite().then(|| milli::held(value))
    }
}

/// A trigger, as its metadata has it.
///
/// | key | value | default |
/// |---|---|---|
/// | `metric` | `queueDepth`, `runningRequests`, `queuedTokens` or `saturation` | `queueDepth` |
/// | `targetValue` | number from 0.001, rounded up to thousandths, in the metric's unit: per server, or for the pool with `metricType: Value` | required |
/// | `activationValue` | waiting requests, whatever the metric, above which a pool at zero wakes | 0 |
/// | `coolDown` | Go duration up to 24h without work before the pool counts as inactive | 30s |
/// | `pool` | name of the pool, to be sure of asking the right Pointsman | not compared |
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trigger {
    /// The figure that is measured.
    pub metric: Metric,
    /// Its target, at least 0.001, a whole number of thousandths.
    pub target: f64,
    /// Waiting requests above which a pool wakes.
    pub activation: u64,
    /// Time without work before the pool counts as inactive.
    pub cool_down: Duration,
}

impl Trigger {
    /// Reads the metadata of a trigger that asks about the pool `pool`.
    pub fn read<S: BuildHasher>(
        metadata: &HashMap<String, String, S>,
        pool: &str,
    ) -> Result<Self, TriggerError> {
        let mut keys: Vec<&str> = metadata.keys().map(String::as_str).collect();
        keys.sort_unstable();
        for key in keys {
            if !OWN.contains(&key) && !OF_KEDA.contains(&key) && !key.ends_with("FromEnv") {
                return Err(error(key, format!("is not known{}", hint(key, &OWN))));
            }
        }
        let value = |key: &str| metadata.get(key).map(|value| value.trim());
        if let Some(named) = value("pool")
            && named != pool
        {
            return Err(error("pool", format!("got {}, this Pointsman serves `{pool}`", quoted(named))));
        }
        let metric = match value("metric") {
            None => Metric::QueueDepth,
            Some(text) => Metric::parse(text).ok_or_else(|| {
                error("metric", format!("got {}{}", quoted(text), hint(text, &Metric::NAMES)))
            })?,
        };
        let target = value("targetValue").ok_or_else(|| {
            error("targetValue", format!("is missing, expected the target for {}", metric.name()))
        })?;
        let target = number(target).filter(|target| *target > 0.0).ok_or_else(|| {
            error("targetValue", format!("got {}, expected a number above 0 such as 250", quoted(target)))
        })?;
        if target < milli::LEAST {
            let text = value("targetValue").unwrap_or_default();
            let least = milli::LEAST;
            let fault = format!(
                "got {}, expected {least} or more: KEDA cuts off behind the third decimal",
                quoted(text)
            );
            return Err(error("targetValue", fault));
        }
        let target = milli::round_up(target);
        let activation = match value("activationValue") {
            None => 0,
            Some(text) => text.parse().map_err(|_| {
                let fault = format!("got {}, expected a number of waiting requests such as 0", quoted(text));
                error("activationValue", fault)
            })?,
        };
        let cool_down = match value("coolDown") {
            None => DEFAULT_COOL_DOWN,
            Some(text) => go_duration(text).map_err(|fault| error("coolDown", fault))?,
        };
        if cool_down > MAX_COOL_DOWN {
            let text = value("coolDown").unwrap_or_default();
            return Err(error("coolDown", format!("got {}, expected at most 24h", quoted(text))));
        }
        Ok(Self { metric, target, activation, cool_down })
    }
}

fn number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number: &f64| number.is_finite() && *number <= milli::MOST)
}

/// A value as an error text shows it, cut short.
fn quoted(text: &str) -> String {
    let shown: String = text.chars().take(64).collect();
    format!("`{}`", shown.escape_debug())
}

fn error(key: &str, fault: String) -> TriggerError {
    TriggerError { key: key.chars().take(64).collect(), fault }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Trigger, TriggerError> {
        let metadata: HashMap<_, _> =
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Trigger::read(&metadata, "llama")
    }

    fn refused(pairs: &[(&str, &str)]) -> String {
        read(pairs).unwrap_err().to_string()
    }

    #[test]
    fn a_target_is_all_that_a_trigger_needs() {
        let trigger = read(&[("scalerAddress", "epp:9004"), ("targetValue", "250")]).unwrap();
        let expected = Trigger {
            metric: Metric::QueueDepth,
            target: 250.0,
            activation: 0,
            cool_down: Duration::from_secs(30),
        };
        assert_eq!(trigger, expected);
    }

    #[test]
    fn every_key_is_read() {
        let trigger = read(&[
            ("metric", "saturation"),
            ("targetValue", "0.8"),
            ("activationValue", "3"),
            ("coolDown", "1m30s"),
            ("pool", "llama"),
            ("enableTLS", "false"),
            ("tokenFromEnv", "X"),
        ]);
        let expected = Trigger {
            metric: Metric::Saturation,
            target: 0.8,
            activation: 3,
            cool_down: Duration::from_secs(90),
        };
        assert_eq!(trigger, Ok(expected));
    }

    #[test]
    fn a_refusal_names_the_key_the_value_and_what_would_be_right() {
        let target = ("targetValue", "1");
        assert_eq!(
            refused(&[]),
            "metadata key `targetValue`: is missing, expected the target for pointsman-queue-depth"
        );
        assert_eq!(
            refused(&[("metric", "queuedepht"), target]),
            "metadata key `metric`: got `queuedepht`; did you mean `queueDepth`?"
        );
        for value in ["0", "-1", "NaN", "inf", "many", "", "1e300"] {
            assert_eq!(
                refused(&[("targetValue", value)]),
                format!("metadata key `targetValue`: got `{value}`, expected a number above 0 such as 250")
            );
        }
        assert_eq!(
            refused(&[("activationValue", "-1"), target]),
            "metadata key `activationValue`: got `-1`, expected a number of waiting requests such as 0"
        );
        assert_eq!(
            refused(&[("coolDown", "30"), target]),
            "metadata key `coolDown`: got \"30\", expected a duration such as \"2s\", \"100ms\" or \"1h30m\""
        );
        assert_eq!(
            refused(&[("coolDown", "25h"), target]),
            "metadata key `coolDown`: got `25h`, expected at most 24h"
        );
        assert_eq!(
            refused(&[("pool", "qwen"), target]),
            "metadata key `pool`: got `qwen`, this Pointsman serves `llama`"
        );
        assert_eq!(
            refused(&[("targetvalue", "1"), target]),
            "metadata key `targetvalue`: is not known; did you mean `targetValue`?"
        );
    }

    #[test]
    fn a_target_that_keda_would_hold_as_zero_is_refused() {
        for value in ["0.0004", "0.000999", "1e-9", "0.0000000000000000001"] {
            let expected = format!(
                "metadata key `targetValue`: got `{value}`, expected 0.001 or more: KEDA cuts off behind the third decimal"
            );
            assert_eq!(refused(&[("targetValue", value)]), expected);
        }
        for (value, thousandths) in [("0.001", 1), ("0.0011", 2), ("1.001", 1001), ("0.8", 800)] {
            let target = read(&[("targetValue", value)]).unwrap().target;
            assert_eq!((target * 1000.0) as i64, thousandths, "{value}");
        }
    }

    #[test]
    fn a_refusal_stays_short_whatever_was_sent() {
        let long = "x".repeat(10_000);
        for pairs in [[("pool", long.as_str())], [(long.as_str(), "1")]] {
            assert!(refused(&pairs).len() < 300);
        }
    }
}
