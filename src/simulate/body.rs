//! Requests and responses as bytes, as a client and a model server would send them.

use std::time::Duration;

use bytes::Bytes;

use super::figures::Objective;
use super::workload::{Request, mix};
use crate::director::{Ask, BodySeen, SubsetHint};
use crate::request::Headers;

/// The bytes of text that count as one token, as prefix indexes estimate them.
const BYTES_PER_TOKEN: usize = 4;
/// The name of the model that requests without an adapter ask for.
const MODEL: &str = "simulated";

/// Makes a completion request. Its prompt has the text of each of the request's blocks, and its headers name the
/// objective.
pub(super) fn ask(request: &Request, number: usize, block_tokens: u32, objective: Objective) -> Ask {
    let model = request.adapter.as_deref().unwrap_or(MODEL);
    let length = request.input as usize * BYTES_PER_TOKEN;
    let mut body = Vec::with_capacity(length + 200);
    body.extend_from_slice(b"{\"model\":\"");
    body.extend_from_slice(model.as_bytes());
    body.extend_from_slice(b"\",\"prompt\":\"");
    push_prompt(&mut body, &request.blocks, block_tokens as usize * BYTES_PER_TOKEN, length);
    body.extend_from_slice(
        format!(
            "\",\"max_tokens\":{},\"stream\":{}}}",
            request.output,
            if request.streamed { "true,\"stream_options\":{\"include_usage\":true}" } else { "false" }
        )
        .as_bytes(),
    );
    let mut headers = Headers::new();
    let mut push =
        |name: &'static str, value: String| headers.push(Bytes::from_static(name.as_bytes()), value.into());
    push(":method", "POST".to_owned());
    push(":path", "/v1/completions".to_owned());
    push("content-type", "application/json".to_owned());
    push("x-request-id", format!("simulated-{number}"));
    push("x-gateway-inference-fairness-id", format!("session-{}", request.session));
    push("x-llm-d-slo-ttft-ms", milliseconds(objective.first_token));
    push("x-llm-d-slo-tpot-ms", milliseconds(objective.between_tokens));
    if let Some(objective) = &request.objective {
        push("x-gateway-inference-objective", objective.to_string());
    }
    Ask { headers, body: body.into(), body_seen: BodySeen::Whole, hint: SubsetHint::Absent }
}

fn milliseconds(time: Duration) -> String {
    (time.as_secs_f64() * 1e3).to_string()
}

/// Appends `length` bytes of text. Each block has `block_bytes` of it, which depend on the block's id only.
fn push_prompt(out: &mut Vec<u8>, blocks: &[u64], block_bytes: usize, length: usize) {
    const DIGITS: &[u8; 16] = b"abcdefghijklmnop";
    let end = out.len() + length;
    for id in blocks {
        let block_end = (out.len() + block_bytes).min(end);
        let mut part = *id;
        while out.len() < block_end {
            part = mix(part);
            for byte in part.to_le_bytes() {
                out.extend_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
            }
        }
        out.truncate(block_end);
    }
    out.resize(end, b' ');
}

/// The headers of an answer.
pub(super) fn response_headers(streamed: bool) -> Headers {
    let mut headers = Headers::new();
    let form = if streamed { "text/event-stream" } else { "application/json" };
    for (name, value) in [(":status", "200"), ("content-type", form)] {
        headers.push(Bytes::from_static(name.as_bytes()), Bytes::from_static(value.as_bytes()));
    }
    headers
}

/// The event with the first token of an answer.
pub(super) fn first_chunk() -> Bytes {
    Bytes::from_static(
        b"data: {\"object\":\"text_completion\",\"choices\":[{\"index\":0,\"text\":\" a\"}]}\n\n",
    )
}

/// The events at the end of an answer.
pub(super) fn last_chunk(prompt: u32, answer: u32, cached: u32) -> Bytes {
    format!(
        "data: {{\"object\":\"text_completion\",\"choices\":[],\"usage\":{{\"prompt_tokens\":{prompt},\
         \"completion_tokens\":{answer},\"total_tokens\":{},\"prompt_tokens_details\":{{\"cached_tokens\":{cached}}}}}}}\n\n\
         data: [DONE]\n\n",
        prompt + answer
    )
    .into()
}

/// An answer in one piece.
pub(super) fn whole(prompt: u32, answer: u32, cached: u32) -> Bytes {
    format!(
        "{{\"object\":\"text_completion\",\"choices\":[{{\"index\":0,\"text\":\" a\"}}],\"usage\":{{\"prompt_tokens\":{prompt},\
         \"completion_tokens\":{answer},\"total_tokens\":{},\"prompt_tokens_details\":{{\"cached_tokens\":{cached}}}}}}}",
        prompt + answer
    )
    .into()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::simulate::workload::Start;

    #[test]
    fn equal_blocks_at_equal_places_are_equal_text() {
        let body = |blocks: &[u64], input| {
            let request = Request {
                start: Start::At(Duration::ZERO),
                input,
                output: 3,
                blocks: Arc::from(blocks),
                session: 0,
                adapter: None,
                objective: None,
                streamed: true,
            };
            let objective =
                Objective { first_token: Duration::from_secs(2), between_tokens: Duration::from_millis(50) };
            let ask = ask(&request, 0, 16, objective);
            let body: serde_json::Value = serde_json::from_slice(&ask.body).unwrap();
            body["prompt"].as_str().unwrap().to_owned()
        };
        let (one, two) = (body(&[1, 2, 3], 40), body(&[1, 2, 4], 48));
        assert_eq!((one.len(), two.len()), (160, 192));
        assert_eq!(one[..128], two[..128]);
        assert_ne!(one[128..], two[128..160]);
    }
}
