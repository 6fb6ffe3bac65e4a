//! Metrics pages of model servers, and the HTTP answers around them.

use pointsman::datalayer::exposition::{Figures, PageReader, WantedSeries};
use pointsman::datalayer::{EngineTable, Event, ResponseReader};

use super::{path, size_class};
use crate::engine::{Broken, Target, run};

const ENGINES: [&str; 3] = ["vllm", "sglang", "trtllm-serve"];

const CAPTURED: &[u8] = include_bytes!("../../data/vllm-0.32.0/metrics_dp2.txt");

const ROWS: &str = "# TYPE vllm:num_requests_waiting gauge\n\
    vllm:num_requests_waiting{engine=\"0\",model_name=\"m\"} 3.0\n\
    vllm:num_requests_running{engine=\"0\",model_name=\"m\"} 1e2 1700000000000\n\
    vllm:kv_cache_usage_perc{engine=\"0\",model_name=\"m\"} 0.25\n\
    vllm:cache_config_info{block_size=\"16\",num_gpu_blocks=\"1000\",engine=\"0\"} 1.0\n\
    vllm:lora_requests_info{max_lora=\"4\",running_lora_adapters=\"a,b\",waiting_lora_adapters=\"c\"} 1.7e9\n\
    sglang:num_queue_reqs{dp_rank=\"1\",tp_rank=\"0\",model_name=\"m\"} 11\n\
    sglang:num_running_reqs{dp_rank=\"1\",tp_rank=\"0\",model_name=\"m\"} 2\n\
    sglang:token_usage{dp_rank=\"1\",tp_rank=\"0\",model_name=\"m\"} 0.5\n";

const WORDS: [&str; 20] = [
    "vllm:num_requests_waiting",
    "vllm:kv_cache_usage_perc{",
    "sglang:token_usage{",
    "engine=\"1\",",
    "dp_rank=\"",
    "model_name=\"",
    "# TYPE ",
    "# HELP x ",
    "# EOF\n",
    "\n",
    "\\\"",
    "\\n",
    "} ",
    "NaN\n",
    "+Inf\n",
    " 1700000000000\n",
    "max_lora=\"",
    "block_size=\"",
    ",",
    "=\"",
];

#[test]
fn a_metrics_page_gives_finite_figures_and_is_not_kept() {
    let lines: Vec<u8> = CAPTURED
        .split_inclusive(|byte| *byte == b'\n')
        .filter(|line| line.starts_with(b"vllm:"))
        .flatten()
        .copied()
        .collect();
    let seeds = (0..ENGINES.len() as u8)
        .flat_map(|engine| {
            [
                [&[engine, 90], ROWS.as_bytes()].concat(),
                [&[engine, 200], &lines[..lines.len().min(4_000)]].concat(),
            ]
        })
        .collect();
    let target = Target { name: "pages", seeds, words: &WORDS, memory_factor: 6, memory_base: 64 << 10 };
    let table = EngineTable::builtin();
    let wanted = ENGINES.map(|name| WantedSeries::new(&table.engines[name], Figures::ALL));
    run(&target, |input| check(&wanted, input));
}

fn check(wanted: &[WantedSeries], input: &[u8]) -> Result<u64, Broken> {
    let [engine, cut, page @ ..] = input else { return Ok(0) };
    let wanted = &wanted[*engine as usize % wanted.len()];
    let mut reader = PageReader::new();
    for piece in page.chunks((*cut).max(1) as usize) {
        reader.feed(wanted, piece);
    }
    let read = reader.finish(wanted, false);
    if let Some(usage) = read.reading.kv_usage
        && !usage.is_finite()
    {
        return Err(format!("KV usage of {usage}"));
    }
    // The same page in one piece says the same.
    let mut whole = PageReader::new();
    whole.feed(wanted, page);
    let at_once = whole.finish(wanted, false);
    if format!("{read:?}") != format!("{at_once:?}") {
        return Err(format!("in pieces it reads {read:?}, at once {at_once:?}"));
    }
    Ok(path((engine, format!("{:?}", read.found), size_class(read.malformed as usize), read.rows)))
}

const ANSWERS: [&str; 4] = [
    "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nt: v\r\n\r\n",
    "HTTP/1.0 503 Busy\r\nretry-after: 1\r\n\r\nuntil the end",
    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n",
];

const ANSWER_WORDS: [&str; 12] = [
    "HTTP/1.1 200 OK\r\n",
    "content-length: ",
    "Transfer-Encoding: chunked\r\n",
    "\r\n\r\n",
    "\r\n",
    "\n",
    "ffffffffffffffff\r\n",
    "-5\r\n",
    "content-encoding: gzip\r\n",
    ": ",
    "0\r\n\r\n",
    "connection: close\r\n",
];

#[test]
fn an_http_answer_gives_no_more_body_than_came() {
    let seeds = ANSWERS.iter().map(|answer| [&[3], answer.as_bytes()].concat()).collect();
    let target =
        Target { name: "http_answers", seeds, words: &ANSWER_WORDS, memory_factor: 4, memory_base: 64 << 10 };
    run(&target, |input| {
        let (&cut, answer) = input.split_first().unwrap_or((&1, &[]));
        let (mut reader, mut body, mut heads) = (ResponseReader::default(), 0, 0);
        'pieces: for mut piece in answer.chunks(cut.max(1) as usize) {
            // Each event but the last of a piece takes bytes or changes the state: more events than bytes are a loop.
            for _ in 0..2 * piece.len() + 8 {
                match reader.next(&mut piece) {
                    Ok(Event::NeedMore) => continue 'pieces,
                    Ok(Event::Head) => heads += 1,
                    Ok(Event::Body(bytes)) => body += bytes.len(),
                    Ok(Event::End) => return done(body, answer.len(), heads),
                    Err(error) => return Ok(path(error.to_string())),
                }
            }
            return Err("the reader does not come to an end of the piece".to_owned());
        }
        done(body, answer.len(), heads)
    });
}

fn done(body: usize, came: usize, heads: usize) -> Result<u64, Broken> {
    if body > came {
        Err(format!("{body} bytes of body from {came}"))
    } else {
        Ok(path((size_class(body), heads)))
    }
}
