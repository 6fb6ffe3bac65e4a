//! Makes a request from what a capture keeps of it. Two such prompts are equal up to the block where the real ones were
//! equal, and have the length of the real ones.

use bytes::Bytes;

use crate::capture::lines::{BASE_BLOCK, RequestLine};
use crate::request::{
    Api, Headers, Inference, JsonStr, MediaEstimate, MediaKind, Piece, Tokenized, TokenizedPrompt,
};
use crate::scheduling::RequestView;

/// A request without its real text.
#[derive(Debug)]
pub(super) struct Remade {
    headers: Headers,
    body: Bytes,
    inference: Inference,
    tokens: Tokenized,
}

impl Remade {
    /// Makes the request of this line.
    pub(super) fn of(line: &RequestLine) -> Self {
        let mut headers = Headers::new();
        for (name, value) in &line.headers {
            headers.push(Bytes::copy_from_slice(name.as_bytes()), Bytes::copy_from_slice(value.as_bytes()));
        }
        let mut body = Vec::new();
        let mut put = |text: &str| {
            let start = body.len() as u32;
            body.extend_from_slice(text.as_bytes());
            JsonStr { start, end: body.len() as u32, escaped: false }
        };
        let mut inference = Inference::opaque();
        inference.api = api(&line.api);
        inference.model = Some(put(&line.model));
        inference.stream = line.stream;
        inference.max_output_tokens = line.max_output_tokens;
        for media in &line.media {
            let kind = MediaKind::named(&media.media).unwrap_or(MediaKind::Image);
            inference.prompt.pieces.push(Piece::Media(kind, put(&media.hash)));
        }
        Self { headers, body: body.into(), inference, tokens: tokens(line) }
    }

    /// The request as plugins see it.
    pub(super) fn view<'a>(
        &'a self,
        id: &'a str,
        line: &'a RequestLine,
        media: &'a MediaEstimate,
    ) -> RequestView<'a> {
        RequestView {
            id,
            target_model: &line.target_model,
            headers: &self.headers,
            body: &self.body,
            inference: &self.inference,
            tokens: Some(&self.tokens),
            findings: &[],
            media,
            priority: line.priority,
            fairness_id: &line.fairness_id,
        }
    }
}

/// The API with this name.
pub(super) fn api(name: &str) -> Api {
    Api::ALL.into_iter().find(|api| api.label() == name).unwrap_or(Api::Other)
}

/// Makes tokens that are equal where the hashes of their blocks are equal. The last block of a prompt is shortened so
/// that the number of all tokens is that of the line.
fn tokens(line: &RequestLine) -> Tokenized {
    let block = u64::from(BASE_BLOCK);
    let whole = line.chains.len() as u64 * block;
    let mut over = whole.saturating_sub(line.tokens);
    let prompt = |chain: &Vec<u64>| {
        let mut ids: Vec<u32> = chain.iter().flat_map(|hash| block_ids(*hash)).collect();
        let cut = over.min(block - 1).min(ids.len() as u64);
        over -= cut;
        ids.truncate(ids.len() - cut as usize);
        TokenizedPrompt { ids, media: Vec::new() }
    };
    Tokenized { prompts: line.chains.0.iter().map(prompt).collect() }
}

/// The tokens of a block with this hash.
fn block_ids(hash: u64) -> impl Iterator<Item = u32> {
    let mut rng = fastrand::Rng::with_seed(hash);
    (0..BASE_BLOCK).map(move |_| rng.u32(..))
}
