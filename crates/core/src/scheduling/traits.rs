//! The extension points of scheduling: one small trait each. They are synchronous and write into what the caller owns.

use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use fastrand::Rng;
use smallvec::SmallVec;

use super::{Call, Decision, Produced, ProfileRun, ScheduleError, Stages};
use crate::pool::Endpoint;
use crate::request::{Api, Headers, Usage};

/// Whether a scorer pulls requests together or spreads them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Category {
    /// Prefers endpoints that already hold something of use.
    Affinity,
    /// Prefers endpoints with less load.
    Distribution,
    /// Both, or neither.
    Balance,
}

/// Rules candidates out.
pub trait Filter: Send + Sync {
    /// Clears the bit of each endpoint that must not be used. `keep` has one bit per position of `call`, all set.
    fn narrow(&self, call: &Call<'_>, keep: &mut super::Mask);

    /// The role that it keeps, where it goes by what endpoints are there for. A request for which no endpoint has the
    /// role is told so: waiting does not help it.
    fn role(&self) -> Option<&'static str> {
        None
    }
}

/// Prefers some candidates over others.
pub trait Scorer: Send + Sync {
    /// Whether it pulls together or spreads.
    fn category(&self) -> Category;
    /// Fills one score per position of `call`; `out.len() == call.len()`, all 0 at first. Values outside 0..=1 are
    /// clamped by the caller, NaN counts as 0.
    fn score(&self, call: &Call<'_>, out: &mut [f64]);
}

/// Chooses among scored endpoints.
pub trait Picker: Send + Sync {
    /// Appends chosen positions of `call`, best first, to `picked`. `totals` has one weighted total per position; never
    /// empty.
    fn pick(&self, call: &Call<'_>, totals: &[f64], rng: &mut Rng, picked: &mut SmallVec<[u32; 4]>);
}

/// How each profile of a cycle has fared so far, by profile index.
pub type Results = SmallVec<[ProfileRun; 1]>;

/// Decides which profiles run, and which of them answers.
pub trait ProfileHandler: Send + Sync {
    /// Indexes of the profiles to run now; none = done. `names` are the profiles in document order. May mark profiles
    /// as skipped in `results`.
    fn pick(&self, call: &Call<'_>, names: &[Arc<str>], results: &mut Results) -> SmallVec<[usize; 2]>;
    /// Index of the primary profile. `errors` are those of failed profiles, by index.
    fn conclude(
        &self,
        names: &[Arc<str>],
        results: &Results,
        errors: &mut SmallVec<[(usize, ScheduleError); 1]>,
    ) -> Result<usize, ScheduleError>;

    /// The endpoint that the profiles in `next`, which run now, will work with, if an earlier round chose one. Filters
    /// and scorers see it as [`Call::peer`].
    fn peer(&self, _names: &[Arc<str>], _results: &Results, _next: &[usize]) -> Option<Arc<Endpoint>> {
        None
    }

    /// Which of the profiles choose for a stage of their own. Unless the handler knows better, profiles named `prefill`
    /// and `encode` beside others do.
    fn stages(&self, names: &[Arc<str>]) -> Stages {
        let stage =
            |wanted: &str| names.iter().position(|name| **name == *wanted).filter(|_| names.len() > 1);
        Stages { prefill: stage("prefill"), encode: stage("encode") }
    }

    /// The port on which the proxy reaches every endpoint, where that is not the endpoint's own.
    fn proxy_port(&self) -> Option<u16> {
        None
    }

    /// What the round decided that ended with `next`, for a trace: the name of the step, and what was decided. Called
    /// only where somebody watches.
    fn explain(&self, _names: &[Arc<str>], _results: &Results, _next: &[usize]) -> Option<Explained> {
        None
    }

    /// The faults of serving exactly these profiles, told once, while the configuration is read.
    fn review(&self, _names: &[Arc<str>]) -> Vec<ProfileFault> {
        Vec::new()
    }
}

/// The decision of a profile handler in one round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// Name of the step.
    pub step: &'static str,
    /// The decision.
    pub decision: String,
    /// The profile that answers has found no endpoint.
    pub failed: bool,
}

/// A mismatch between a profile handler and the profiles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProfileFault {
    /// No request can be served.
    Fatal(String),
    /// Something that was configured will not happen, and what mends it.
    Idle(String, String),
}

/// Says whether a stage of a request goes to a server of its own.
pub trait Decider: Send + Sync {
    /// True if it does. `target` is the endpoint that serves the rest of the request, where it is chosen already.
    fn decide(&self, call: &Call<'_>, target: Option<&Arc<Endpoint>>) -> bool;
}

/// Gathers data that scorers read, before scheduling.
pub trait Producer: Send + Sync {
    /// Produces columns for the candidates of `call` (all of them are in the running). `Err` is reported and the
    /// request goes on without the data.
    fn produce(&self, call: &Call<'_>) -> Result<SmallVec<[Produced; 1]>, String>;
}

/// A decided request, before it is forwarded.
#[derive(Clone, Copy, Debug)]
pub struct DecidedCall<'a> {
    /// The request and all its candidates and columns.
    pub call: Call<'a>,
    /// The decision.
    pub decision: &'a Decision,
    /// Names of the profiles, in the order of `decision.profiles`.
    pub profiles: &'a [Arc<str>],
}

/// Header changes that a plugin asks for. Names are lower case.
#[derive(Clone, Debug, Default)]
pub struct HeaderEdits {
    /// Headers to set, replacing what is there.
    pub set: SmallVec<[(Bytes, Bytes); 2]>,
    /// Headers to remove.
    pub remove: SmallVec<[Bytes; 2]>,
}

impl HeaderEdits {
    /// Sets a header, replacing what is there and what was asked for before.
    pub fn set(&mut self, name: &str, value: impl Into<Bytes>) {
        self.remove.retain(|gone| *gone != name.as_bytes());
        match self.set.iter_mut().find(|(set, _)| *set == name.as_bytes()) {
            Some((_, old)) => *old = value.into(),
            None => self.set.push((Bytes::copy_from_slice(name.as_bytes()), value.into())),
        }
    }

