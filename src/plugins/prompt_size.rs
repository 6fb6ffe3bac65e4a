//! How long a request's prompts are.

use crate::prefix::prompt_tokens;
use crate::request::Tokenized;
use crate::scheduling::RequestView;

/// Tokens of the request's prompts: the exact ones where somebody made them in time, else an estimate.
pub(super) fn prompt_size(request: &RequestView<'_>) -> u64 {
    let estimate = || prompt_tokens(request.inference, request.body, request.media_rules());
    request.tokens.map_or_else(estimate, Tokenized::count)
}
