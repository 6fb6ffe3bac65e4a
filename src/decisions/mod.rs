//! Records of decisions: why each request went where it went, and what became of it.
//!
//! [`Draft`] takes notes while a request is decided, [`Decisions`] is the bounded ring of finished records, `view` is
//! what a page shows of one, [`explain`] says it in words.

mod cast;
mod draft;
pub mod explain;
mod facts;
mod names;
mod pace;
mod query;
mod record;
mod regret;
mod ring;
mod runs;
mod shadow;
mod shown;
mod slow;
pub mod terminal;
mod view;

pub use draft::Draft;
pub use facts::{Known, Verdict, Waited};
pub use names::PolicyNames;
pub use query::{Query, QueryError, Sort};
pub use record::{Ended, Outcome, Record};
pub use regret::{Regret, regret};
pub use ring::{Decisions, Ticket};
pub use runs::Runs;
pub use shadow::ShadowNote;
pub use view::{
    CandidateView, DecisionView, EditView, ListView, OutcomeView, ProfileView, PromptView, RefusalView,
    RemovedView, RowView, ScorerView, ShadowView, SummaryView, UsageView, WaitView,
};
