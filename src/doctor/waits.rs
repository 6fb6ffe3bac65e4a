//! How long requests may wait in the picker, and the time spans that configurations and Envoy write.

use serde_json::Value;

use crate::document::scalar::go_duration;

/// The longest waits that a configuration allows, in seconds. A wait without a limit counts as [`FOR_EVER`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Waits {
    /// The longest wait in a queue while all servers are full.
    pub queue: f64,
    /// The longest wait while the pool has no server.
    pub no_endpoint: f64,
}

/// The seconds that stand for a wait without a limit, which configurations write as `0s`: one day.
pub const FOR_EVER: f64 = 86_400.0;

impl Waits {
    /// Reads the waits of an effective configuration. `None` if flow control is off, so that no request waits.
    pub fn of(effective: &Value) -> Option<Self> {
        let gates = effective["featureGates"].as_array()?;
        let on = gates
            .iter()
            .filter_map(Value::as_str)
            .any(|gate| gate == "flowControl" || gate == "flowControl=true");
        let section = on.then(|| &effective["flowControl"]).filter(|section| section.is_object())?;
        let limit = |seconds: f64| if seconds > 0.0 { seconds } else { FOR_EVER };
        let ttl = |value: &Value| go_seconds(value["defaultRequestTTL"].as_str()?).map(limit);
        let bands = section["priorityBands"].as_array().into_iter().flatten();
        let defaults = [&section["defaultPriorityBand"], &section["defaultNegativePriorityBand"]];
        let queue = bands.chain(defaults).chain([section]).filter_map(ttl).fold(0.0, f64::max);
        let no_endpoint = section["noEndpointRequestTTL"].as_str().and_then(go_seconds).map_or(queue, limit);
        Some(Self { queue, no_endpoint })
    }

    /// The longer of the two waits.
    pub fn longest(self) -> f64 {
        self.queue.max(self.no_endpoint)
    }
}

/// Reads a time span as Go writes it (`1m0s`, `10.5s`, `300ms`), in seconds. `None` if the text is not a time span or
/// is below zero.
pub fn go_seconds(text: &str) -> Option<f64> {
    go_duration(text).ok().map(|span| span.as_secs_f64())
}

/// The number of seconds, as a text for people.
pub fn shown(seconds: f64) -> String {
    if seconds < 1.0 {
        format!("{:.0} ms", seconds * 1e3)
    } else {
        format!("{} s", (seconds * 10.0).round() / 10.0)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn spans_of_go_are_read() {
        for (text, seconds) in
            [("1m0s", 60.0), ("10m0s", 600.0), ("1.5s", 1.5), ("1h2m3s", 3723.0), ("0.2s", 0.2)]
        {
            assert_eq!(go_seconds(text), Some(seconds), "{text}");
        }
        for text in ["", "1", "s", "1x", "-1s"] {
            assert_eq!(go_seconds(text), None, "{text}");
        }
        assert_eq!((shown(0.2), shown(15.0), shown(1.25)), ("200 ms".into(), "15 s".into(), "1.3 s".into()));
    }

    #[test]
    fn the_longest_wait_is_that_of_the_slowest_band() {
        let effective = json!({
            "featureGates": ["flowControl=true"],
            "flowControl": {
                "defaultRequestTTL": "1m0s",
                "noEndpointRequestTTL": "10m0s",
                "priorityBands": [{"priority": 0}, {"priority": 1, "defaultRequestTTL": "20m0s"}],
            },
        });
        assert_eq!(Waits::of(&effective), Some(Waits { queue: 1200.0, no_endpoint: 600.0 }));
        let for_ever = json!({
            "featureGates": ["flowControl"],
            "flowControl": {"defaultRequestTTL": "1m0s", "noEndpointRequestTTL": "0s"},
        });
        assert_eq!(Waits::of(&for_ever), Some(Waits { queue: 60.0, no_endpoint: FOR_EVER }));
        assert_eq!(Waits::of(&json!({"featureGates": ["flowControl=false"], "flowControl": {}})), None);
    }
}
