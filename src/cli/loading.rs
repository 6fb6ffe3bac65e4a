//! Reads the configuration into a plan, at the start and at each reload.

use std::sync::Arc;

use super::older_flags::OlderFlag;
use super::overrides;
use super::settings::Settings;
use crate::config::{self, Carried, ConfigSource, LoadOptions, Plan};
use crate::document::{Level, Problems};
use crate::metrics::Metrics;
use crate::prefix::PrefixMemory;

/// What a configuration is read by.
pub(super) struct Loading {
    /// Where it stands.
    pub(super) config: ConfigSource,
    options: LoadOptions,
    older: Vec<(OlderFlag, String)>,
    default_engine: String,
    /// What is doubtful about the command line, one text each.
    pub(super) warnings: Vec<String>,
}

impl Loading {
    /// By these settings and older flags.
    pub(super) fn new(older: &[(OlderFlag, String)], settings: &Settings, metrics: &Arc<Metrics>) -> Self {
        let plugins = &settings.plugins;
        let options = LoadOptions {
            allow_experimental: plugins.allow_experimental,
            allow_missing: plugins.allow_missing,
            registry: plugins.registry,
            seed: plugins.seed,
            feature_gates: plugins.feature_gates.clone(),
            prefix_memory: PrefixMemory::new(plugins.prefix_memory),
            ..LoadOptions::new(Arc::clone(metrics))
        };
        Self {
            config: settings.config.clone(),
            options,
            older: older.to_vec(),
            default_engine: plugins.default_engine.clone(),
            warnings: settings.warnings.clone(),
        }
    }

    /// The plan of the configuration as it stands now. Plugins of `carried` live on where nothing of them changed.
    pub(super) fn load(&self, carried: Option<Arc<Carried>>) -> Result<Plan, Problems> {
        let options = LoadOptions { carried, ..self.options.clone() };
        let plan = config::load(&self.config, &options)?;
        for instance in plan.instances.iter().filter(|instance| instance.missing.is_some()) {
            self.options.metrics.missing_plugin(instance.kind, &instance.name);
        }
        for problem in plan.problems.of(Level::Warning) {
            tracing::warn!(problem = problem.to_string(), "configuration");
        }
        Ok(plan)
    }

    /// The plan of another configuration, which is not the one that serves, with metrics and memory of its own. Plugins
    /// of `carried` live in it, too.
    pub(super) fn load_beside(
        &self,
        source: &ConfigSource,
        (metrics, prefix_memory): (Arc<Metrics>, Arc<PrefixMemory>),
        carried: Option<Arc<Carried>>,
    ) -> Result<Plan, Problems> {
        config::load(source, &LoadOptions { metrics, prefix_memory, carried, ..self.options.clone() })
    }

    /// Applies what flags say over the configuration.
    pub(super) fn apply_flags(&self, plan: &mut Plan) -> anyhow::Result<()> {
        overrides::set_default_engine(&self.default_engine, plan)?;
        overrides::apply(&self.older, plan).map_err(|problems| anyhow::anyhow!("{}", problems.join("; ")))
    }
}
