//! Bounds on model names and on how often a body may give one.

/// Longest model name in bytes, wherever it comes from: a body, a header, a rewrite rule. Servers know none that is
/// as long.
pub const MAX_MODEL_NAME: usize = 1024;

/// Longest model name that is read, in bytes as written: every byte of the longest name may be escaped.
pub(super) const MAX_WRITTEN_NAME: usize = 6 * MAX_MODEL_NAME;

/// Most `model` members of one body that are noted. A body with more cannot be rewritten.
pub const MAX_MODEL_MEMBERS: usize = 8;

/// `text` without what lies behind its first `bytes` bytes; a character is never split.
pub fn cut(text: &str, bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(cut("grün", 3), "gr");
        assert_eq!(cut("grün", 4), "grü");
        assert_eq!(cut("grün", 40), "grün");
    }
}
