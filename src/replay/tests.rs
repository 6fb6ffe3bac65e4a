use bytes::Bytes;
use proptest::prelude::*;

use super::request::Remade;
use crate::capture::lines::RequestLine;
use crate::capture::{HeaderRule, features};
use crate::prefix::{BlockHashes, BlockShape, block_hashes, token_block_hashes};
use crate::request::{self, Headers, MediaEstimate, ParserKind, Tokenized};
use crate::scheduling::RequestView;

const MEDIA: MediaEstimate = MediaEstimate::DEFAULT;

/// What a capture keeps of a chat with this text, and the hashes of its blocks.
fn captured(text: &str, block_size: u32) -> (RequestLine, BlockHashes) {
    let body = serde_json::json!({"model": "m", "messages": [{"role": "user", "content": text}]}).to_string();
    let body = Bytes::from(body);
    let inference = request::parse(ParserKind::OpenAi, "/v1/chat/completions", &body).unwrap();
    let headers = Headers::new();
    let view = RequestView {
        id: "r",
        target_model: "m",
        headers: &headers,
        body: &body,
        inference: &inference,
        tokens: None,
        findings: &[],
        media: &MEDIA,
        priority: 0,
        fairness_id: "f",
    };
    let shape = BlockShape { block_size, max_blocks: usize::MAX };
    let blocks = block_hashes("m", &inference, &body, view.media_rules(), shape);
    (features(&view, "m", &HeaderRule::new("", 7)), blocks)
}

/// The hashes of the blocks of the request that a replay makes from this line, and the number of its tokens.
fn remade(line: &RequestLine, block_size: u32) -> (BlockHashes, u64) {
    let remade = Remade::of(line);
    let view = remade.view("r", line, &MEDIA);
    let shape = BlockShape { block_size, max_blocks: usize::MAX };
    let tokens = view.tokens.unwrap();
    (token_block_hashes("m", view.inference, view.body, tokens, shape), Tokenized::count(tokens))
}

fn shared(one: &BlockHashes, two: &BlockHashes) -> usize {
    one.hashes().iter().zip(two.hashes()).take_while(|(one, two)| one == two).count()
}

proptest! {
    #[test]
    fn remade_prompts_are_as_long_as_the_real_ones_and_equal_as_far_as_they_are(
        start in "[a-z ]{0,900}",
        ends in ("[a-z]{0,400}", "[a-z]{0,400}"),
        block_size in prop::sample::select(vec![16_u32, 64, 128]),
    ) {
        let [one, two] = [&ends.0, &ends.1].map(|end| captured(&format!("{start}{end}"), block_size));
        let [again, other] = [&one, &two].map(|(line, _)| remade(line, block_size));
        prop_assert_eq!((again.0.len(), again.1), (one.1.len(), one.0.tokens));
        prop_assert_eq!((other.0.len(), other.1), (two.1.len(), two.0.tokens));
        prop_assert_eq!(shared(&again.0, &other.0), shared(&one.1, &two.1));
    }
}
