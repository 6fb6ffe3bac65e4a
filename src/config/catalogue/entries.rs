//! The types that a document may name, with their roles.

use crate::config::missing;
use crate::plugins::{PluginType, Registry};

/// A type that a document may name.
#[derive(Clone, Debug)]
pub(super) enum Entry {
    /// One that is built, with its roles, the main one first.
    Built(&'static PluginType, Vec<&'static str>),
    /// One that is not in force yet.
    Missing { name: &'static str, role: &'static str, without: &'static str },
}

impl Entry {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Built(plugin, _) => plugin.name,
            Self::Missing { name, .. } => name,
        }
    }
}

/// All types: those that are built by role and name, then the others by name.
pub(super) fn entries(registry: Registry) -> Vec<Entry> {
    let mut built: Vec<(usize, &'static PluginType, Vec<&'static str>)> = Vec::new();
    for plugin in registry {
        let roles = roles(plugin);
        let place = roles.first().map_or(usize::MAX, |role| order(role));
        built.push((place, plugin, roles));
    }
    built.sort_by_key(|(place, plugin, _)| (*place, plugin.name));
    let built = built.into_iter().map(|(_, plugin, roles)| Entry::Built(plugin, roles));
    let missing = missing::all().map(|missing| Entry::Missing {
        name: missing.name,
        role: missing.role,
        without: missing.without,
    });
    built.chain(missing).collect()
}

/// Roles that say more of a plugin than the filter or hook it is besides.
const MAIN_ROLES: &[&str] = &["saturation detector", "profile handler", "data producer"];

/// The roles of a type, the main one first.
pub(super) fn roles(plugin: &PluginType) -> Vec<&'static str> {
    let mut roles = plugin.roles().names();
    roles.sort_by_key(|role| !MAIN_ROLES.contains(role));
    roles
}

/// Place of a role's plugins in lists: about the order in which a request meets them.
fn order(role: &str) -> usize {
    const ORDER: &[&str] = &[
        "request header",
        "screener",
        "admitter",
        "filter",
        "scorer",
        "picker",
        "profile handler",
        "decider",
        "data producer",
        "pre-request",
        "response header",
        "parser",
        "data source",
        "notification source",
        "extractor",
        "endpoint discovery",
        "saturation detector",
        "ordering policy",
        "fairness policy",
        "usage limit policy",
    ];
    ORDER.iter().position(|known| *known == role).unwrap_or(ORDER.len())
}
