//! The decision of the scheduler.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::pool::Endpoint;

/// The choice of one profile.
#[derive(Clone, Debug)]
pub struct ProfileResult {
    /// Chosen endpoints, best first; never empty. The first serves, the others are fallbacks.
    pub targets: SmallVec<[Arc<Endpoint>; 1]>,
    /// Slot and weighted total of every endpoint that survived the filters, in slot order.
    pub scored: Vec<(u32, f64)>,
}

/// Which profiles choose for a stage of their own, by index. A stage has none if the primary profile's target does its
/// work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stages {
    /// The profile whose target processes the prompt.
    pub prefill: Option<usize>,
    /// The profile whose targets encode images, videos and sounds.
    pub encode: Option<usize>,
}

/// How a profile has fared in a cycle.
#[derive(Clone, Debug, Default)]
pub enum ProfileRun {
    /// It has not run.
    #[default]
    NotRun,
    /// It ran without a result, or was skipped on purpose.
    Empty,
    /// It ran and chose.
    Chose(ProfileResult),
}

impl ProfileRun {
    /// True if the profile will not run any more, unless it is asked for again.
    pub fn is_over(&self) -> bool {
        !matches!(self, Self::NotRun)
    }

    /// Its choice.
    pub fn result(&self) -> Option<&ProfileResult> {
        match self {
            Self::Chose(result) => Some(result),
            Self::NotRun | Self::Empty => None,
        }
    }

    /// Its choice.
    pub fn into_result(self) -> Option<ProfileResult> {
        match self {
            Self::Chose(result) => Some(result),
            Self::NotRun | Self::Empty => None,
        }
    }
}

/// The scheduler's answer.
#[derive(Clone, Debug)]
pub struct Decision {
    /// Results by profile index; `None` for a profile that did not run or found nothing.
    pub profiles: SmallVec<[Option<ProfileResult>; 1]>,
    /// Index of the profile whose targets answer the request.
    pub primary: usize,
    /// Which profiles choose for other stages.
    pub stages: Stages,
    /// The port on which the proxy reaches every endpoint, where that is not the endpoint's own.
    pub proxy_port: Option<u16>,
}

impl Decision {
    /// Targets of the primary profile, best first.
    pub fn targets(&self) -> &[Arc<Endpoint>] {
        self.primary_result().map(|result| result.targets.as_slice()).unwrap_or_default()
    }

    /// The endpoint that processes the prompt, where that is not the primary profile's target.
    pub fn prefill_target(&self) -> Option<&Arc<Endpoint>> {
        self.stage_targets(self.stages.prefill).first()
    }

    /// Endpoints that encode images, videos and sounds, where that is not the work of the others.
    pub fn encode_targets(&self) -> &[Arc<Endpoint>] {
        self.stage_targets(self.stages.encode)
    }

    /// True if the answer is that of a stage beside decode, as where each stage is a request of its own.
    pub fn answers_for_a_stage(&self) -> bool {
        [self.stages.prefill, self.stages.encode].contains(&Some(self.primary))
    }

    /// The first target of each stage beside the primary profile.
    pub fn stage_firsts(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.prefill_target().into_iter().chain(self.encode_targets().first())
    }

    /// Targets of the profile with this index; none if it is the primary one, did not run or found nothing.
    pub fn stage_targets(&self, profile: Option<usize>) -> &[Arc<Endpoint>] {
        profile
            .filter(|&index| index != self.primary)
            .and_then(|index| self.profiles.get(index)?.as_ref())
            .map(|result| result.targets.as_slice())
            .unwrap_or_default()
    }

    /// `ip:port` at which the proxy reaches `endpoint`.
    pub fn address<'e>(&self, endpoint: &'e Endpoint) -> Cow<'e, str> {
        match self.proxy_port {
            None => Cow::Borrowed(endpoint.target()),
            Some(port) => Cow::Owned(SocketAddr::new(endpoint.spec().address.ip(), port).to_string()),
        }
    }

    /// The primary profile's result.
    pub fn primary_result(&self) -> Option<&ProfileResult> {
        self.profiles.get(self.primary)?.as_ref()
    }
}
