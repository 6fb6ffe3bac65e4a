//! Reading requests and responses in one pass over the borrowed bytes, without a tree of owned values.
//!
//! | file | what |
//! |---|---|
//! | `headers`, `types` | what the rest of the program sees |
//! | `media_estimate` | how many tokens images and videos are taken to be |
//! | `tokenized` | the exact tokens of prompts, made elsewhere |
//! | `paths`, `parse`, `error` | from a path and a body to an [`Inference`], or why not |
//! | `scan`, `words`, `number`, `escapes` | the pull scanner over a whole body |
//! | `canonical` | one spelling for all spellings of a JSON value |
//! | `envelope`, `pieces` | what all APIs share |
//! | `openai`, `chat`, `anthropic`, `vllm`, `sglang` | one API family each |
//! | `protobuf`, `vllm_grpc`, `vertex` | the same in messages of gRPC |
//! | `media_type` | what a body is by its content type |
//! | `other`, `multipart`, `urlencoded` | bodies of which the model alone is read |
//! | `query` | the model in the query of a path |
//! | `parameters`, `percent` | spellings in headers of parts and in forms |
//! | `lenient` | bodies that are JSON to a server and of which nothing is read |
//! | `encoding` | content-encodings of bodies |
//! | `splice`, `model_name`, `pieces_of_body` | another model in the body, and bounds on its name |
//! | `object` | any member of a body set or removed |
//! | `blank` | members of a body in chunks blanked out |
//! | `skim`, `sse` | a push scanner over chunks for a member of a JSON document; fields of an event stream |
//! | `model_watch` | the model of a request that is seen in part, or in pieces |
//! | `response`, `usage` | token counts and failures from a response |
//! | `inflate` | gzip and deflate off a response, to read it |
//! | `state` | ids of responses and conversations, in paths and answers |
//! | `error_form` | how a client wants to be told of an error |
//! | `cached_tokens` | another count of cached tokens in a response |
//! | `rewrite_back` | the client's model name in a response |
//! | `member_rewrite` | what those two share: the value of one member in a response that passes by in chunks |
//! | `outgoing` | the bytes that go out for one chunk |

mod anthropic;
mod blank;
mod cached_tokens;
mod canonical;
mod chat;
mod encoding;
mod envelope;
mod error;
mod error_form;
mod escapes;
mod headers;
mod inflate;
mod lenient;
mod media_estimate;
mod media_type;
mod member_rewrite;
mod messages;
mod model_name;
mod model_watch;
mod multipart;
mod number;
mod object;
mod openai;
mod other;
mod outgoing;
mod parameters;
mod parse;
mod paths;
mod percent;
mod pieces;
mod pieces_of_body;
mod protobuf;
mod query;
mod response;
mod rewrite_back;
mod scan;
mod sglang;
mod skim;
mod splice;
mod sse;
mod state;
mod tokenized;
mod types;
mod urlencoded;
mod usage;
mod vertex;
mod vllm;
mod vllm_grpc;
mod words;

pub use blank::{Blanker, TooMuchBlank};
pub use cached_tokens::CachedTokens;
pub use canonical::Canonical;
pub use encoding::{ContentEncoding, DecodeError, Encoded, PassingDecoder, content_encoding};
pub use error::{Fault, ParseError, ScanError, Shape, Unread};
pub use error_form::ErrorForm;
pub use headers::Headers;
pub use inflate::{Inflater, NotDecoded};
pub use media_estimate::{Frames, MediaEstimate, MediaRules, PictureTokens, VideoEstimate};
pub use model_name::{MAX_MODEL_MEMBERS, MAX_MODEL_NAME, cut};
pub use model_watch::{ModelWatch, beginning};
pub use object::{Edits, JsonObject, ObjectError, json_elements, json_members, json_string, json_text};
pub use parse::{api_of, parse, read};
pub use paths::{ParserKind, Parsers, routing_path};
pub use query::{query_model, with_query_model};
pub use response::ResponseReader;
pub use rewrite_back::ModelRestorer;
pub use splice::splice_model;
pub use state::{MAX_STATE_ID, MadeId, may_refer_to_state, state_in_path};
pub use tokenized::{MediaSpan, Tokenized, TokenizedPrompt};
pub use types::{Api, Inference, JsonStr, MediaKind, Piece, Prompt, Spelling, Usage, packed_ids, token_ids};

#[cfg(test)]
mod edge_tests;
#[cfg(test)]
mod shapes_tests;
