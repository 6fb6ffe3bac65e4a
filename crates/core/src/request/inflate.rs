//! Taking gzip or deflate off a response that comes in chunks, to read it while it passes by.

use flate2::{Decompress, FlushDecompress, Status};

use super::headers::Headers;

/// Decoded bytes for each byte that came, beyond which the rest is not read.
const MAX_RATIO: u64 = 50;
/// Decoded bytes that any response may have.
const RATIO_FLOOR: u64 = 1 << 20;
/// Bytes that are decoded in one step.
const STEP: usize = 16 << 10;
/// Bits of the largest window of deflate.
const WINDOW_BITS: u8 = 15;

/// Decodes one body. Memory: a window of 32 KiB and a step of 16 KiB.
#[derive(Debug)]
pub struct Inflater {
    form: Form,
    decoder: Option<Decompress>,
    step: Vec<u8>,
    over: bool,
    /// Bytes that came and went in members of gzip before this one.
    before: (u64, u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Gzip,
    /// With or without the header of zlib.
    Deflate,
}

/// Why a body that passes by is not decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotDecoded {
    /// It is not what its content-encoding says.
    #[error("the body cannot be decoded")]
    Corrupt,
    /// It becomes far larger than it came.
    #[error("the decoded body exceeds 1 MiB and 50 times the bytes that came")]
    Ratio,
}

impl Inflater {
    /// For the content-encoding of these headers; `None` if it is none of the two.
    pub fn of(headers: &Headers) -> Option<Self> {
        match headers.get("content-encoding")?.trim_ascii().to_ascii_lowercase().as_slice() {
            b"gzip" | b"x-gzip" => Some(Self::gzip()),
            b"deflate" => Some(Self::deflate()),
            _ => None,
        }
    }

    /// For gzip.
    pub(super) fn gzip() -> Self {
        Self { form: Form::Gzip, decoder: None, step: Vec::new(), over: false, before: (0, 0) }
    }

    /// For deflate, with or without the header of zlib.
    pub(super) fn deflate() -> Self {
        Self { form: Form::Deflate, ..Self::gzip() }
    }

    /// Takes the next bytes of the body and gives what they decode to. What lies behind the end of the encoded data is
    /// passed over, unless it is another member of gzip.
    pub fn feed(&mut self, chunk: &[u8], mut give: impl FnMut(&[u8])) -> Result<(), NotDecoded> {
        let mut rest = chunk;
        loop {
            if self.over && self.form == Form::Gzip {
                let padding = rest.iter().take_while(|byte| **byte == 0).count();
                rest = rest.get(padding..).unwrap_or_default();
                // Anything else is passed over.
                if rest.first() == Some(&0x1f)
                    && let Some(decoder) = self.decoder.take()
                {
                    self.before.0 += decoder.total_in();
                    self.before.1 += decoder.total_out();
                    self.over = false;
                }
            }
            if self.over || rest.is_empty() {
                return Ok(());
            }
            rest = self.member(rest, &mut give)?;
        }
    }

    /// Takes bytes of one member; gives those behind its end.
    fn member<'c>(&mut self, chunk: &'c [u8], give: &mut impl FnMut(&[u8])) -> Result<&'c [u8], NotDecoded> {
        let Some(first) = chunk.first().copied() else { return Ok(chunk) };
        let decoder = self.decoder.get_or_insert_with(|| match self.form {
            Form::Gzip => Decompress::new_gzip(WINDOW_BITS),
            // Method 8 and a window of at most 32 KiB; data without the header would begin with an odd stored block.
            Form::Deflate => Decompress::new(first & 0x8f == 8),
        });
        self.step.resize(STEP, 0);
        let mut rest = chunk;
        loop {
            let (came, went) = (decoder.total_in(), decoder.total_out());
            let status = decoder
                .decompress(rest, &mut self.step, FlushDecompress::None)
                .map_err(|_| NotDecoded::Corrupt)?;
            let read = usize::try_from(decoder.total_in() - came).unwrap_or(usize::MAX);
            let written = usize::try_from(decoder.total_out() - went).unwrap_or(usize::MAX);
            rest = rest.get(read..).unwrap_or_default();
            give(self.step.get(..written).unwrap_or_default());
            if is_too_much(self.before.0 + decoder.total_in(), self.before.1 + decoder.total_out()) {
                return Err(NotDecoded::Ratio);
            }
            if status == Status::StreamEnd {
                self.over = true;
                return Ok(rest);
            }
            // A full step may have left more behind.
            if (read == 0 && written == 0) || (rest.is_empty() && written < STEP) {
                return Ok(&[]);
            }
        }
    }
}

