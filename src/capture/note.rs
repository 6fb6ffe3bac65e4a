//! What is told to the writer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};

use super::lines::{AnswerLine, ConfigLine, DecisionLine, FirstByteLine, OutcomeLine, RunLine};
use crate::pool::{LoadState, Snapshot};

/// What is told to the writer.
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
    /// Another configuration decides.
    Config(Box<ConfigLine>),
}

impl Note {
    /// Bytes that it takes, about.
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

/// What is on its way to the writer.
#[derive(Debug, Default)]
pub(super) struct Load {
    pub(super) bytes: AtomicUsize,
    /// Notes that were dropped since the writer last said so.
    pub(super) lost: AtomicU64,
}
