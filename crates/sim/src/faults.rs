//! Faults that can be turned on and off while a server runs.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The faults of a server. The first group affects all paths except `/metrics` and `/sim/`, and the second group
/// affects `/metrics`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// The server reads requests and does not answer them, and streams stand still. Both go on when the fault is turned
    /// off.
    pub hang: bool,
    /// The share of requests, 0 to 1, that get `error_status`.
    pub error_rate: f64,
    /// The status of these answers, 400 to 599.
    pub error_status: u16,
    /// The server resets the connection when it has read a request, and in the middle of streams.
    pub reset: bool,
    /// The delay before each answer, in milliseconds.
    pub slow_ms: u64,

    /// The numbers on the metrics page stay as they were when the fault was turned on.
    pub stale_metrics: bool,
    /// `/metrics` gets no answer until the fault is turned off.
    pub hang_metrics: bool,
    /// The page is not a valid metrics page: it has broken lines, odd numbers and no proper end.
    pub garbage_metrics: bool,
    /// The status of `/metrics`, 200 to 599. An answer with any other status than 200 has an empty body.
    pub metrics_status: u16,
    /// The delay before each answer to `/metrics`, in milliseconds.
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
    /// Returns these faults with the fields changed that `changes`, a JSON object, names.
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

/// Figures that the metrics page shows in place of the real ones, for every engine of the server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FakeMetrics {
    /// The number of waiting requests.
    pub waiting: Option<usize>,
    /// The number of running requests.
    pub running: Option<usize>,
    /// The KV-cache usage. A real server shows 0 to 1; any number may be set here.
    pub kv: Option<f64>,
}

/// The metrics page of a server with `garbage_metrics`. No line is a readable sample of a load figure.
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