/// True if a body that came in `came` bytes is not decoded any further than to `went` bytes.
pub(super) fn is_too_much(came: u64, went: u64) -> bool {
    went > RATIO_FLOOR.max(came.saturating_mul(MAX_RATIO))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

    use super::*;

    fn text() -> Vec<u8> {
        (0..5000_u32)
            .flat_map(|number| format!("data: {{\"n\":{}}}\n\n", number * 7919 % 1000).into_bytes())
            .collect()
    }

    fn decoded(encoding: &str, body: &[u8], size: usize) -> Result<Vec<u8>, NotDecoded> {
        let mut inflater = Inflater::of(&Headers::from([("content-encoding", encoding)])).unwrap();
        let mut out = Vec::new();
        for chunk in body.chunks(size) {
            inflater.feed(chunk, |bytes| out.extend_from_slice(bytes))?;
        }
        Ok(out)
    }

    #[test]
    fn gzip_and_both_forms_of_deflate_are_decoded_wherever_the_chunks_end() {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
        let mut raw = DeflateEncoder::new(Vec::new(), Compression::default());
        gzip.write_all(&text()).unwrap();
        zlib.write_all(&text()).unwrap();
        raw.write_all(&text()).unwrap();
        for (encoding, body) in [
            ("gzip", gzip.finish().unwrap()),
            (" X-GZIP", [zlib_as_gzip(), b"rest".to_vec()].concat()),
            ("gzip", [members(), vec![0; 9]].concat()),
            ("deflate", zlib.finish().unwrap()),
            ("deflate", raw.finish().unwrap()),
        ] {
            for size in [1, 7, 1000, body.len()] {
                assert_eq!(decoded(encoding, &body, size).unwrap(), text(), "{encoding} by {size}");
            }
        }
    }

    fn members() -> Vec<u8> {
        let text = text();
        let members = text.chunks(5000).map(|part| {
            let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
            gzip.write_all(part).unwrap();
            gzip.finish().unwrap()
        });
        members.collect::<Vec<_>>().concat()
    }

    fn zlib_as_gzip() -> Vec<u8> {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
        gzip.write_all(&text()).unwrap();
        gzip.finish().unwrap()
    }

    #[test]
    fn what_comes_is_given_as_soon_as_it_can_be_decoded() {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        gzip.write_all(b"data: 1\n\n").unwrap();
        gzip.flush().unwrap();
        assert_eq!(decoded("gzip", gzip.get_ref(), 1000).unwrap(), b"data: 1\n\n");
    }

    #[test]
    fn rubbish_and_a_bomb_are_not_decoded() {
        assert_eq!(decoded("gzip", b"data: 1\n\n", 1000), Err(NotDecoded::Corrupt));
        let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
        gzip.write_all(&vec![0; 10 << 20]).unwrap();
        let bomb = gzip.finish().unwrap();
        assert!(bomb.len() < 20_000);
        assert_eq!(decoded("gzip", &bomb, 1000), Err(NotDecoded::Ratio));
        for encoding in ["br", "zstd", "identity", "gzip, gzip"] {
            assert!(Inflater::of(&Headers::from([("content-encoding", encoding)])).is_none(), "{encoding}");
        }
    }
}
