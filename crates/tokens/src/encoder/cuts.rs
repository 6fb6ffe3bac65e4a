//! Finds the places where a text may be cut so that the ids of the parts are the ids of the whole.
//!
//! Added tokens that are not normalized are found in the raw text, before any other step. The text to the left and to
//! the right of such a token is encoded separately. A part that begins with such a token therefore gets the same ids as
//! in the whole text.

use aho_corasick::{AhoCorasick, MatchKind};
use tokenizers::pipeline::PipelineTokenizer;

/// Texts around a token by which the property is tested. Other tokens and white space could join with these beginnings
/// and ends.
const PROBES: [(&str, &str); 6] =
    [("Hello", "world"), ("a ", " b"), ("x\n\n", "\n y"), ("1 2", "3  "), ("é", "ü\u{301}"), ("  ", "'s 12")];

/// Finds the places at which a text may be cut.
pub(super) struct Cuts {
    /// All tokens that are found in the raw text. Each says whether a text may be cut at it.
    raw: Option<(AhoCorasick, Vec<Token>)>,
}

struct Token {
    text: String,
    cut: bool,
}

impl Cuts {
    /// Makes a finder that never cuts.
    pub(super) fn none() -> Self {
        Self { raw: None }
    }

    /// Cuts at the special tokens of a tokenizer.
    ///
    /// # Errors
    /// A token that is not known to be found where the server finds it.
    pub(super) fn new(pipeline: &PipelineTokenizer) -> Result<Self, String> {
        let mut tokens = Vec::new();
        for token in pipeline.get_added_vocabulary().get_added_tokens_decoder().into_values() {
            if token.single_word {
                return Err(format!(
                    "added token {:?} is found in whole words only, which is not supported",
                    token.content
                ));
            }
            if !token.normalized && !token.content.is_empty() {
                let cut = token.special && !token.lstrip && !token.rstrip;
                tokens.push(Token { text: token.content, cut });
            }
        }
        Self::over(tokens)
    }

    fn over(tokens: Vec<Token>) -> Result<Self, String> {
        if !tokens.iter().any(|token| token.cut) {
            return Ok(Self::none());
        }
        let texts = tokens.iter().map(|token| token.text.as_str());
        let searcher = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(texts)
            .map_err(|error| format!("the added tokens are not searched for: {error}"))?;
        Ok(Self { raw: Some((searcher, tokens)) })
    }

    /// Removes the tokens at which a cut text gets other ids than the whole text.
    pub(super) fn proven(mut self, encode: impl Fn(&str) -> Vec<u32>) -> Self {
        for token in self.raw.iter_mut().flat_map(|(_, tokens)| tokens).filter(|token| token.cut) {
            token.cut = PROBES.iter().all(|(before, after)| {
                let tail = format!("{}{after}", token.text);
                let mut parts = encode(before);
                parts.extend(encode(&tail));
                parts == encode(&format!("{before}{tail}"))
            });
        }
        self
    }

    /// True if a token that is found in the raw text is in `text`.
    pub(super) fn has_any(&self, text: &str) -> bool {
        self.raw.as_ref().is_some_and(|(searcher, _)| searcher.is_match(text))
    }

    /// The places in `text` at which it may be cut, ascending, without its beginning and its end.
    pub(super) fn of<'a>(&'a self, text: &'a str) -> impl Iterator<Item = usize> + 'a {
        let found = self.raw.iter().flat_map(move |(searcher, tokens)| {
            let cut = |found: &aho_corasick::Match| {
                tokens.get(found.pattern().as_usize()).is_some_and(|token| token.cut)
            };
            searcher.find_iter(text).filter(cut).map(|found| found.start())
        });
        found.filter(|at| *at > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cuts(tokens: &[(&str, bool)]) -> Cuts {
        let tokens = tokens.iter().map(|(text, cut)| Token { text: (*text).to_owned(), cut: *cut });
        Cuts::over(tokens.collect()).expect("tokens")
    }

    #[test]
    fn a_token_within_a_longer_one_is_no_place_to_cut_at() {
        let cuts = cuts(&[("<s>", true), ("<s><s>x", false)]);
        assert_eq!(cuts.of("<s>a<s>b<s><s>x<s>").collect::<Vec<_>>(), [4, 15]);
    }

    #[test]
    fn a_token_that_changes_its_neighbours_is_left_out() {
        // Tells whether the text begins, and counts it in front of everything.
        let encode = |text: &str| {
            let mut ids: Vec<u32> = text.chars().map(u32::from).collect();
            if text.contains('ß') {
                ids.insert(0, text.len() as u32);
            }
            ids
        };
        let proven = cuts(&[("<s>", true), ("ß", true)]).proven(encode);
        assert_eq!(proven.of("aßb<s>ß").collect::<Vec<_>>(), [4]);
    }
}
