//! The exact tokens of a request's prompts, where something has made them before the request is scheduled.

use super::types::MediaKind;

/// The tokens of all prompts of a request, in the order of the prompts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tokenized {
    /// One entry a prompt.
    pub prompts: Vec<TokenizedPrompt>,
}

/// The tokens of one prompt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenizedPrompt {
    /// Token ids as the model server will see them, placeholders of media included.
    pub ids: Vec<u32>,
    /// Where images, videos and sounds stand among the ids, by ascending offset.
    pub media: Vec<MediaSpan>,
}

/// An image, video or sound among the tokens of a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaSpan {
    /// Its kind.
    pub kind: MediaKind,
    /// A hash of its content, as text.
    pub hash: Box<str>,
    /// Place of its first token.
    pub offset: u32,
    /// Number of its tokens.
    pub length: u32,
}

impl Tokenized {
    /// Tokens of all prompts together.
    pub fn count(&self) -> u64 {
        self.prompts.iter().map(|prompt| prompt.ids.len() as u64).sum()
    }

    /// Memory that the tokens take, in bytes.
    pub fn held_bytes(&self) -> u64 {
        let media = |prompt: &TokenizedPrompt| {
            prompt.media.iter().map(|span| span.hash.len() + size_of::<MediaSpan>()).sum::<usize>()
        };
        let prompt = |prompt: &TokenizedPrompt| {
            size_of::<TokenizedPrompt>() + prompt.ids.capacity() * size_of::<u32>() + media(prompt)
        };
        self.prompts.iter().map(|each| prompt(each) as u64).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_counted_over_all_prompts_and_so_is_their_memory() {
        assert_eq!((Tokenized::default().count(), Tokenized::default().held_bytes()), (0, 0));
        let span = MediaSpan { kind: MediaKind::Image, hash: "abcd".into(), offset: 0, length: 2 };
        let tokens = Tokenized {
            prompts: vec![
                TokenizedPrompt { ids: vec![1, 2, 3], media: vec![span] },
                TokenizedPrompt { ids: vec![4], media: Vec::new() },
            ],
        };
        assert_eq!(tokens.count(), 4);
        assert!(tokens.held_bytes() >= 4 * 4 + 4);
    }
}
