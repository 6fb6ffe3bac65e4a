//! The notes that requests send to the writer of a capture.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};

use super::lines::{AnswerLine, ConfigLine, DecisionLine, FirstByteLine, OutcomeLine, RunLine};
use crate::pool::{LoadState, Snapshot};

/// A note to the writer.
#[derive(Debug)]
pub enum Note {
    /// A decision, with the pool and the figures of the candidates that it was made from.
    Decision(Box<DecisionLine>, Arc<Snapshot>, Vec<(u32, LoadState)>),
    /// The headers of a response.
    Answer(AnswerLine),
    /// The first bytes of a response's body.
    FirstByte(FirstByteLine),
    /// The end of a request.
    Outcome(Box<OutcomeLine>),
    /// The configuration that decides from now on.
    Config(Box<ConfigLine>),
}

impl Note {
    /// The approximate number of bytes that the note takes in memory.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Decision(line, _, loads) => {
                let run = |run: &RunLine| run.totals.len() * (8 * (run.scores.len() + 1) + 4);
                512 + loads.len() * size_of::<(u32, LoadState)>()
                    + line.request.chains.len() * 8
                    + line.runs.iter().map(run).sum::<usize>()
            }
            Self::Config(line) => line.text.len(),
            Self::Answer(_) | Self::FirstByte(_) | Self::Outcome(_) => 256,
        }
    }
}

/// The notes that wait for the writer.
#[derive(Debug, Default)]
pub(super) struct Load {
    pub(super) bytes: AtomicUsize,
    /// The number of notes that were dropped since the writer last wrote a gap line.
    pub(super) lost: AtomicU64,
}
