//! The strategy that lets the client carry the endpoint's name.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::profile::Profile;
use crate::pool::EndpointId;
use crate::scheduling::{Call, Category, HeaderEdits, PluginState, ResponseCall, ResponseHeaderHook, Scorer};

/// See the module.
#[derive(Debug)]
pub(super) struct EncodedEndpoint {
    /// Lower case.
    pub(super) header: String,
    pub(super) profile: Profile,
}

impl Scorer for EncodedEndpoint {
    fn category(&self) -> Category {
        Category::Affinity
    }

    fn score(&self, call: &Call<'_>, out: &mut [f64]) {
        let Some(token) = call.request.headers.get(&self.header) else { return };
        let Ok(name) = STANDARD.decode(token) else { return };
        for (score, endpoint) in out.iter_mut().zip(call.endpoints()) {
            if is_named(endpoint.id(), &name) {
                *score = 1.0;
            }
        }
    }
}

/// True if `name` is `namespace/name` of the endpoint.
fn is_named(id: &EndpointId, name: &[u8]) -> bool {
    let rest = name.strip_suffix(id.name().as_bytes()).and_then(|rest| rest.strip_suffix(b"/"));
    rest == Some(id.namespace().as_bytes())
}

impl ResponseHeaderHook for EncodedEndpoint {
    fn on_response_headers(
        &self,
        call: &ResponseCall<'_>,
        _state: &mut PluginState,
        headers: &mut HeaderEdits,
    ) {
        let endpoint = if self.profile.name.is_empty() {
            Some(call.endpoint)
        } else {
            self.profile.result(call.decision, call.profiles).and_then(|result| result.targets.first())
        };
        if let Some(endpoint) = endpoint {
            headers.set(&self.header, STANDARD.encode(endpoint.id().to_string()));
        }
    }
}
