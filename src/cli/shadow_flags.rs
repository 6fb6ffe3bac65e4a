//! What the flags say of the shadow.

use std::path::PathBuf;

use super::ServeFlags;
use crate::config::ConfigSource;

/// What the flags say of the shadow.
#[derive(Clone, Debug)]
pub(super) struct ShadowWish {
    /// Its configuration.
    pub(super) source: ConfigSource,
    /// CPU time that it may take, as a share of what the running configuration takes.
    pub(super) share: f64,
    /// Bytes of its prefix indexes.
    pub(super) prefix_memory: u64,
}

impl ShadowWish {
    /// `None` without a file.
    pub(super) fn new(flags: &ServeFlags) -> Option<Self> {
        (!flags.shadow_config.is_empty()).then(|| Self {
            source: ConfigSource::File(PathBuf::from(&flags.shadow_config)),
            share: flags.shadow_cpu,
            prefix_memory: flags.prefix_index_memory,
        })
    }
}
