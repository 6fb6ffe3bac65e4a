//! Answers of model servers: reading the usage, and putting the client's model name back.

use bytes::Bytes;
use pointsman::request::{Api, ModelRestorer, ResponseReader};

use super::{path, size_class};
use crate::engine::{Broken, Target, run};

const APIS: [Api; 5] =
    [Api::ChatCompletions, Api::Completions, Api::Responses, Api::Messages, Api::Embeddings];

const SEEDS: [&str; 5] = [
    "data: {\"id\":\"1\",\"model\":\"target\",\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\ndata: {\"model\":\"target\",\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2,\"total_tokens\":5}}\n\ndata: [DONE]\n\n",
    "event: message_start\r\ndata: {\"type\":\"message_start\",\"message\":{\"model\":\"target\",\"usage\":{\"input_tokens\":7,\"output_tokens\":1}}}\r\n\r\nevent: message_delta\r\ndata: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":9}}\r\n\r\n",
    "event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"id\":\"resp_1\",\"model\":\"target\",\"usage\":{\"input_tokens\":12,\"input_tokens_details\":{\"cached_tokens\":4},\"output_tokens\":6,\"total_tokens\":18}}}\n\n",
    "{\"id\":\"x\",\"object\":\"chat.completion\",\"model\":\"target\",\"choices\":[{\"message\":{\"content\":\"a\\\"model\\\":\\\"target\\\"\"}}],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2,\"total_tokens\":5,\"prompt_tokens_details\":{\"cached_tokens\":1}}}",
    "data: {\"error\":{\"message\":\"engine died\",\"code\":500}}\n\ndata: [DONE]\n\n",
];

const WORDS: [&str; 16] = [
    "data: ",
    "data:",
    "event: error\n",
    "\n\n",
    "\r\n\r\n",
    "\r",
    "\"model\":\"target\"",
    "\"model\": \"tar",
    "\"usage\":{",
    "\"usage\":null,",
    "\"prompt_tokens\":",
    "\"total_tokens\":1e30",
    "\"response\":{",
    "[DONE]",
    "\\u006dodel",
    "\u{feff}",
];

#[test]
fn an_answer_keeps_its_length_when_a_name_of_equal_length_is_put_back_and_the_reader_keeps_little_of_it() {
    let mut seeds = Vec::new();
    for kind in 0..(APIS.len() as u8 * 2) {
        seeds.extend(
            SEEDS.iter().flat_map(|seed| [1, 7, 255].map(|cut| [&[kind, cut], seed.as_bytes()].concat())),
        );
    }
    let target = Target { name: "responses", seeds, words: &WORDS, memory_factor: 8, memory_base: 256 << 10 };
    run(&target, check);
}

fn check(input: &[u8]) -> Result<u64, Broken> {
    let [kind, cut, answer @ ..] = input else { return Ok(0) };
    let (api, event_stream) = (APIS[*kind as usize / 2 % APIS.len()], kind % 2 == 0);
    let answer = Bytes::copy_from_slice(answer);
    let mut reader = ResponseReader::new(api, event_stream, 64 << 10);
    let mut restorer = ModelRestorer::new(api, event_stream, "target", "client");
    let (mut sent, mut rest) = (Vec::new(), answer.clone());
    while !rest.is_empty() {
        let chunk = rest.split_to(rest.len().min((*cut).max(1) as usize));
        reader.feed(&chunk);
        restorer.feed(chunk).iter().for_each(|piece| sent.extend_from_slice(piece));
    }
    reader.finish();
    restorer.finish().iter().for_each(|piece| sent.extend_from_slice(piece));
    if sent.len() != answer.len() {
        return Err(format!("an answer of {} bytes became one of {}", answer.len(), sent.len()));
    }
    let long = lengthened(api, event_stream, &answer, *cut);
    if long > 3 * answer.len() + (65 << 10) {
        return Err(format!("an answer of {} bytes became one of {long} with a long name", answer.len()));
    }
    // Back again: nothing but names has changed.
    let changed = sent.iter().zip(&answer).filter(|(one, other)| one != other).count();
    if changed > 0 && !answer.windows(6).any(|part| part == b"target") {
        return Err(format!("{changed} bytes changed, but the name does not stand in the answer"));
    }
    let usage =
        reader.usage().map(|usage| (size_class(usage.prompt_tokens as usize), usage.cached_tokens.is_some()));
    Ok(path((kind, usage, size_class(changed), size_class(sent.len()))))
}

/// Length of the answer once a name of 1000 bytes is put back.
fn lengthened(api: Api, event_stream: bool, answer: &Bytes, cut: u8) -> usize {
    let mut restorer = ModelRestorer::new(api, event_stream, "target", &"c".repeat(1000));
    let (mut sent, mut rest) = (0, answer.clone());
    while !rest.is_empty() {
        let chunk = rest.split_to(rest.len().min(cut.max(1) as usize));
        sent += restorer.feed(chunk).iter().map(Bytes::len).sum::<usize>();
    }
    sent + restorer.finish().map_or(0, |rest| rest.len())
}
