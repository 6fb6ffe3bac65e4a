//! Which rows of a figure add up, which repeat it, and which do not count, engine by engine.

use super::*;
use crate::datalayer::EngineTable;

fn waiting(engine: &str, page: &str) -> Option<u64> {
    let wanted = WantedSeries::new(&EngineTable::builtin().engines[engine], Figures::ALL);
    let mut reader = PageReader::new();
    reader.feed(&wanted, page.as_bytes());
    reader.finish(&wanted, false).reading.waiting
}

/// A page whose rows of `name` have these labels and values.
fn rows(name: &str, rows: &[(&str, u32)]) -> String {
    rows.iter().map(|(labels, value)| format!("{name}{{{labels}}} {value}\n")).collect::<Vec<_>>().concat()
}

#[test]
fn what_rows_of_one_figure_mean_follows_from_the_definitions_of_their_engine() {
    let (vllm, sglang) = ("vllm:num_requests_waiting", "sglang:num_queue_reqs");
    let (trtllm, triton) = ("trtllm_num_requests_waiting", "nv_inference_pending_request_count");
    for (engine, name, labels, expected) in [
        ("vllm", vllm, &[("engine=\"0\"", 3), ("engine=\"1\"", 4)][..], 7),
        ("vllm", vllm, &[("engine_index=\"0\"", 3), ("engine_index=\"1\"", 4)], 7),
        ("vllm", vllm, &[("engine=\"0\",pid=\"7\"", 3), ("engine=\"0\",pid=\"8\"", 4)], 4),
        ("vllm", vllm, &[("pid=\"7\"", 4), ("pid=\"8\"", 3)], 4),
        ("vllm", vllm, &[("model_name=\"a\"", 3), ("model_name=\"b\"", 4)], 3),
        ("sglang", sglang, &[("dp_rank=\"0\",tp_rank=\"0\"", 3), ("dp_rank=\"1\",tp_rank=\"1\"", 4)], 7),
        ("sglang", sglang, &[("tp_rank=\"0\"", 3), ("tp_rank=\"1\"", 3)], 3),
        ("sglang", sglang, &[("pid=\"7\"", 3), ("pid=\"8\"", 4)], 4),
        ("sglang", sglang, &[("priority=\"\"", 7), ("priority=\"0\"", 3), ("priority=\"5\"", 4)], 7),
        ("sglang", sglang, &[("priority=\"0\"", 3), ("priority=\"5\"", 4)], 7),
        ("sglang", sglang, &[("priority=\"0\"", 3), ("priority=\"5\"", 4), ("priority=\"\"", 9)], 9),
        ("sglang", sglang, &[("priority=\"0\",tp_rank=\"0\"", 3), ("priority=\"0\",tp_rank=\"1\"", 3)], 3),
        (
            "sglang",
            sglang,
            &[("dp_rank=\"0\",priority=\"1\"", 3), ("dp_rank=\"1\",priority=\"1\"", 4), ("dp_rank=\"1\"", 9)],
            12,
        ),
        ("trtllm-serve", trtllm, &[("model_name=\"a\",pid=\"7\"", 3), ("model_name=\"a\",pid=\"8\"", 4)], 4),
        ("triton", triton, &[("model=\"a\",version=\"1\"", 3), ("model=\"b\",version=\"1\"", 4)], 7),
    ] {
        assert_eq!(waiting(engine, &rows(name, labels)), Some(expected), "{engine} {labels:?}");
    }
}

#[test]
fn requests_in_the_queues_of_a_server_of_one_stage_wait() {
    let queue = rows("sglang:num_queue_reqs", &[("dp_rank=\"0\"", 1), ("dp_rank=\"1\"", 2)]);
    for (queues, expected) in [
        (&[("num_prefill_bootstrap_queue_reqs", 10), ("num_prefill_inflight_queue_reqs", 100)][..], 13),
        (&[("num_prefill_prealloc_queue_reqs", 10), ("num_prefill_inflight_queue_reqs", 100)], 13),
        (&[("num_decode_prealloc_queue_reqs", 10), ("num_decode_transfer_queue_reqs", 20)], 33),
        (&[("num_decode_transfer_queue_reqs", 20)], 23),
        (&[], 3),
    ] {
        let page: String = queues
            .iter()
            .map(|(name, value)| rows(&format!("sglang:{name}"), &[("dp_rank=\"0\"", *value)]))
            .collect::<Vec<_>>()
            .concat();
        assert_eq!(waiting("sglang", &format!("{page}{queue}")), Some(expected), "{queues:?}");
    }
    let split = rows("sglang:num_decode_prealloc_queue_reqs", &[("priority=\"\"", 5), ("priority=\"1\"", 5)]);
    assert_eq!(waiting("sglang", &format!("{queue}{split}")), Some(8));
    let alone = rows("sglang:num_decode_transfer_queue_reqs", &[("dp_rank=\"0\"", 5)]);
    assert_eq!(waiting("sglang", &alone), None, "nothing is known of the requests that wait behind");
}

#[test]
fn priorities_that_clients_invent_push_out_no_whole_figure() {
    let labels: Vec<_> = (0..2000).map(|number| format!("dp_rank=\"0\",priority=\"{number}\"")).collect();
    let shares: Vec<_> = labels.iter().map(|labels| (labels.as_str(), 1)).collect();
    let shares = rows("sglang:num_queue_reqs", &shares);
    let wholes = rows("sglang:num_queue_reqs", &[("dp_rank=\"0\"", 7), ("dp_rank=\"1\"", 4)]);
    assert_eq!(waiting("sglang", &format!("{shares}{wholes}")), Some(11));
    assert_eq!(waiting("sglang", &format!("{wholes}{shares}")), Some(11));
}
