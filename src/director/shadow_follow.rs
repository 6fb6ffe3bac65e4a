//! The shadow's own plugins learn where requests really went, and what became of them.

use std::sync::Arc;
use std::time::Instant;

use smallvec::SmallVec;

use super::hooks::{tell_end, tell_first_byte, tell_headers};
use super::shadow::{Made, Shadow};
use crate::scheduling::{
    Call, DecidedCall, Decision, EndedCall, HeaderEdits, PluginState, ProfileResult, ResponseCall,
};

/// A request that the shadow's own plugins follow.
pub(super) struct Following {
    shadow: Arc<Shadow>,
    states: Vec<PluginState>,
    /// The real decision, in the terms of the shadow's profiles.
    decision: Decision,
}

impl Following {
    /// Tells the plugins of a decision. `call` is what the running configuration decided from. `made` is the shadow's
    /// own decision, if it made one; `live` is the decision with the endpoints that others see. `None` if no plugin
    /// wants to know.
    pub(super) fn begin(
        shadow: &Arc<Shadow>,
        call: &Call<'_>,
        decision: &Decision,
        live: &Decision,
        known: Option<&Made>,
    ) -> Option<Box<Self>> {
        if shadow.parts.own_hooks.is_empty() {
            return None;
        }
        let states = shadow.guarded(|| told(shadow, call, decision, known))?;
        Some(Box::new(Self { shadow: Arc::clone(shadow), states, decision: real(shadow, live) }))
    }

    /// The headers of the response came.
    pub(super) fn headers(&mut self, call: &ResponseCall<'_>) {
        let Self { shadow, states, decision } = self;
        let call = ResponseCall {
            headers: call.headers,
            served: call.served,
            endpoint: call.endpoint,
            decision,
            profiles: shadow.parts.scheduler.profile_names(),
        };
        shadow.guarded(|| {
            tell_headers(&shadow.parts.own_hooks, states, &call, &mut HeaderEdits::default());
        });
    }

    /// The first bytes of the response came.
    pub(super) fn first_byte(&mut self, now: Instant, streamed: bool) {
        let Self { shadow, states, .. } = self;
        shadow.guarded(|| tell_first_byte(&shadow.parts.own_hooks, states, now, streamed));
    }

    /// The response has ended.
    pub(super) fn end(&mut self, call: &EndedCall<'_>) {
        let Self { shadow, states, decision } = self;
        let call = EndedCall { decision, ..*call };
        shadow.guarded(|| tell_end(&shadow.parts.own_hooks, states, &call));
    }
}

fn told(shadow: &Shadow, call: &Call<'_>, decision: &Decision, known: Option<&Made>) -> Vec<PluginState> {
    let candidates = call.candidates();
    // What was found out for its own decision counts if it is about the same candidates.
    let known = known.filter(|made| made.candidates.places() == candidates.places());
    let made;
    let columns = if let Some(known) = known {
        &known.columns
    } else {
        made = shadow.columns(call.columns(), candidates, call.request, call.now, candidates);
        &made
    };
    let everyone = candidates.slots();
    let call = Call::new(call.request, call.now, candidates, &everyone, columns);
    let decision = real(shadow, decision);
    let decided = DecidedCall { call, decision: &decision, profiles: shadow.parts.scheduler.profile_names() };
    let before = |hook: &super::Hook| {
        let before = hook.before.as_ref()?;
        let mut edits = HeaderEdits::default();
        before.call(|plugin| plugin.before_forward(&decided, &mut edits)).unwrap_or_default()
    };
    shadow.parts.own_hooks.iter().map(before).collect()
}

/// The decision that was really made, in the terms of the shadow's profiles.
fn real(shadow: &Shadow, decision: &Decision) -> Decision {
    let of_profile = |other: &Option<usize>| decision.profiles.get((*other)?)?.clone();
    let mut profiles: SmallVec<[Option<ProfileResult>; 1]> = shadow.pairs.iter().map(of_profile).collect();
    let paired = shadow.pairs.iter().position(|other| *other == Some(decision.primary));
    let primary = paired.unwrap_or(0);
    if let Some(result) = profiles.get_mut(primary) {
        *result = decision.primary_result().cloned();
    }
    Decision {
        profiles,
        primary,
        stages: shadow.parts.scheduler.stages(),
        proxy_port: shadow.parts.scheduler.proxy_port(),
    }
}
