//! The capture, wired: flags, the configuration that decides, and the switch on the metrics port.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::ServeFlags;
use crate::admin::{CaptureSwitch, SwitchError};
use crate::capture::lines::{ConfigLine, ProfileLine, ScorerLine};
use crate::capture::{Capture, CaptureSettings, Exact, Limits};
use crate::config::Plan;
use crate::document::scalar;
use crate::metrics::Metrics;
use crate::pool::Pool;
use crate::telemetry::rfc3339;

/// What the flags say of the capture.
#[derive(Clone, Debug)]
pub(super) struct CaptureWish {
    settings: CaptureSettings,
    at_start: bool,
    time: Option<Duration>,
}

impl CaptureWish {
    /// `None` without a folder.
    pub(super) fn new(flags: &ServeFlags) -> Option<Self> {
        let settings = CaptureSettings {
            folder: PathBuf::from(&flags.capture),
            disk: flags.capture_disk,
            file: flags.capture_file,
        };
        let time = Some(flags.capture_time).filter(|time| !time.is_zero());
        let wish = Self { settings, at_start: flags.capture_at_start, time };
        (!flags.capture.is_empty()).then_some(wish)
    }
}

/// The capture of this process.
#[derive(Clone)]
pub(super) struct Capturing {
    pub(super) capture: Arc<Capture>,
    wish: CaptureWish,
    feature_gates: Vec<String>,
    seed: u64,
}

impl Capturing {
    /// Off.
    pub(super) fn new(
        wish: &CaptureWish,
        (metrics, pool): (&Metrics, &Pool),
        feature_gates: &[String],
        seed: u64,
    ) -> Self {
        let name = format!("{}/{}", pool.namespace(), pool.name());
        let capture = Arc::new(Capture::new(wish.settings.clone(), metrics.capture(), name));
        Self { capture, wish: wish.clone(), feature_gates: feature_gates.to_vec(), seed }
    }

    /// This plan decides from now on, as the configuration with this number.
    pub(super) fn decides(&self, plan: &Plan, generation: u64) {
        let line = config_line(plan);
        let feature_gates = self.feature_gates.clone();
        self.capture.decides(ConfigLine { generation, feature_gates, seed: self.seed.to_string(), ..line });
    }

    /// The process begins to decide.
    pub(super) fn begin(&self) {
        let limits = Limits { time: self.wish.time, bytes: None };
        if self.wish.at_start
            && let Err(error) = self.capture.start(limits, 0)
        {
            let folder = self.capture.folder().display();
            tracing::error!(error = error.to_string(), folder = %folder, "the capture cannot begin");
        }
    }

    /// The switch on the metrics port. `first` says the number of the next request.
    pub(super) fn switch(&self, first: impl Fn() -> u64 + Send + Sync + 'static) -> CaptureSwitch {
        let (shown, switched) = (Arc::clone(&self.capture), Arc::clone(&self.capture));
        CaptureSwitch {
            show: Arc::new(move || page(&shown)),
            switch: Arc::new(move |body: &[u8]| {
                let wanted = Wanted::read(body).map_err(SwitchError::Asked)?;
                if wanted.on {
                    let failed = |error: std::io::Error| {
                        let folder = switched.folder().display();
                        SwitchError::Failed(format!("the capture cannot begin in {folder}: {error}"))
                    };
                    switched.start(wanted.limits, first()).map_err(failed)?;
                } else {
                    switched.stop();
                }
                Ok(page(&switched))
            }),
        }
    }
}

/// What somebody wants of the capture.
#[derive(Debug, PartialEq)]
struct Wanted {
    on: bool,
    limits: Limits,
}

impl Wanted {
    fn read(body: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Body {
            on: bool,
            r#for: Option<String>,
            bytes: Option<String>,
        }
        let expected = "expected {\"on\": true, \"for\": \"10m\", \"bytes\": \"256Mi\"} or {\"on\": false}";
        let body: Body = serde_json::from_slice(body).map_err(|error| format!("{expected}: {error}"))?;
        let time = body.r#for.as_deref().map(scalar::go_duration).transpose();
        let bytes = body.bytes.as_deref().map(scalar::quantity).transpose();
        let limits = Limits {
            time: time.map_err(|error| format!("for: {error}"))?,
            bytes: bytes.map_err(|error| format!("bytes: {error}"))?,
        };
        if limits.time.is_some_and(|time| time.is_zero()) || limits.bytes == Some(0) {
            return Err("for and bytes: got 0, expected more".to_owned());
        }
        Ok(Self { on: body.on, limits })
    }
}

fn page(capture: &Capture) -> Value {
    let standing = capture.standing();
    json!({
        "on": standing.on,
        "folder": capture.folder().display().to_string(),
        "capture": standing.name,
        "since": standing.since.map(rfc3339),
        "bytes": standing.bytes,
        "limits": {
            "seconds": standing.limits.time.map(|time| time.as_secs_f64()),
            "bytes": standing.limits.bytes,
        },
        "ended": standing.ended,
    })
}

/// The configuration of a plan, as captures have it.
pub(super) fn config_line(plan: &Plan) -> ConfigLine {
    let profile = |profile: &crate::scheduling::Profile| ProfileLine {
        name: profile.name.to_string(),
        filters: profile.filters.iter().map(|filter| filter.name.to_string()).collect(),
        scorers: profile
            .scorers
            .iter()
            .map(|row| ScorerLine {
                name: row.scorer.name.to_string(),
                r#type: row.scorer.kind.to_owned(),
                weight: Exact(row.weight),
            })
            .collect(),
        picker: profile.picker.name.to_string(),
    };
    ConfigLine {
        digest: format!("{:016x}", xxhash_rust::xxh64::xxh64(plan.text.as_bytes(), 0)),
        text: plan.text.clone(),
        profiles: plan.scheduler.profiles().iter().map(profile).collect(),
        ..ConfigLine::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_of_a_capture_is_read_with_its_limits() {
        let read = |text: &str| Wanted::read(text.as_bytes());
        let limits = Limits { time: Some(Duration::from_mins(10)), bytes: Some(1 << 20) };
        let text = r#"{"on": true, "for": "10m", "bytes": "1Mi"}"#;
        assert_eq!(read(text), Ok(Wanted { on: true, limits }));
        assert_eq!(read(r#"{"on": false}"#), Ok(Wanted { on: false, limits: Limits::default() }));
        for text in
            ["", "{}", r#"{"on": 1}"#, r#"{"on": true, "for": "soon"}"#, r#"{"on": true, "bytes": "0"}"#]
        {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
