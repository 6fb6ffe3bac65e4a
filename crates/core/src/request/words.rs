//! Looking at several bytes at once, without a branch for each.

/// Offset of the first quote, backslash or control character at or behind `from`; the length of `bytes` if there is
/// none. Names and short values are settled by the first words, long text runs through the block loop.
pub(super) fn find_special(bytes: &[u8], from: usize) -> usize {
    const SHORT_WORDS: usize = 4;
    let mut rest = bytes.get(from..).unwrap_or_default();
    for _ in 0..SHORT_WORDS {
        let Some((word, tail)) = rest.split_first_chunk::<8>() else { break };
        let found = special_in_word(*word);
        if found < 8 {
            return bytes.len() - rest.len() + found;
        }
        rest = tail;
    }
    let (blocks, _) = rest.as_chunks::<64>();
    let clean = blocks.iter().take_while(|block| !has_special(block)).count() * 64;
    rest = rest.get(clean..).unwrap_or_default();
    while let Some((word, tail)) = rest.split_first_chunk::<8>() {
        let found = special_in_word(*word);
        if found < 8 {
            return bytes.len() - rest.len() + found;
        }
        rest = tail;
    }
    let found = rest.iter().position(|byte| is_special(*byte)).unwrap_or(rest.len());
    bytes.len() - rest.len() + found
}

fn is_special(byte: u8) -> bool {
    byte == b'"' || byte == b'\\' || byte < 0x20
}

/// Written without an early exit, so that it becomes a handful of vector instructions.
fn has_special(block: &[u8; 64]) -> bool {
    block.iter().fold(false, |found, byte| found | is_special(*byte))
}

/// Index of the first special byte of a word; 8 if there is none. Borrows can mark bytes behind a real match, never
/// before it, so the lowest mark is exact.
fn special_in_word(word: [u8; 8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const TOPS: u64 = 0x8080_8080_8080_8080;
    let word = u64::from_le_bytes(word);
    let zero_bytes = |word: u64| word.wrapping_sub(ONES) & !word;
    let quotes = zero_bytes(word ^ (ONES * u64::from(b'"')));
    let backslashes = zero_bytes(word ^ (ONES * u64::from(b'\\')));
    let controls = word.wrapping_sub(ONES * 0x20) & !word;
    ((quotes | backslashes | controls) & TOPS).trailing_zeros() as usize / 8
}

/// Number of digits that a word begins with; 8 if it has no other byte. A carry can spoil bytes behind the first other
/// byte, never before it.
pub(super) fn digits_in_word(word: [u8; 8]) -> usize {
    const HIGH_NIBBLES: u64 = 0xF0F0_F0F0_F0F0_F0F0;
    const DIGITS: u64 = 0x3030_3030_3030_3030;
    let word = u64::from_le_bytes(word);
    // A digit has the high nibble 3, and keeps it when 6 is added.
    let others = (word & HIGH_NIBBLES) ^ DIGITS;
    let beyond = (word.wrapping_add(0x0606_0606_0606_0606) & HIGH_NIBBLES) ^ DIGITS;
    (others | beyond).trailing_zeros() as usize / 8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_bytes_are_found_at_every_offset() {
        for length in 0..200 {
            let clean = vec![b'a'; length];
            assert_eq!(find_special(&clean, 0), length);
            for (index, special) in (0..length).zip([b'"', b'\\', 0, 0x1F].into_iter().cycle()) {
                let mut bytes = vec![if index % 2 == 0 { 0xFF } else { b' ' }; length];
                bytes[index] = special;
                assert_eq!(find_special(&bytes, 0), index);
                assert_eq!(find_special(&bytes, index), index);
                assert_eq!(find_special(&bytes, index + 1), length);
            }
        }
    }

    #[test]
    fn digits_are_counted_up_to_the_first_other_byte() {
        for byte in 0..=u8::MAX {
            assert_eq!(digits_in_word([byte; 8]), if byte.is_ascii_digit() { 8 } else { 0 });
            assert_eq!(
                digits_in_word([b'5', b'0', b'9', byte, byte, b'1', b'1', b'1']),
                if byte.is_ascii_digit() { 8 } else { 3 }
            );
        }
    }
}
