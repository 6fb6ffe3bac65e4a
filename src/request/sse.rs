//! Lines of an event stream, put together across chunks.

use memchr::memchr2;

/// Splits a stream into lines. They end in LF, CR or CRLF; the empty line that CRLF seems to leave is not reported, nor
/// is any other.
#[derive(Debug)]
pub(super) struct Lines {
    /// The beginning of a line whose end has not come yet; never more than `limit` bytes.
    carry: Vec<u8>,
    /// The carried line is longer than what is kept of it.
    cut: bool,
    limit: usize,
}

/// One line, without its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Line<'l> {
    /// The line, or the first bytes of a longer one.
    pub(super) bytes: &'l [u8],
    /// The line is longer than the limit.
    pub(super) cut: bool,
}

impl Lines {
    /// Lines of at most `limit` bytes; of longer ones the beginning is reported.
    pub(super) fn new(limit: usize) -> Self {
        Self { carry: Vec::new(), cut: false, limit }
    }

    /// Reports each line that `chunk` completes. Lines that lie in one chunk are not copied.
    pub(super) fn feed(&mut self, mut chunk: &[u8], mut report: impl FnMut(Line<'_>)) {
        while let Some(end) = memchr2(b'\n', b'\r', chunk) {
            let (line, rest) = chunk.split_at(end);
            chunk = rest.split_first().map_or(rest, |(_, rest)| rest);
            if self.carry.is_empty() {
                if !line.is_empty() {
                    let kept = line.get(..self.limit).unwrap_or(line);
                    report(Line { bytes: kept, cut: kept.len() < line.len() });
                }
            } else {
                self.keep(line);
                self.flush(&mut report);
            }
        }
        self.keep(chunk);
    }

    /// Reports what is left when the stream ends without a line end.
    pub(super) fn finish(&mut self, mut report: impl FnMut(Line<'_>)) {
        if !self.carry.is_empty() {
            self.flush(&mut report);
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = self.limit.saturating_sub(self.carry.len());
        let kept = bytes.get(..room).unwrap_or(bytes);
        self.carry.extend_from_slice(kept);
        self.cut |= kept.len() < bytes.len();
    }

    fn flush(&mut self, report: &mut impl FnMut(Line<'_>)) {
        report(Line { bytes: &self.carry, cut: self.cut });
        self.carry.clear();
        self.cut = false;
    }
}

/// The value of a `data` field; `None` for lines of other fields. One space behind the colon is not part of it.
pub(super) fn data(line: &[u8]) -> Option<&[u8]> {
    let value = line.strip_prefix(b"data:")?;
    Some(value.strip_prefix(b" ").unwrap_or(value))
}

/// True for the value that ends an OpenAI stream.
pub(super) fn is_done(data: &[u8]) -> bool {
    data.trim_ascii() == b"[DONE]"
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(limit: usize, chunks: &[&[u8]]) -> Vec<(Vec<u8>, bool)> {
        let mut found = Vec::new();
        let mut lines = Lines::new(limit);
        for chunk in chunks {
            lines.feed(chunk, |line| found.push((line.bytes.to_vec(), line.cut)));
        }
        lines.finish(|line| found.push((line.bytes.to_vec(), line.cut)));
        found
    }

    #[test]
    fn lines_end_in_any_of_the_three_ways() {
        let whole = |line: &str| (line.as_bytes().to_vec(), false);
        assert_eq!(
            lines(100, &[b"a\nb\r\nc\rd\n\n\ne"]),
            [whole("a"), whole("b"), whole("c"), whole("d"), whole("e")]
        );
        assert_eq!(lines(100, &[b"a\r", b"\nb", b"c\n"]), [whole("a"), whole("bc")]);
    }

    #[test]
    fn a_line_over_the_limit_is_cut_wherever_its_chunks_end() {
        let expected = [(b"abc".to_vec(), true), (b"d".to_vec(), false)];
        assert_eq!(lines(3, &[b"abcdef\nd"]), expected);
        assert_eq!(lines(3, &[b"ab", b"cdef\n", b"d"]), expected);
        assert_eq!(lines(3, &[b"abc", b"def\nd\n"]), expected);
    }

    #[test]
    fn the_space_behind_the_colon_is_optional() {
        assert_eq!(data(b"data: x"), Some(&b"x"[..]));
        assert_eq!(data(b"data:x"), Some(&b"x"[..]));
        assert_eq!(data(b"data:  x"), Some(&b" x"[..]));
        assert_eq!(data(b"event: data:"), None);
        assert!(is_done(b"[DONE]") && is_done(b"[DONE] ") && !is_done(b"[DONE]x"));
    }

    proptest! {
        #[test]
        fn chunk_borders_do_not_change_the_lines(stream in "[ab\\r\\n]{0,40}", cuts in proptest::collection::vec(0_usize..40, 0..6), limit in 1_usize..6) {
            let mut cuts = cuts;
            cuts.retain(|cut| *cut <= stream.len());
            cuts.extend([0, stream.len()]);
            cuts.sort_unstable();
            let chunks: Vec<_> = cuts.windows(2).map(|pair| &stream.as_bytes()[pair[0]..pair[1]]).collect();
            prop_assert_eq!(lines(limit, &chunks), lines(limit, &[stream.as_bytes()]));
        }
    }
}
