//! Turns text into token ids.

mod cache;
mod cuts;
mod frame;
mod pipeline;

use std::sync::atomic::{AtomicBool, Ordering};

use tokenizers::pipeline::{EncodeOptions, Override, PipelineToken, PipelineTokenizer};

pub(crate) use cache::SegmentCache;
pub(crate) use pipeline::{Flaw, Pipeline};

use cuts::Cuts;
use frame::Frame;

/// Why a text was not encoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The caller no longer needs the result.
    #[error("stopped")]
    Stopped,
    /// The tokenizer does not accept the text.
    #[error("the text is not encoded: {0}")]
    Failed(String),
}

/// Tells the work to end early when its result is not needed any more.
#[derive(Clone, Copy, Debug)]
pub struct Stop<'a>(Option<&'a AtomicBool>);

impl<'a> Stop<'a> {
    /// The work goes on to its end.
    pub const NEVER: Stop<'static> = Stop(None);

    /// The work ends once `flag` is true. The flag is read between pieces of some kilobytes.
    pub fn at(flag: &'a AtomicBool) -> Self {
        Self(Some(flag))
    }

    pub(crate) fn check(self) -> Result<(), EncodeError> {
        match self.0 {
            Some(flag) if flag.load(Ordering::Relaxed) => Err(EncodeError::Stopped),
            _ => Ok(()),
        }
    }
}

/// The tokenizer of a model.
pub(crate) struct Encoder {
    pipeline: PipelineTokenizer,
    /// The ids that are put around a text with special tokens.
    frame: Frame,
    cuts: Cuts,
    cache: SegmentCache,
}

/// The shortest segment, in bytes, that is cached.
const SHORTEST_CACHED: usize = 128;

impl Encoder {
    /// Makes the encoder of a tokenizer. `cache_bytes` bounds its cache.
    ///
    /// # Errors
    /// Returns the part of the tokenizer that is not understood.
    pub(crate) fn new(file: &Pipeline, cache_bytes: usize) -> Result<Self, Flaw> {
        let pipeline = tokenizers::from_json(&file.canonical)
            .map_err(|error| Flaw::new("(whole file)", error.to_string()))?;
        let ids = |run: &[(PipelineToken, u8)]| run.iter().map(|(token, _)| token.id()).collect();
        let template = &pipeline.get_post_processor().single;
        let of_file = Frame { before: ids(&template.prefix), after: ids(&template.suffix) };
        let frame = file.frame.clone().unwrap_or(of_file);
        let cuts = Cuts::new(&pipeline).map_err(|reason| Flaw::new("added_tokens", reason))?;
        let mut encoder = Self { pipeline, frame, cuts: Cuts::none(), cache: SegmentCache::new(cache_bytes) };
        encoder.cuts = cuts.proven(|text| encoder.encode_whole(text).unwrap_or_default());
        Ok(encoder)
    }

    /// The number of special tokens around a text with special tokens.
    pub(crate) fn frame_length(&self) -> usize {
        self.frame.before.len() + self.frame.after.len()
    }

    /// Puts the special tokens around the ids of a text.
    pub(crate) fn framed(&self, ids: &[u32]) -> Vec<u32> {
        [&self.frame.before, ids, &self.frame.after].concat()
    }

    /// The ids of a text. Special tokens inside the text are recognised. `framed` adds the special tokens around it.
    ///
    /// # Errors
    /// [`EncodeError`]
    pub(crate) fn encode(&self, text: &str, framed: bool, stop: Stop<'_>) -> Result<Vec<u32>, EncodeError> {
        let mut ids = Vec::with_capacity(text.len() / 3 + 8);
        if framed {
            ids.extend_from_slice(&self.frame.before);
        }
        let (mut from, mut scratch) = (0, Vec::new());
        for to in self.cuts.of(text).chain([text.len()]) {
            // A segment that is too short for the cache is encoded together with the next one.
            if to < text.len() && to - from < SHORTEST_CACHED {
                continue;
            }
            stop.check()?;
            self.segment(text.get(from..to).unwrap_or_default(), from == 0, &mut ids, &mut scratch)?;
            from = to;
        }
        if framed {
            ids.extend_from_slice(&self.frame.after);
        }
        Ok(ids)
    }

    /// Appends the ids of a segment. A segment is the first of its text, or begins with a special token.
    fn segment(
        &self,
        text: &str,
        first: bool,
        ids: &mut Vec<u32>,
        scratch: &mut Vec<PipelineToken>,
    ) -> Result<(), EncodeError> {
        if text.len() < SHORTEST_CACHED {
            return self.append(text, ids, scratch);
        }
        let key = self.cache.key(text, first);
        if self.cache.append(key, ids) {
            return Ok(());
        }
        let start = ids.len();
        self.append(text, ids, scratch)?;
        self.cache.insert(key, ids.get(start..).unwrap_or_default());
        Ok(())
    }

    fn append(
        &self,
        text: &str,
        ids: &mut Vec<u32>,
        scratch: &mut Vec<PipelineToken>,
    ) -> Result<(), EncodeError> {
        scratch.clear();
        self.pipeline
            .encode_into(text, &OPTIONS, scratch)
            .map_err(|error| EncodeError::Failed(error.to_string()))?;
        ids.extend_from_slice(PipelineToken::cast_slice(scratch));
        Ok(())
    }

    /// The ids of a text in which special tokens are text like any other.
    ///
    /// # Errors
    /// [`EncodeError`]
    pub(crate) fn encode_ordinary(&self, text: &str, stop: Stop<'_>) -> Result<Vec<u32>, EncodeError> {
        if !self.cuts.has_any(text) {
            return self.encode(text, false, stop);
        }
        stop.check()?;
        let mut found = Vec::new();
        let options = EncodeOptions { encode_special_tokens: true, ..OPTIONS };
        self.pipeline
            .encode_into(text, &options, &mut found)
            .map_err(|error| EncodeError::Failed(error.to_string()))?;
        Ok(PipelineToken::cast_slice(&found).to_vec())
    }

    /// The ids of a text, without cuts and cache.
    pub(crate) fn encode_whole(&self, text: &str) -> Result<Vec<u32>, EncodeError> {
        let mut ids = Vec::new();
        self.append(text, &mut ids, &mut Vec::new())?;
        Ok(ids)
    }

    /// The memory that the cache takes, in bytes.
    pub(crate) fn cache_bytes(&self) -> usize {
        self.cache.bytes()
    }
}

/// The truncation and the padding of the file are ignored, because the server asks for neither.
const OPTIONS: EncodeOptions = EncodeOptions {
    add_special_tokens: false,
    encode_special_tokens: false,
    padding: Override::Off,
    truncation: Override::Off,
};
