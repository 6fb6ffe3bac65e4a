//! Feature gates.

use super::former::why_gate_is_gone;
use crate::document::{Node, Problems, hint};

/// The optional features, each on or off.
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
            gates.set(text, node.line, &path, problems);
        }
        gates
    }

    /// Takes one of `name`, `name=true` and `name=false`, which stands in this line at this path; what is wrong with it
    /// goes to `problems`.
    pub(super) fn set(&mut self, text: &str, line: u32, path: &str, problems: &mut Problems) {
        let (name, value) = text.split_once('=').unwrap_or((text, "true"));
        let on = match value.trim().to_ascii_lowercase().as_str() {
            "1" | "t" | "true" => true,
            "0" | "f" | "false" => false,
            _ => {
                let message = format!("got {text:?}, expected `{name}=true` or `{name}=false`");
                return problems.error(line, path, message);
            }
        };
        match name {
            FLOW_CONTROL => self.flow_control = on,
            HA_POPULATE => self.ha_populate_non_leader_datastore = on,
            _ if let Some(why) = why_gate_is_gone(name) => {
                let message = format!("the feature gate \"{name}\" is gone: {why}; leave it out");
                problems.warning(line, path, message);
            }
            _ => {
                let hint = hint(name, &[FLOW_CONTROL, HA_POPULATE]);
                problems.error(line, path, format!("unknown feature gate \"{name}\"{hint}"));
            }
        }
    }

    /// Every gate as `name=value`.
    pub(super) fn listed(self) -> [String; 2] {
        [
            format!("{FLOW_CONTROL}={}", self.flow_control),
            format!("{HA_POPULATE}={}", self.ha_populate_non_leader_datastore),
        ]
    }
}
