//! What the admin pages are made from.

use std::sync::Arc;

use serde_json::Value;

use super::access::Access;
use super::capturing::CaptureSwitch;
use super::debug::PluginState;
use super::dry_runs::DryRunner;
use super::page_sources::PageSources;
use super::reloading::Reloading;
use crate::decisions::Decisions;
use crate::metrics::Metrics;
use crate::pool::Pool;
use crate::telemetry::LogHandle;
use crate::transport::ClientAddress;

/// The sources of the pages.
#[derive(Clone)]
pub struct AdminState {
    /// Exported series.
    pub metrics: Metrics,
    /// The pool.
    pub pool: Arc<Pool>,
    /// State of the plugin instances, asked for at each request.
    pub plugins: Arc<dyn Fn() -> Vec<PluginState> + Send + Sync>,
    /// How this replica stands to its peers, asked for at each request; `None` without peers.
    pub peers: Option<Arc<dyn Fn() -> Value + Send + Sync>>,
    /// Records of decisions; `None` if none are kept.
    pub decisions: Option<Decisions>,
    /// What plugins know of the engines' caches: an object by the name of the instance, asked for at each request.
    pub prefix: Arc<dyn Fn() -> Value + Send + Sync>,
    /// Decides requests for nobody; `None` where nothing decides.
    pub dry_runs: Option<DryRunner>,
    /// The running configuration; `None` where none can be shown.
    pub reloading: Option<Reloading>,
    /// The capture of decisions; `None` where there is no folder for it.
    pub capturing: Option<CaptureSwitch>,
    /// The level of logs; without it the level can't be read or changed.
    pub log: Option<LogHandle>,
    /// Decides who may see the pages; `None` lets everyone see them. `/healthz` says nothing and is open to all.
    pub access: Option<Arc<dyn Access>>,
    /// The addresses from which the log level may be changed.
    pub log_level_from: LogLevelFrom,
    /// What the page for people shows beside that.
    pub page: PageSources,
}

/// From where the level of logs may be changed, by whoever the door lets in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogLevelFrom {
    /// From the machine, or the pod, that this runs on: nobody else has to say who they are.
    #[default]
    Loopback,
    /// From anywhere.
    Anywhere,
}

impl LogLevelFrom {
    pub(super) fn admits(self, client: Option<ClientAddress>) -> bool {
        let is_loopback = |ClientAddress(address)| address.ip().to_canonical().is_loopback();
        self == Self::Anywhere || client.is_some_and(is_loopback)
    }
}

impl std::fmt::Debug for AdminState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AdminState").field("pool", &self.pool.name()).finish_non_exhaustive()
    }
}
