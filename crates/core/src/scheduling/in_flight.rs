//! What a request counts while it is in flight.

/// Tokens that a response is taken to have before it is there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ResponseEstimate {
    /// Tokens of the response for each token of the prompt; finite, at least 0.
    pub ratio: f64,
    /// Most tokens of a response; `None` for no bound.
    pub most: Option<u64>,
}

impl ResponseEstimate {
    /// Tokens of the response to a prompt of `prompt` tokens, of which the client wants at most `asked`.
    pub fn tokens(&self, prompt: u64, asked: Option<u64>) -> u64 {
        let estimate = (prompt as f64 * self.ratio).round() as u64;
        [asked, self.most].into_iter().flatten().fold(estimate, u64::min)
    }
}

/// How the tokens of a request in flight are counted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct InFlightRule {
    /// Counts the response as well, until its end; `None` counts the prompt, until the response begins.
    pub response: Option<ResponseEstimate>,
}

/// Tokens of a prompt of `prompt` tokens that a server has to process which holds `matched` of its `total` blocks of
/// `block_size` tokens. Without blocks that is the whole prompt.
pub fn unmatched_tokens(prompt: u64, matched: u32, total: u32, block_size: u32) -> u64 {
    if block_size == 0 {
        return prompt;
    }
    let blocks = |count: u32| u64::from(count) * u64::from(block_size);
    blocks(total.saturating_sub(matched)) + prompt.saturating_sub(blocks(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_a_multiple_of_the_prompt_within_its_bounds() {
        let estimate = |ratio, most| ResponseEstimate { ratio, most };
        for (estimate, prompt, asked, tokens) in [
            (estimate(1.5, None), 100, None, 150),
            (estimate(1.5, None), 101, None, 152),
            (estimate(1.5, None), 100, Some(20), 20),
            (estimate(1.5, Some(90)), 100, None, 90),
            (estimate(1.5, Some(90)), 100, Some(120), 90),
            (estimate(1.5, Some(0)), 100, None, 0),
            (estimate(0.0, None), 100, Some(20), 0),
            (estimate(1e300, None), u64::MAX, None, u64::MAX),
        ] {
            assert_eq!(estimate.tokens(prompt, asked), tokens, "{estimate:?} {prompt} {asked:?}");
        }
    }

    #[test]
    fn blocks_that_are_held_do_not_count_and_what_is_behind_the_blocks_does() {
        for (prompt, matched, total, block_size, tokens) in [
            (1000, 0, 0, 0, 1000),
            (1000, 5, 10, 64, 5 * 64 + 360),
            (640, 10, 10, 64, 0),
            (600, 0, 10, 64, 640),
            (600, 12, 10, 64, 0),
            (0, 0, 0, 64, 0),
        ] {
            assert_eq!(unmatched_tokens(prompt, matched, total, block_size), tokens);
        }
    }
}
