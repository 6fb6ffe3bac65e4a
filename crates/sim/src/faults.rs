//! Faults that can be switched on and off while a server runs.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The faults of a server. The first group concerns everything but `/metrics` and `/sim/`, the second `/metrics`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// Requests are read and get no answer; streams stand still. Both go on when the switch is cleared.
    pub hang: bool,
    /// Share of requests, 0 to 1, that is answered with `error_status`.
    pub error_rate: f64,
    /// Status of these answers, 400 to 599.
    pub error_status: u16,
    /// The connection is reset when a request has been read, and in the middle of streams.
    pub reset: bool,
    /// Delay before each answer, in milliseconds.
    pub slow_ms: u64,

    /// The numbers on the page stay as they were when the switch was set.
    pub stale_metrics: bool,
    /// `/metrics` gets no answer until the switch is cleared.
    pub hang_metrics: bool,
    /// The page is no metrics page: broken lines, odd numbers, an unterminated end.
    pub garbage_metrics: bool,
    /// Status of `/metrics` answers, 200 to 599; any other than 200 comes with an empty body.
    pub metrics_status: u16,
    /// Delay before each `/metrics` answer, in milliseconds.
    pub metrics_delay_ms: u64,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            hang: false,
            error_rate: 0.0,
            error_status: 500,
            reset: false,
            slow_ms: 0,
            stale_metrics: false,
            hang_metrics: false,
            garbage_metrics: false,
            metrics_status: 200,
            metrics_delay_ms: 0,
        }
    }
}

impl Faults {
    /// These faults with the fields that `changes`, a JSON object, names. The others stay as they are.
    pub(crate) fn with(&self, changes: &[u8]) -> Result<Self, String> {
        let changes: serde_json::Map<String, Value> =
            serde_json::from_slice(changes).map_err(|error| error.to_string())?;
        let Ok(Value::Object(mut merged)) = serde_json::to_value(self) else {
            return Err("faults cannot be written as an object".to_owned());
        };
        merged.extend(changes);
        let faults: Self =
            serde_json::from_value(Value::Object(merged)).map_err(|error| error.to_string())?;
        if !(0.0..=1.0).contains(&faults.error_rate) {
            return Err(format!("error_rate {} is not between 0 and 1", faults.error_rate));
        }
        if !(400..600).contains(&faults.error_status) {
            return Err(format!("error_status {} is not between 400 and 599", faults.error_status));
        }
        if !(200..600).contains(&faults.metrics_status) {
            return Err(format!("metrics_status {} is not between 200 and 599", faults.metrics_status));
        }
        Ok(faults)
    }
}

/// Load figures that the metrics page shows instead of the real ones, for every engine of the server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FakeMetrics {
    /// Waiting requests.
    pub waiting: Option<usize>,
    /// Running requests.
    pub running: Option<usize>,
    /// KV-cache usage; 0 to 1 in a real server, any number here.
    pub kv: Option<f64>,
}

/// The page of a server with `garbage_metrics`. No line of it is a readable sample of a load figure.
pub(crate) const GARBAGE: &str = "# TYPE vllm:num_requests_waiting banana\n\
    vllm:num_requests_waiting{engine=\"0\",model_name=\"m 3\n\
    vllm:num_requests_running{engine=\"0\",model_name=\"m\"} eleven\n\
    vllm:kv_cache_usage_perc{engine=\"0\" model_name=\"m\"} 0..5\n\
    \u{0}\u{1}\u{fffd}{{{{ = \"\n\
    <html><body>bad gateway</body></html>\n\
    vllm:num_requests_waiting{engine=\"0\",model_na";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_named_switches_change() {
        let slow = Faults::default().with(br#"{"slow_ms": 5}"#).unwrap();
        let both = slow.with(br#"{"hang": true}"#).unwrap();
        assert_eq!(both, Faults { slow_ms: 5, hang: true, ..Faults::default() });
    }

    #[test]
    fn wrong_names_and_values_are_refused() {
        for changes in [
            r#"{"hagn": true}"#,
            r#"{"error_rate": 1.5}"#,
            r#"{"error_status": 200}"#,
            r#"{"metrics_status": 99}"#,
            r#"{"hang": 1}"#,
            "[]",
            "",
        ] {
            assert!(Faults::default().with(changes.as_bytes()).is_err(), "{changes}");
        }
    }
}
