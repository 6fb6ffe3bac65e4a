//! Usage in gRPC responses, wherever their chunks end.

use super::*;
use crate::request::protobuf::{bytes_field, frame, number_field};
use crate::request::types::Usage;

fn read(api: Api, body: &[u8], chunk: usize) -> (Option<Usage>, bool) {
    let mut reader = ResponseReader::new(api, false, 4096);
    body.chunks(chunk.max(1)).for_each(|bytes| reader.feed(bytes));
    reader.finish();
    (reader.usage(), reader.clipped())
}

fn usage(prompt: u64, completion: u64, cached: Option<u64>) -> Usage {
    let total_tokens = prompt + completion;
    Usage { prompt_tokens: prompt, completion_tokens: completion, total_tokens, cached_tokens: cached }
}

fn counts(first: u8, counts: [u64; 3]) -> Vec<u8> {
    (first..).zip(counts).flat_map(|(field, count)| number_field(field, count)).collect()
}

#[test]
fn a_stream_and_a_whole_answer_of_vllm_report_their_counts_wherever_chunks_end() {
    let stream: Vec<u8> = (1..=3)
        .flat_map(|done| {
            let ids = bytes_field(1, &[7]);
            frame(&bytes_field(1, &[ids, counts(2, [10, done, 4])].concat()))
        })
        .collect();
    let whole = frame(&bytes_field(
        2,
        &[bytes_field(1, &[1, 2]), bytes_field(2, b"stop"), counts(3, [10, 3, 4])].concat(),
    ));
    for chunk in [1, 2, 5, 6, 7, 1000] {
        for body in [&stream, &whole] {
            assert_eq!(read(Api::GrpcGenerate, body, chunk), (Some(usage(10, 3, Some(4))), false), "{chunk}");
        }
    }
    let embed = frame(&[bytes_field(1, &[0; 64]), number_field(2, 9), number_field(3, 16)].concat());
    assert_eq!(read(Api::GrpcEmbed, &embed, 3), (Some(usage(9, 0, None)), false));
}

#[test]
fn a_long_or_compressed_message_is_passed_over_and_the_next_one_is_read() {
    let long = frame(&bytes_field(2, &bytes_field(1, &[1; 5000])));
    let compressed = [&[1][..], &frame(b"zzzz")[1..]].concat();
    let last = frame(&bytes_field(2, &counts(3, [5, 2, 0])));
    for before in [&long, &compressed] {
        let body = [before.as_slice(), &last].concat();
        assert_eq!(read(Api::GrpcGenerate, &body, 100), (Some(usage(5, 2, Some(0))), true));
    }
    // The end may be missing, and a message may be no message.
    assert_eq!(read(Api::GrpcGenerate, &last[..last.len() - 1], 1).0, None);
    assert_eq!(read(Api::GrpcGenerate, &frame(b"\xff\xff\xff"), 1), (None, false));
    let lie = frame(&bytes_field(2, &counts(3, [u64::MAX, 2, 0])));
    assert_eq!(read(Api::GrpcGenerate, &lie, 1).0.map(|usage| usage.prompt_tokens), Some(0));
}

#[test]
fn the_body_inside_an_answer_of_vertex_reports_its_usage() {
    let inside =
        |data: &str| frame(&[bytes_field(1, b"application/json"), bytes_field(2, data.as_bytes())].concat());
    let chat = inside(r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}"#);
    assert_eq!(read(Api::VertexChat, &chat, 10).0, Some(usage(3, 4, None)));
    let events = [
        inside("data: {\"type\":\"response.created\"}\n\n"),
        inside(
            "data: {\"type\":\"response.completed\",\"response\":{\"usage\":{\"input_tokens\":3,\"output_tokens\":4}}}\r\n\r\n",
        ),
    ];
    assert_eq!(read(Api::VertexRaw, &events.concat(), 10).0, Some(usage(3, 4, None)));
}

#[test]
fn the_meta_info_of_sglang_is_its_usage() {
    let whole = br#"{"text":"x","meta_info":{"prompt_tokens":5,"completion_tokens":2,"cached_tokens":1,"finish_reason":{"type":"stop"}}}"#;
    assert_eq!(read(Api::SglangGenerate, whole, 7).0, Some(usage(5, 2, Some(1))));
    let mut reader = ResponseReader::new(Api::SglangGenerate, true, 4096);
    for done in 1..=3 {
        let info = format!(
            r#"{{"prompt_tokens":5,"completion_tokens":{done},"cached_tokens":1,"finish_reason":null}}"#
        );
        reader.feed(format!("data: {{\"text\":\"x\",\"meta_info\":{info}}}\n\n").as_bytes());
    }
    reader.feed(b"data: [DONE]\n\n");
    assert_eq!(reader.usage(), Some(usage(5, 3, Some(1))));
    // Elsewhere it is a member like any other.
    assert_eq!(read(Api::Completions, whole, 7).0, None);
}
