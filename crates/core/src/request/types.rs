//! The shape of a parsed request. All text stays in the body; these types hold ranges into it.

use std::borrow::Cow;
use std::ops::Range;

use smallvec::SmallVec;

use super::error::{Shape, Unread};
use super::model_name::MAX_MODEL_MEMBERS;
use super::{escapes, number, percent, protobuf};

/// Which API a request speaks; it decides which fields are read and how usage is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Api {
    /// OpenAI `…/chat/completions` (and `/render`).
    ChatCompletions,
    /// OpenAI `…/completions` (and `/render`).
    Completions,
    /// OpenAI `…/embeddings`.
    Embeddings,
    /// OpenAI `…/responses`.
    Responses,
    /// OpenAI `…/conversations`.
    Conversations,
    /// OpenAI `…/images/generations`.
    Images,
    /// Anthropic `…/messages`.
    Messages,
    /// Anthropic `…/messages/count_tokens`.
    CountTokens,
    /// vLLM `…/inference/v1/generate`.
    Generate,
    /// SGLang `/generate`.
    SglangGenerate,
    /// vLLM's gRPC `Generate`.
    GrpcGenerate,
    /// vLLM's gRPC `Embed`.
    GrpcEmbed,
    /// Vertex AI's gRPC `ChatCompletions`.
    VertexChat,
    /// Vertex AI's gRPC `RawPredict` and `StreamRawPredict`.
    VertexRaw,
    /// A body of which only the model is read: rerank, score, pooling, classify, tokenize, audio, forms and so on.
    Other,
    /// A body that is not looked into.
    Opaque,
}

impl Api {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::ChatCompletions,
        Self::Completions,
        Self::Embeddings,
        Self::Responses,
        Self::Conversations,
        Self::Images,
        Self::Messages,
        Self::CountTokens,
        Self::Generate,
        Self::SglangGenerate,
        Self::GrpcGenerate,
        Self::GrpcEmbed,
        Self::VertexChat,
        Self::VertexRaw,
        Self::Other,
        Self::Opaque,
    ];

    /// Name for metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::ChatCompletions => "chat_completions",
            Self::Completions => "completions",
            Self::Embeddings => "embeddings",
            Self::Responses => "responses",
            Self::Conversations => "conversations",
            Self::Images => "images",
            Self::Messages => "messages",
            Self::CountTokens => "count_tokens",
            Self::Generate => "generate",
            Self::SglangGenerate => "sglang_generate",
            Self::GrpcGenerate => "grpc_generate",
            Self::GrpcEmbed => "grpc_embed",
            Self::VertexChat => "vertex_chat",
            Self::VertexRaw => "vertex_raw",
            Self::Other => "other",
            Self::Opaque => "opaque",
        }
    }
}

/// A JSON string in the body: the range between its quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JsonStr {
    /// First byte after the opening quote.
    pub start: u32,
    /// The closing quote.
    pub end: u32,
    /// True if the range holds backslash escapes.
    pub escaped: bool,
}

impl JsonStr {
    /// The bytes between the quotes, escapes and all; empty if the range lies outside `body`.
    pub fn raw<'b>(&self, body: &'b [u8]) -> &'b [u8] {
        body.get(self.start as usize..self.end as usize).unwrap_or_default()
    }

    /// The string's value. Borrowed if it has no escapes and is UTF-8; lone surrogates and bytes that are no UTF-8
    /// become U+FFFD.
    pub fn text<'b>(&self, body: &'b [u8]) -> Cow<'b, str> {
        let raw = self.raw(body);
        if self.escaped { escapes::decode_text(raw) } else { String::from_utf8_lossy(raw) }
    }
}

/// Kind of a non-text part of a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaKind {
    /// `image_url`, Anthropic image blocks.
    Image,
    /// `input_audio`, `audio_url`.
    Audio,
    /// `video_url`.
    Video,
}

impl MediaKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Image, Self::Audio, Self::Video];

    /// The kind of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.label() == name)
    }

    /// Lower-case name.
    pub fn label(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Audio => "audio",
            Self::Video => "video",
        }
    }
}

/// One piece of a prompt, in prompt order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Text: the decoded value of a string.
    Text(JsonStr),
    /// A JSON value that counts in the one spelling that all its spellings share (tools, items, input structures).
    Json(Range<u32>),
    /// A JSON array of token ids.
    Tokens(Range<u32>),
    /// Token ids as packed numbers of protobuf.
    PackedTokens(Range<u32>),
    /// An image, video or audio part; the string is its URL or data.
    Media(MediaKind, JsonStr),
    /// The pieces that follow belong to another prompt (completions with several prompts).
    NextPrompt,
}

/// The prompt as a list of pieces. Empty for bodies that are not looked into.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prompt {
    /// Pieces in prompt order.
    pub pieces: SmallVec<[Piece; 8]>,
}

impl Prompt {
    /// True if the prompt has an image, video or audio part.
    pub fn has_media(&self) -> bool {
        self.pieces.iter().any(|piece| matches!(piece, Piece::Media(..)))
    }
}

/// The ids in the range of a [`Piece::Tokens`]. Values that are no token ids are left out. The parsers let none through.
pub fn token_ids(body: &[u8], range: Range<u32>) -> impl Iterator<Item = u32> {
    let array = body.get(range.start as usize..range.end as usize).unwrap_or_default();
    let list = array.strip_prefix(b"[").and_then(|rest| rest.strip_suffix(b"]")).unwrap_or_default();
    list.split(|byte| *byte == b',').filter_map(|number| {
        let number = number.trim_ascii();
        (!number.is_empty())
            .then(|| number::whole_number(number))
            .flatten()
            .and_then(|id| u32::try_from(id).ok())
    })
}

