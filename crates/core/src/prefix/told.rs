//! A prompt whose text is not at hand.

/// What is told of a prompt without its text. Whoever asks for a decision gives it as a finding of the request. Indexes
/// that know blocks by these hashes take them in place of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToldPrompt {
    /// Tokens of the prompt.
    pub tokens: u64,
    /// Hashes of its blocks, in order, as [`block_hashes`](super::block_hashes) makes them.
    pub hashes: Vec<u64>,
}
