//! In the place of `local.rs` in a program that was built without the feature `tokens`.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::plugins::{BuildError, Roles};

/// Parameters of tokens that are made in this process, which this program cannot do.
#[derive(Debug, Default, Deserialize, JsonSchema)]
pub(super) struct Local {}

impl Local {
    #[allow(clippy::unused_self, clippy::needless_pass_by_value, reason = "takes the place of another")]
    pub(super) fn build(self, _model: String, _patience: Duration) -> Result<Roles, BuildError> {
        Err(BuildError::at("local", "this program was built without the feature `tokens`"))
    }
}
