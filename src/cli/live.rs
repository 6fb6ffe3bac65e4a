//! The running configuration, as debug pages and health checks see it.

use serde_json::{Value, json};

use crate::admin::PluginState;
use crate::config::{Origin, Plan, PlannedInstance};
use crate::document::Level;
use crate::plugins::StateReader;
use crate::request::ParserKind;

/// The running configuration, as debug pages and health checks see it.
pub(super) struct Live {
    /// The configuration as text, with every default filled in.
    pub(super) effective: String,
    /// Its parsers.
    pub(super) parsers: Vec<ParserKind>,
    /// What is doubtful about it, one text each.
    pub(super) warnings: Vec<String>,
    instances: Vec<PlannedInstance>,
}

impl Live {
    /// The view of this plan.
    pub(super) fn of(plan: &Plan) -> Self {
        Self {
            effective: plan.effective_yaml(),
            parsers: plan.parsers.iter().map(|parser| parser.kind).collect(),
            warnings: plan.problems.of(Level::Warning).map(ToString::to_string).collect(),
            instances: plan.instances.clone(),
        }
    }

    /// What plugins know about the engines' caches, by plugin name.
    pub(super) fn prefix_states(&self) -> Value {
        let known = self.instances.iter();
        let known = known.filter_map(|it| Some((it.name.to_string(), it.prefix.as_ref()?.read())));
        Value::Object(known.collect())
    }

    /// State of each plugin.
    pub(super) fn plugin_states(&self) -> Vec<PluginState> {
        self.instances.iter().map(state).collect()
    }
}

fn state(instance: &PlannedInstance) -> PluginState {
    PluginState {
        name: instance.name.to_string(),
        kind: instance.kind.to_owned(),
        roles: instance.roles.clone(),
        added: match &instance.origin {
            Origin::Listed => None,
            Origin::Injected(reason) => Some(reason.clone()),
        },
        state: match (instance.missing, &instance.state) {
            (Some(without), _) => Some(json!({"inForce": false, "reason": without})),
            (None, state) => state.as_ref().map(StateReader::read),
        },
    }
}
