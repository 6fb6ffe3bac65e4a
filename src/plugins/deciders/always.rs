//! `always-disagg-pd-decider`: every prompt is processed by a prefill server. Takes no parameters.
//!
//! Use it where prefill servers have room for all prompts. It costs nothing, but short and cached prompts pay for the
//! transfer of their cache, too.

use std::sync::Arc;

use crate::plugins::{PluginType, Roles, Stability};
use crate::pool::Endpoint;
use crate::scheduling::{Call, Decider};

/// Registry row.
pub static TYPE: PluginType = PluginType::new("always-disagg-pd-decider", Stability::Beta, |cx| {
    cx.no_params();
    Ok(Roles::default().decider(Arc::new(Always)))
})
.about(
    "Sends every prompt to a prefill server.",
    "Use it where prefill servers have room for all prompts. It costs nothing, but short and cached \
         prompts pay for the transfer of their cache, too.",
);

#[derive(Debug)]
struct Always;

impl Decider for Always {
    fn decide(&self, _call: &Call<'_>, _target: Option<&Arc<Endpoint>>) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::fixture::{Fleet, pod, request};
    use crate::scheduling::Columns;

    #[test]
    fn the_answer_is_yes_with_and_without_a_target_or_any_candidate() {
        let mut fleet = Fleet::new([pod("a")]);
        let built = fleet.build(&TYPE, None).unwrap();
        let target = Arc::clone(&fleet.snapshot().endpoints()[0]);
        for target in [None, Some(&target)] {
            assert!(fleet.decides(&built.roles, &request("m"), &Columns::new(), target));
        }
        let mut nobody = Fleet::new([]);
        let built = nobody.build(&TYPE, None).unwrap();
        assert!(nobody.decides(&built.roles, &request(""), &Columns::new(), None));
    }
}
