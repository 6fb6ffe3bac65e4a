//! `endpoint-notification-source`: tells its extractors which endpoints come and go.
//!
//! Here every plugin learns that from the pool anyway, so the source has nothing to do: it is accepted, with extractors
//! that follow endpoints. Takes no parameters. Use it to keep a configuration of the reference as it is; it costs
//! nothing.

use crate::plugins::{PluginType, Roles, Stability};

/// The row.
pub static TYPE: PluginType = PluginType {
    name: "endpoint-notification-source",
    reports_as: "endpoint-notification-source",
    stability: Stability::Beta,
    superseded: None,
    build: |cx| {
        cx.no_params();
        Ok(Roles { notifies: true, ..Roles::default() })
    },
};
