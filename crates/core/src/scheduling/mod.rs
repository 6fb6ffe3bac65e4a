//! Choosing: profiles of filters, scorers and a picker, over one immutable snapshot.
//!
//! No `async`, no clock, no lock, no text formatting here: [`Preparer`] is the shape of what waits, and it runs before. A plugin sees a [`Call`]; it has no way to reach a socket or
//! a clock.

mod call;
mod candidates;
mod columns;
mod cycle;
mod decision;
mod entry;
mod error;
mod in_flight;
mod mask;
mod observer;
mod prepare;
mod report;
mod traits;

pub use call::{Call, RequestView};
pub use candidates::Candidates;
pub use columns::{Column, Columns, Produced};
pub use cycle::{Profile, ProfilePlugin, Scheduler, WeightedScorer};
pub use decision::{Decision, ProfileResult, ProfileRun, Stages};
pub use entry::{Admitter, Entry, FlowNamer, Screener};
pub use error::{FailureCause, ScheduleError};
pub use in_flight::{InFlightRule, ResponseEstimate, unmatched_tokens};
pub use mask::Mask;
pub use observer::{CycleObserver, CycleRecorder, Outcome, Step, Stopwatch};
pub use prepare::{Finding, PrepareCall, PrepareError, PrepareLimits, Prepared, Preparer, Preparing};
pub use report::{Reported, UsageReporter};
pub use traits::{
    Category, DecidedCall, Decider, EndedCall, Explained, Filter, HeaderEdits, Picker, PluginState,
    PreRequest, PreRequestError, Producer, ProfileFault, ProfileHandler, ResponseCall, ResponseEndHook,
    ResponseHeaderHook, Results, Scorer,
};
