//! `endpoint-notification-source`: tells its extractors which endpoints come and go.
//!
//! Here every plugin learns that from the pool anyway, so the source has nothing to do: it is accepted, with extractors
//! that follow endpoints. Takes no parameters. Use it to keep a configuration of the reference as it is; it costs
//! nothing.

use crate::plugins::{PluginType, Roles, Stability};

/// The row.
pub static TYPE: PluginType = PluginType::new("endpoint-notification-source", Stability::Beta, |cx| {
    cx.no_params();
    Ok(Roles { notifies: true, ..Roles::default() })
})
.about(
    "Tells its extractors which endpoints come and go.",
    "Use it to keep a configuration of the reference as it is; every plugin learns of endpoints here in \
         any case. It costs nothing.",
);
