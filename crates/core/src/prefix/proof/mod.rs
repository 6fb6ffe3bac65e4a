//! Checks whether the tokens that are computed for prompts equal those of the model servers.
//!
//! Each answer and each cache event of an engine allows a check at no extra cost. [`Machine`] turns checks into a state
//! for one model on one version of its servers. [`ProofTable`] keeps the machines. Code that decides by exact tokens
//! asks the table first ([`ProofTable::trusts`]).

mod machine;
mod table;

pub use machine::{Change, Check, Machine, ProofState};
pub use table::{Mismatch, ProofRow, ProofTable, Subject};