/// How the values of a body are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Spelling {
    /// As JSON strings.
    #[default]
    Json,
    /// As they are: the parts of a form (`multipart/form-data`).
    Verbatim,
    /// As pairs of `application/x-www-form-urlencoded`: a blank is a plus sign, other bytes may be `%XX`.
    Percent,
}

/// The ids in the range of a [`Piece::PackedTokens`]. Bytes behind a broken id are left out. Ids beyond 32 bits wrap
/// around.
pub fn packed_ids(body: &[u8], range: Range<u32>) -> impl Iterator<Item = u32> {
    let mut left = body.get(range.start as usize..range.end as usize).unwrap_or_default();
    std::iter::from_fn(move || {
        let (id, length) = protobuf::varint(left)?;
        left = left.get(length..)?;
        Some(id as u32)
    })
}

/// The facts that a request's body states.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inference {
    /// The API.
    pub api: Api,
    /// Top-level `model`, if it is a string; of duplicates the last.
    pub model: Option<JsonStr>,
    /// Ranges of the top-level `model` values, quotes included, ascending: what a rewrite replaces. At most
    /// [`MAX_MODEL_MEMBERS`](super::MAX_MODEL_MEMBERS).
    pub model_values: SmallVec<[Range<u32>; 1]>,
    /// How the models are written.
    pub spelling: Spelling,
    /// True if the body has more `model` members than are noted, so that a rewrite would miss some.
    pub more_models: bool,
    /// Where a `model` member can be inserted when there is none: just behind the opening brace. `None` if the model
    /// can't be rewritten.
    pub insert_at: Option<u32>,
    /// True if the object behind `insert_at` has no members, so that an inserted one needs no comma.
    pub empty_object: bool,
    /// The client asked for a stream.
    pub stream: bool,
    /// Cap on output tokens.
    pub max_output_tokens: Option<u64>,
    /// Id of the response that the request continues.
    pub state: Option<JsonStr>,
    /// Id of the conversation to which the request belongs.
    pub conversation: Option<JsonStr>,
    /// `cache_salt`.
    pub cache_salt: Option<JsonStr>,
    /// The prompt.
    pub prompt: Prompt,
    /// The first thing in the body that was not understood.
    pub unread: Option<Unread>,
}

impl Inference {
    /// A body that is not looked into.
    pub fn opaque() -> Self {
        Self {
            api: Api::Opaque,
            model: None,
            model_values: SmallVec::new(),
            spelling: Spelling::Json,
            more_models: false,
            insert_at: None,
            empty_object: false,
            stream: false,
            max_output_tokens: None,
            state: None,
            conversation: None,
            cache_salt: None,
            prompt: Prompt::default(),
            unread: None,
        }
    }

    /// The name of [`Inference::model`], decoded; bytes that are no UTF-8 become U+FFFD. `body` is what it was read from.
    pub fn model_name<'b>(&self, body: &'b [u8]) -> Option<Cow<'b, str>> {
        let model = self.model?;
        Some(match self.spelling {
            Spelling::Percent => match percent::decode(model.raw(body)) {
                Cow::Borrowed(bytes) => String::from_utf8_lossy(bytes),
                Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
            },
            Spelling::Json | Spelling::Verbatim => model.text(body),
        })
    }

    /// True for a form of either kind.
    pub fn is_form(&self) -> bool {
        self.spelling != Spelling::Json
    }

    /// Notes a value of `model` that lies at `range`, as it is written.
    pub(super) fn note_model(&mut self, range: Range<u32>) {
        if self.model_values.len() < MAX_MODEL_MEMBERS {
            self.model_values.push(range);
        } else {
            self.more_models = true;
        }
    }

    /// The same, read from a body that begins `by` bytes further in another one, in which no model can be set.
    pub(super) fn moved(mut self, by: u32) -> Self {
        let range =
            |range: &mut Range<u32>| *range = range.start.saturating_add(by)..range.end.saturating_add(by);
        let string = |string: &mut JsonStr| {
            (string.start, string.end) = (string.start.saturating_add(by), string.end.saturating_add(by));
        };
        (self.model, self.insert_at) = (None, None);
        self.model_values.clear();
        for text in [&mut self.state, &mut self.conversation, &mut self.cache_salt].into_iter().flatten() {
            string(text);
        }
        for piece in &mut self.prompt.pieces {
            match piece {
                Piece::Text(text) | Piece::Media(_, text) => string(text),
                Piece::Json(place) | Piece::Tokens(place) | Piece::PackedTokens(place) => range(place),
                Piece::NextPrompt => {}
            }
        }
        self.unread = match self.unread {
            Some(Unread::Shape(shape)) => {
                Some(Unread::Shape(Shape { at: shape.at.saturating_add(by), ..shape }))
            }
            unread => unread,
        };
        self
    }

    /// Bytes that the prompt's pieces take beside the body.
    pub fn held_bytes(&self) -> usize {
        let pieces = &self.prompt.pieces;
        if pieces.spilled() { pieces.capacity() * size_of::<Piece>() } else { 0 }
    }

    /// True if the body can get another model.
    pub fn is_rewritable(&self) -> bool {
        self.insert_at.is_some()
    }
}

/// Token counts that a response reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Prompt tokens.
    pub prompt_tokens: u64,
    /// Generated tokens.
    pub completion_tokens: u64,
    /// Total as reported, or the sum.
    pub total_tokens: u64,
    /// Prompt tokens that came from the cache; `None` if the response has no such detail.
    pub cached_tokens: Option<u64>,
}
