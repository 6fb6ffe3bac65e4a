//! Feature gates.

use super::former::why_gate_is_gone;
use crate::document::{Node, Problems, hint};

/// Which optional features are on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeatureGates {
    /// Requests wait in queues instead of being rejected when the pool is full. Off by default.
    pub flow_control: bool,
    /// Replicas that are not the leader keep their view of the pool as well. On by default.
    pub ha_populate_non_leader_datastore: bool,
}

const FLOW_CONTROL: &str = "flowControl";
const HA_POPULATE: &str = "haPopulateNonLeaderDatastore";

impl Default for FeatureGates {
    fn default() -> Self {
        Self { flow_control: false, ha_populate_non_leader_datastore: true }
    }
}

impl FeatureGates {
    /// Reads `name`, `name=true` and `name=false`; the last of several counts.
    pub(super) fn read(list: &[Node], path: &str, problems: &mut Problems) -> Self {
        let mut gates = Self::default();
        for (index, node) in list.iter().enumerate() {
            let path = format!("{path}[{index}]");
            let Some(text) = node.as_text() else {
                problems.error(node.line, path, format!("got {node}, expected a string"));
                continue;
            };
            let (name, value) = text.split_once('=').unwrap_or((text, "true"));
            let on = match value.trim().to_ascii_lowercase().as_str() {
                "1" | "t" | "true" => true,
                "0" | "f" | "false" => false,
                _ => {
                    problems.error(
                        node.line,
                        path,
                        format!("got {node}, expected `{name}=true` or `{name}=false`"),
                    );
                    continue;
                }
            };
            match name {
                FLOW_CONTROL => gates.flow_control = on,
                HA_POPULATE => gates.ha_populate_non_leader_datastore = on,
                _ if let Some(why) = why_gate_is_gone(name) => {
                    let message = format!("the feature gate \"{name}\" is gone: {why}; leave it out");
                    problems.warning(node.line, path, message);
                }
                _ => {
                    let hint = hint(name, &[FLOW_CONTROL, HA_POPULATE]);
                    problems.error(node.line, path, format!("unknown feature gate \"{name}\"{hint}"));
                }
            }
        }
        gates
    }

    /// Every gate as `name=value`.
    pub(super) fn listed(self) -> [String; 2] {
        [
            format!("{FLOW_CONTROL}={}", self.flow_control),
            format!("{HA_POPULATE}={}", self.ha_populate_non_leader_datastore),
        ]
    }
}
