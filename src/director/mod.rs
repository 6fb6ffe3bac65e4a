//! One request, from its last body byte to its last response byte: [`Director::handle`] reads top to bottom.

mod admission;
mod beside;
mod bindings;
mod breaker;
mod budget;
mod claim;
mod control_headers;
mod counted;
mod course;
mod credit;
mod decision_header;
mod dry_run;
#[cfg(test)]
mod encoded_tests;
mod entry;
mod exchange;
mod handle;
mod held;
mod hooks;
mod names;
mod objective;
mod observed;
mod outcome_note;
mod parts;
mod prepare;
#[cfg(test)]
mod prepare_tests;
mod reading;
mod refusal;
#[cfg(test)]
mod refusal_doc;
mod request_body;
mod retry;
mod rewrite;
mod route;
mod segments;
mod session;
mod settle;
mod shadow;
mod shadow_compare;
mod shadow_follow;
#[cfg(test)]
mod shadow_tests;
mod shed;
#[cfg(test)]
mod tests;
mod types;
mod understood;
mod unseen;

pub use admission::{Admission, AdmissionCall, AdmissionPlace, Outlook, Place};
pub use beside::Beside;
pub use budget::{BodyBudget, Share};
pub use dry_run::DryRun;
pub use exchange::Exchange;
pub use held::QueuedAdmission;
pub use hooks::{Hook, tell_end, tell_first_byte, tell_headers};
pub use objective::DEFAULT_FLOW;
pub use parts::{Director, DirectorParts};
pub use refusal::{Code, Reason, Refusal};
pub use retry::retry_after_seconds;
pub use segments::{NoRoom, Segments};
pub use shadow::{Shadow, ShadowParts, ShadowStanding};
pub use shed::Shedding;
pub use types::{Ask, BodySeen, DirectorSettings, Pieces, ResponseSide, Routed, SubsetHint};
