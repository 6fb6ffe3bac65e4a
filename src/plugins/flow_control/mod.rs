//! The plugins of flow control: saturation detectors, which filter too, and policies. Each gives a value of
//! [`crate::flow`].

pub mod concurrency_detector;
pub mod fairness;
pub mod ordering;
pub mod program_aware;
pub mod usage_limits;
pub mod utilization_detector;

use super::{BuildCx, BuildError};

/// A share by which a filter may exceed a limit.
fn headroom(cx: &mut BuildCx<'_>, value: f64) -> Result<f64, BuildError> {
    if !value.is_finite() || value < 0.0 {
        return Err(BuildError::at("headroom", format!("got {value}, expected a number of at least 0")));
    }
    if value > 1.0 {
        cx.warn(format!("headroom: {value} lets endpoints take more than twice their limit"));
    }
    Ok(value)
}

/// A limit that must be at least 1.
fn positive(name: &str, value: i64) -> Result<u64, BuildError> {
    u64::try_from(value)
        .ok()
        .filter(|value| *value > 0)
        .ok_or_else(|| BuildError::at(name, format!("got {value}, expected a whole number of at least 1")))
}

#[cfg(test)]
mod tests;
