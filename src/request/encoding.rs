//! `content-encoding`: which one a body has, and taking it off within bounds.

use std::io::Read;

use super::headers::Headers;

/// Bytes that any body may decode to, however small it came.
const RATIO_FLOOR: usize = 1 << 20;
/// Most decoded bytes for each byte that came, beyond the floor.
const MAX_RATIO: usize = 50;
/// Largest window of zstd, as RFC 9659 demands it of this content-encoding.
const ZSTD_WINDOW: u64 = 8 << 20;
/// Bytes that are decoded in one step.
const STEP: usize = 64 << 10;

/// A content-encoding that can be taken off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentEncoding {
    /// `gzip`, `x-gzip`.
    Gzip,
    /// `deflate`, with and without the header of zlib.
    Deflate,
    /// `br`.
    Brotli,
    /// `zstd`.
    Zstd,
}

/// What headers say of the encoding of their body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Encoded {
    /// There is none.
    Plain,
    /// One that can be taken off.
    By(ContentEncoding),
    /// Another one, or several. The text is what the headers say, of which 64 bytes are kept.
    Unknown(String),
}

/// Why a body cannot be decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It is not what its content-encoding says.
    #[error("content-encoding {}: the body cannot be decoded: {fault}", .encoding.name())]
    Corrupt {
        /// What the body was taken for.
        encoding: ContentEncoding,
        /// What the decoder says.
        fault: String,
    },
    /// It becomes larger than a body may be.
    #[error("the decoded request body exceeds the limit of {0} bytes")]
    TooLarge(usize),
    /// It becomes far larger than it came.
    #[error("the decoded request body exceeds 1 MiB and {MAX_RATIO} times the bytes that came")]
    Ratio,
}

impl ContentEncoding {
    /// The token in the header.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Brotli => "br",
            Self::Zstd => "zstd",
        }
    }

    fn of(token: &[u8]) -> Option<Self> {
        match token {
            b"gzip" | b"x-gzip" => Some(Self::Gzip),
            b"deflate" => Some(Self::Deflate),
            b"br" => Some(Self::Brotli),
            b"zstd" => Some(Self::Zstd),
            _ => None,
        }
    }

    /// Most bytes that a body of `came` bytes may decode to, if bodies may have `limit` bytes.
    pub fn most(came: usize, limit: usize) -> usize {
        came.saturating_mul(MAX_RATIO).max(RATIO_FLOOR).min(limit)
    }

    /// Takes the encoding off `body`. The result has at most `limit` bytes, and beyond 1 MiB at most 50 times the bytes
    /// of `body`; no more than one step of 64 KiB is decoded beyond that.
    pub fn decode(self, body: &[u8], limit: usize) -> Result<Vec<u8>, DecodeError> {
        let most = Self::most(body.len(), limit);
        let mut output = Output { bytes: Vec::with_capacity(body.len().saturating_mul(4).min(most)), most };
        let done = match self {
            Self::Gzip => output.read(flate2::read::MultiGzDecoder::new(body)),
            Self::Deflate if has_zlib_header(body) => output.read(flate2::read::ZlibDecoder::new(body)),
            Self::Deflate => output.read(flate2::read::DeflateDecoder::new(body)),
            Self::Brotli => output.read(brotli_decompressor::Decompressor::new(body, STEP)),
            Self::Zstd => zstd(body, &mut output),
        };
        match done {
            Ok(true) => Ok(output.bytes),
            Ok(false) if most == limit => Err(DecodeError::TooLarge(limit)),
            Ok(false) => Err(DecodeError::Ratio),
            Err(fault) => Err(DecodeError::Corrupt { encoding: self, fault }),
        }
    }
}

/// What is decoded, up to a bound.
struct Output {
    bytes: Vec<u8>,
    most: usize,
}

impl Output {
    /// Reads to the end; false if the bound was passed before.
    fn read(&mut self, mut source: impl Read) -> Result<bool, String> {
        let mut step = vec![0; STEP];
        loop {
            let count = source.read(&mut step).map_err(|error| error.to_string())?;
            if count == 0 {
                return Ok(true);
            }
            if self.bytes.len() + count > self.most {
                return Ok(false);
            }
            self.bytes.extend_from_slice(step.get(..count).unwrap_or_default());
        }
    }
}

/// Reads all frames of a zstd stream.
fn zstd(body: &[u8], output: &mut Output) -> Result<bool, String> {
    let mut rest = body;
    if rest.is_empty() {
        return Err("it is empty".to_owned());
    }
    while !rest.is_empty() {
        let decoder = ruzstd::decoding::StreamingDecoder::new_with_max_window_size(&mut rest, ZSTD_WINDOW);
        if !output.read(decoder.map_err(|error| error.to_string())?)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// True if the first two bytes are the header of zlib; some clients leave it out.
fn has_zlib_header(body: &[u8]) -> bool {
    let Some(&[method, flags]) = body.first_chunk::<2>() else { return false };
    method & 0x0f == 8 && (u16::from(method) << 8 | u16::from(flags)) % 31 == 0
}

/// What the headers say of the encoding of their body.
pub fn content_encoding(headers: &Headers) -> Encoded {
    let mut found = Encoded::Plain;
    let named = headers.iter().filter(|(name, _)| *name == "content-encoding");
    for token in named.flat_map(|(_, value)| value.split(|byte| *byte == b',')) {
        let token = token.trim_ascii().to_ascii_lowercase();
        if token.is_empty() || token == b"identity" {
            continue;
        }
        let text = || String::from_utf8_lossy(token.get(..64).unwrap_or(&token)).into_owned();
        found = match (found, ContentEncoding::of(&token)) {
            (Encoded::Plain, Some(encoding)) => Encoded::By(encoding),
            (Encoded::Plain, None) => Encoded::Unknown(text()),
            (Encoded::By(first), _) => Encoded::Unknown(format!("{}, {}", first.name(), text())),
            (unknown @ Encoded::Unknown(_), _) => unknown,
        };
    }
    found
}

#[cfg(test)]
mod tests;
