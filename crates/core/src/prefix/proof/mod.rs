//! Whether what is computed about prompts equals what the model servers say of them.
//!
//! Each answer and each event of an engine is a free check. [`Machine`] turns checks into a state, for one model on one
//! version of its servers; [`ProofTable`] keeps the machines. Whoever decides by exact tokens asks it first
//! ([`ProofTable::trusts`]).

mod machine;
mod table;

pub use machine::{Change, Check, Machine, ProofState};
pub use table::{Mismatch, ProofRow, ProofTable, Subject};
