//! How much of a prompt an endpoint holds.

/// How much of a request's prompt one endpoint is believed to hold: a cell of the column that prefix producers write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PrefixMatch {
    /// Blocks that count for scoring.
    pub matched: u32,
    /// Blocks of the request, all its prompts together; 0 if it has no prompt text.
    pub total: u32,
    /// Tokens per block.
    pub block_size: u32,
    /// Blocks that are cached anywhere on the endpoint. The approximate index knows no tiers: same as `matched`.
    pub cached: u32,
}

impl PrefixMatch {
    /// `matched / total`, 0 without blocks.
    pub fn fraction(&self) -> f64 {
        if self.total == 0 { 0.0 } else { f64::from(self.matched) / f64::from(self.total) }
    }
}
