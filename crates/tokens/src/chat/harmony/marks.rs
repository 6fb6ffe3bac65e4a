//! The special tokens between the parts of a harmony message.

use crate::encoder::Encoder;

/// Ids of the marks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Marks {
    pub(super) start: u32,
    pub(super) channel: u32,
    pub(super) message: u32,
    pub(super) end: u32,
    pub(super) call: u32,
}

impl Marks {
    /// The marks of a vocabulary; `None` unless it has all of them.
    pub(crate) fn of(encoder: &Encoder) -> Option<Self> {
        let id = |text: &str| match encoder.encode_whole(text).ok()?.as_slice() {
            [id] => Some(*id),
            _ => None,
        };
        Some(Self {
            start: id("<|start|>")?,
            channel: id("<|channel|>")?,
            message: id("<|message|>")?,
            end: id("<|end|>")?,
            call: id("<|call|>")?,
        })
    }
}
