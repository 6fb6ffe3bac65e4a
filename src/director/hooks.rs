//! Plugins around forwarding, and how they are told of a response.

use std::time::Instant;

use crate::scheduling::{
    EndedCall, HeaderEdits, PluginState, PreRequest, ProfilePlugin, ResponseCall, ResponseEndHook,
    ResponseHeaderHook,
};

/// A plugin with hooks around forwarding. Its pre-request hook's state comes back in its response hook.
#[derive(Clone, Debug)]
pub struct Hook {
    /// Acts before forwarding.
    pub before: Option<ProfilePlugin<dyn PreRequest>>,
    /// Acts on response headers.
    pub response: Option<ProfilePlugin<dyn ResponseHeaderHook>>,
    /// Acts on the end of the response.
    pub end: Option<ProfilePlugin<dyn ResponseEndHook>>,
}

/// Tells of the headers of a response. `states` are those of the hooks, in their order.
pub fn tell_headers(
    hooks: &[Hook],
    states: &mut [PluginState],
    call: &ResponseCall<'_>,
    edits: &mut HeaderEdits,
) {
    for (hook, state) in hooks.iter().zip(states) {
        if let Some(response) = &hook.response {
            response.call(|plugin| plugin.on_response_headers(call, state, edits));
        }
    }
}

/// Tells that the first bytes of a response came at `now`. `streamed` if it is an event stream.
pub fn tell_first_byte(hooks: &[Hook], states: &mut [PluginState], now: Instant, streamed: bool) {
    for (hook, state) in hooks.iter().zip(states) {
        if let Some(end) = &hook.end {
            end.plugin.on_first_byte(now, streamed, state);
        }
    }
}

/// Tells of the end of a response.
pub fn tell_end(hooks: &[Hook], states: &mut [PluginState], call: &EndedCall<'_>) {
    for (hook, state) in hooks.iter().zip(states) {
        if let Some(end) = &hook.end {
            end.call(|plugin| plugin.on_response_end(call, state));
        }
    }
}
