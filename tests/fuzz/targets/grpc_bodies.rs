//! Messages of gRPC: requests of vLLM's and Vertex AI's services, and their answers.

use bytes::Bytes;
use pointsman::request::{Api, ParserKind, Piece, ResponseReader, packed_ids, read, token_ids};

use super::{path, size_class};
use crate::engine::{Broken, Target, run};

/// The first byte of an input chooses one of these.
const PATHS: [(ParserKind, &str, Api); 4] = [
    (ParserKind::VllmGrpc, "/vllm.grpc.engine.VllmEngine/Generate", Api::GrpcGenerate),
    (ParserKind::VllmGrpc, "/vllm.grpc.engine.VllmEngine/Embed", Api::GrpcEmbed),
    (ParserKind::Vertex, "/PredictionService/ChatCompletions", Api::VertexChat),
    (ParserKind::Vertex, "/PredictionService/StreamRawPredict", Api::VertexRaw),
];

const WORDS: [&str; 10] = [
    "\u{12}\u{4}",
    "\u{1a}\u{5}hello",
    "\u{22}\u{2}\u{40}\u{7}",
    "\u{28}\u{1}",
    "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}",
    "{\"input\":\"hi\"}",
    "{\"usage\":{\"prompt_tokens\":3}}",
    "\0\0\0\0\0",
    "\u{7f}\u{7f}\u{7f}\u{7f}",
    "data: ",
];

fn framed(message: &[u8]) -> Vec<u8> {
    [&[0][..], &(message.len() as u32).to_be_bytes(), message].concat()
}

/// A field of bytes, whose length fits one byte.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, bytes.len() as u8][..], bytes].concat()
}

#[test]
fn a_grpc_message_is_read_within_its_bytes() {
    let tokenized = field(2, &[field(1, b"text"), field(2, b"\x01\xac\x02\x07")].concat());
    let chat = br#"{"model":"m","messages":[{"role":"user","content":"hello"}],"stream":true}"#;
    let messages = [
        [tokenized.clone(), field(4, b"\x40\x07"), vec![0x28, 1]].concat(),
        field(3, b"hello"),
        field(2, &[field(1, b"application/json"), field(2, chat)].concat()),
        field(1, &[0x10, 5, 0x18, 2, 0x20, 1]),
        field(2, &[0x18, 5, 0x20, 2]),
    ];
    let mut seeds = Vec::new();
    for kind in 0..PATHS.len() as u8 {
        for message in &messages {
            seeds.push([&[kind, 7], &framed(message)[..], &framed(message)].concat());
        }
    }
    let target =
        Target { name: "grpc_bodies", seeds, words: &WORDS, memory_factor: 64, memory_base: 256 << 10 };
    run(&target, check);
}

fn check(input: &[u8]) -> Result<u64, Broken> {
    let [kind, cut, body @ ..] = input else { return Ok(0) };
    let (parser, route, api) = PATHS[*kind as usize % PATHS.len()];
    let body = Bytes::copy_from_slice(body);
    let inference = read(parser, route, b"application/grpc", &body).map_err(|error| error.to_string())?;
    if inference.is_rewritable() {
        return Err("a message of gRPC can be rewritten".to_owned());
    }
    let mut ids = 0;
    for piece in &inference.prompt.pieces {
        match piece {
            Piece::Text(text) | Piece::Media(_, text) => ids += text.text(&body).len() / 3,
            Piece::Json(range) => ids += range.len(),
            Piece::Tokens(range) => ids += token_ids(&body, range.clone()).count(),
            Piece::PackedTokens(range) => ids += packed_ids(&body, range.clone()).count(),
            Piece::NextPrompt => {}
        }
    }
    if ids > body.len() {
        return Err(format!("{ids} ids from {} bytes", body.len()));
    }
    let mut reader = ResponseReader::new(api, inference.stream, 64 << 10);
    let mut rest = body.clone();
    while !rest.is_empty() {
        reader.feed(&rest.split_to(rest.len().min((*cut).max(1) as usize)));
    }
    reader.finish();
    let usage = reader.usage().map(|usage| size_class(usage.total_tokens as usize));
    let unread = inference.unread.map(|unread| unread.to_string());
    Ok(path((kind, unread, size_class(ids), usage, inference.max_output_tokens.is_some())))
}
