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
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Gzip,
    /// With or without the header of zlib.
    Deflate,
}

/// The body is not what its content-encoding says, or becomes far larger than it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body cannot be decoded")]
pub struct NotDecoded;

impl Inflater {
    /// For the content-encoding of these headers; `None` if it is none of the two.
    pub fn of(headers: &Headers) -> Option<Self> {
        let form = match headers.get("content-encoding")?.trim_ascii().to_ascii_lowercase().as_slice() {
            b"gzip" | b"x-gzip" => Form::Gzip,
            b"deflate" => Form::Deflate,
            _ => return None,
        };
        Some(Self { form, decoder: None, step: Vec::new(), over: false })
    }

    /// Takes the next bytes of the body and gives what they decode to. What lies behind the end of the encoded data is
    /// passed over.
    pub fn feed(&mut self, chunk: &[u8], mut give: impl FnMut(&[u8])) -> Result<(), NotDecoded> {
        let Some(first) = chunk.first().copied().filter(|_| !self.over) else { return Ok(()) };
        let decoder = self.decoder.get_or_insert_with(|| match self.form {
            Form::Gzip => Decompress::new_gzip(WINDOW_BITS),
            // Method 8 and a window of at most 32 KiB; data without the header would begin with an odd stored block.
            Form::Deflate => Decompress::new(first & 0x8f == 8),
        });
        self.step.resize(STEP, 0);
        let mut rest = chunk;
        loop {
            let (came, went) = (decoder.total_in(), decoder.total_out());
            let status =
                decoder.decompress(rest, &mut self.step, FlushDecompress::None).map_err(|_| NotDecoded)?;
            let read = usize::try_from(decoder.total_in() - came).unwrap_or(usize::MAX);
            let written = usize::try_from(decoder.total_out() - went).unwrap_or(usize::MAX);
            rest = rest.get(read..).unwrap_or_default();
            give(self.step.get(..written).unwrap_or_default());
            if decoder.total_out() > RATIO_FLOOR.max(decoder.total_in().saturating_mul(MAX_RATIO)) {
                return Err(NotDecoded);
            }
            if status == Status::StreamEnd {
                self.over = true;
                return Ok(());
            }
            // A full step may have left more behind.
            if (read == 0 && written == 0) || (rest.is_empty() && written < STEP) {
                return Ok(());
            }
        }
    }
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
            ("deflate", zlib.finish().unwrap()),
            ("deflate", raw.finish().unwrap()),
        ] {
            for size in [1, 7, 1000, body.len()] {
                assert_eq!(decoded(encoding, &body, size).unwrap(), text(), "{encoding} by {size}");
            }
        }
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
        assert_eq!(decoded("gzip", b"data: 1\n\n", 1000), Err(NotDecoded));
        let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
        gzip.write_all(&vec![0; 10 << 20]).unwrap();
        let bomb = gzip.finish().unwrap();
        assert!(bomb.len() < 20_000);
        assert_eq!(decoded("gzip", &bomb, 1000), Err(NotDecoded));
        for encoding in ["br", "zstd", "identity", "gzip, gzip"] {
            assert!(Inflater::of(&Headers::from([("content-encoding", encoding)])).is_none(), "{encoding}");
        }
    }
}