    /// True if the header will be set.
    pub fn sets(&self, name: &str) -> bool {
        self.set.iter().any(|(set, _)| *set == name.as_bytes())
    }

    /// Removes a header.
    pub fn remove(&mut self, name: &str) {
        self.remove.push(Bytes::copy_from_slice(name.as_bytes()));
    }
}

/// Why a request cannot be forwarded after all; becomes an internal error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PreRequestError(pub String);

/// State a plugin keeps from pre-request to the response hooks, owned by the stream.
pub type PluginState = Option<Box<dyn Any + Send + Sync>>;

/// Acts on a decided request before it is forwarded.
pub trait PreRequest: Send + Sync {
    /// May change request headers; what it returns comes back in the response hooks of the same plugin.
    fn before_forward(
        &self,
        call: &DecidedCall<'_>,
        headers: &mut HeaderEdits,
    ) -> Result<PluginState, PreRequestError>;

    /// True if it names prefill servers in routing headers, so that decode servers need a sidecar that reads them.
    fn names_prefill_servers(&self) -> bool {
        false
    }
}

/// The view of a response that a hook gets.
#[derive(Debug)]
pub struct ResponseCall<'a> {
    /// Response headers as the model server sent them.
    pub headers: &'a Headers,
    /// Endpoint that really served, where the proxy reports it (after its own retries), as `ip:port`.
    pub served: Option<&'a str>,
    /// First target of the primary profile.
    pub endpoint: &'a Arc<Endpoint>,
    /// The decision.
    pub decision: &'a Decision,
    /// Names of the profiles, in the order of `decision.profiles`.
    pub profiles: &'a [Arc<str>],
}

/// Acts on response headers.
pub trait ResponseHeaderHook: Send + Sync {
    /// May change response headers. `state` is what the plugin's pre-request hook returned.
    fn on_response_headers(
        &self,
        call: &ResponseCall<'_>,
        state: &mut PluginState,
        headers: &mut HeaderEdits,
    );
}

/// The end of a response.
#[derive(Clone, Copy, Debug)]
pub struct EndedCall<'a> {
    /// The interface that the request spoke.
    pub api: Api,
    /// The endpoint that served, as far as the proxy tells; else the first target of the primary profile.
    pub endpoint: &'a Arc<Endpoint>,
    /// The decision.
    pub decision: &'a Decision,
    /// The tokens that the response reports; `None` where it reports none.
    pub usage: Option<&'a Usage>,
    /// True if the whole response was seen, and it reports no failure.
    pub succeeded: bool,
    /// True for an event stream.
    pub streamed: bool,
    /// When the response ended.
    pub now: Instant,
    /// When the first bytes of its body came; `None` if none did.
    pub first_byte: Option<Instant>,
    /// Parts in which the body came: more than its tokens, or fewer.
    pub chunks: u64,
}

/// Acts on a response that ended, or that broke off.
pub trait ResponseEndHook: Send + Sync {
    /// Called when the first bytes of the body of a successful response have come. `streamed` is true for an event
    /// stream.
    fn on_first_byte(&self, _now: Instant, _streamed: bool, _state: &mut PluginState) {}
    /// Called once. `state` is what the plugin's pre-request hook returned.
    fn on_response_end(&self, _call: &EndedCall<'_>, _state: &mut PluginState) {}
}
