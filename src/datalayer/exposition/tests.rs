//! Fixture pages, single rules, and the reader against an obvious one.

use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use crate::datalayer::{EngineTable, MetricSpec};
use crate::pool::Reading;

fn wanted(engine: &str) -> WantedSeries {
    WantedSeries::new(&EngineTable::builtin().engines[engine], Figures::ALL)
}

fn read(wanted: &WantedSeries, page: &[u8]) -> Page {
    let mut reader = PageReader::new();
    reader.feed(wanted, page);
    reader.finish(wanted, false)
}

fn data(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(path)
}

/// `key=value` for everything the page said, in the notation of the fixtures' first lines.
fn describe(page: &Page) -> String {
    let reading = &page.reading;
    let mut words = Vec::new();
    let mut say =
        |key: &str, value: Option<String>| words.extend(value.map(|value| format!("{key}={value}")));
    say("waiting", reading.waiting.map(|v| v.to_string()));
    say("running", reading.running.map(|v| v.to_string()));
    say("kv_usage", reading.kv_usage.map(|v| ((v * 1e9).round() / 1e9).to_string()));
    say("block_size", reading.block_size.map(|v| v.to_string()));
    say("num_blocks", reading.num_blocks.map(|v| v.to_string()));
    let join = |set: &std::collections::BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>().join(",");
    let lora = reading.lora.as_ref();
    say("lora", lora.map(|v| format!("{}/{}/{}", join(&v.active), join(&v.waiting), v.max_active)));
    say("malformed", (page.malformed > 0).then(|| page.malformed.to_string()));
    words.join(" ")
}

#[test]
fn every_fixture_page_says_what_its_first_line_states() {
    let mut seen = 0;
    for entry in std::fs::read_dir(data("metrics")).unwrap() {
        let path = entry.unwrap().path();
        let file = path.file_name().unwrap().to_str().unwrap();
        let Some(engine) = file.strip_suffix(".txt").map(|stem| stem.split('.').next().unwrap()) else {
            continue;
        };
        let bytes = std::fs::read(&path).unwrap();
        let first = std::str::from_utf8(&bytes).unwrap().lines().next().unwrap();
        let expected = first.strip_prefix("# expect:").unwrap().trim();
        let page = read(&wanted(engine), &bytes);
        assert_eq!(describe(&page), expected, "{file}");
        seen += 1;
    }
    assert!(seen >= 15);
}

#[test]
fn a_captured_vllm_page_is_read_whole() {
    let page = read(&wanted("vllm"), &std::fs::read(data("vllm-0.32.0/metrics.txt")).unwrap());
    assert_eq!(describe(&page), "waiting=0 running=0 kv_usage=0 block_size=128 num_blocks=16384");
    assert_eq!((page.missing, page.rows), (Figures::NONE, [1, 1, 1]));
}

#[test]
fn captured_pages_of_several_api_servers_and_engines_are_read_whole() {
    let page = read(&wanted("vllm"), &std::fs::read(data("vllm-0.32.0/metrics_api2.txt")).unwrap());
    assert_eq!((page.missing, page.malformed), (Figures::NONE, 0));
    let page = read(&wanted("vllm"), &std::fs::read(data("vllm-0.32.0/metrics_dp2.txt")).unwrap());
    assert_eq!((page.missing, page.rows), (Figures::NONE, [2, 2, 2]));
}

#[test]
fn a_missing_figure_is_named_but_missing_lora_is_not() {
    let page = read(&wanted("vllm"), b"vllm:num_requests_waiting 1\n");
    let expected: Figures = [Figure::Running, Figure::KvUsage, Figure::CacheInfo].into_iter().collect();
    assert_eq!(page.missing, expected);
}

#[test]
fn a_nan_gauge_counts_as_missing() {
    let page = read(&wanted("vllm"), b"vllm:kv_cache_usage_perc NaN\n");
    assert_eq!(page.reading, Reading::default());
    assert!(page.missing.has(Figure::KvUsage));
}

#[test]
fn figures_that_nobody_needs_are_not_looked_for() {
    let wanted =
        WantedSeries::new(&EngineTable::builtin().engines["vllm"], Figures::NONE.with(Figure::Waiting));
    let page = read(&wanted, b"vllm:num_requests_waiting 1\nvllm:num_requests_running 2\n");
    assert_eq!(describe(&page), "waiting=1");
    assert_eq!(
        (page.missing, wanted.names().collect::<Vec<_>>()),
        (Figures::NONE, vec!["vllm:num_requests_waiting"])
    );
}

#[test]
fn a_name_shared_by_several_figures_is_asked_for_once() {
    let names: Vec<_> = wanted("triton-tensorrt-llm").names().map(str::to_owned).collect();
    assert_eq!(names, ["nv_trt_llm_request_metrics", "nv_trt_llm_kv_cache_block_metrics"]);
    assert!(wanted("vllm").names().any(|name| name == "vllm:gpu_cache_usage_perc"));
}

#[test]
fn labels_of_a_spec_select_the_row_and_escapes_are_resolved() {
    let spec = MetricSpec::named("q").with_label("a", "x\"y\\\n").with_label("absent", "");
    let specs = crate::datalayer::EngineSpecs { waiting: Some(spec), ..Default::default() };
    let page = b"q{a=\"z\"} 1\nq{a=\"x\\\"y\\\\\\n\",absent=\"no\"} 2\nq{a=\"x\\\"y\\\\\\n\"} 3\n";
    assert_eq!(read(&WantedSeries::new(&specs, Figures::ALL), page).reading.waiting, Some(3));
}

#[test]
fn a_truncated_page_keeps_the_families_that_came_whole() {
    let text = b"vllm:num_requests_running{engine=\"0\"} 1\nvllm:num_requests_waiting{engine=\"0\"} 2\nvllm:num_requests_wai";
    let wanted = wanted("vllm");
    let mut reader = PageReader::new();
    reader.feed(&wanted, text);
    // A second engine's row may have been on its way, so the queue is unknown.
    assert_eq!(describe(&reader.finish(&wanted, true)), "running=1");
    reader.feed(&wanted, b"vllm:num_requests_running 1\n# TYPE x gauge\nvllm:num_requests_waiting 12");
    assert_eq!(describe(&reader.finish(&wanted, true)), "running=1");
}

#[test]
fn unchanged_lora_labels_are_handed_out_once() {
    let wanted = wanted("vllm");
    let mut reader = PageReader::new();
    let row = |value: u32| {
        format!(
            "vllm:num_requests_waiting 1\nvllm:lora_requests_info{{running_lora_adapters=\"a\"}} {value}\n"
        )
    };
    let mut read = |text: String| {
        reader.feed(&wanted, text.as_bytes());
        let page = reader.finish(&wanted, false);
        (page.found.has(Figure::Lora), page.reading.lora.is_some())
    };
    assert_eq!(read(row(1)), (true, true));
    assert_eq!(read(row(2)), (true, false));
    assert_eq!(read(row(3).replace("\"a\"", "\"b\"")), (true, true));
}

#[test]
fn a_limit_of_adapters_that_is_no_number_leaves_the_last_one_in_force() {
    let wanted = wanted("vllm");
    let mut reader = PageReader::new();
    for (limit, expected) in [("4", 4), ("", 4), ("x", 4), ("4.0", 4), ("8", 8), ("None", 8)] {
        let names = format!("running_lora_adapters=\"a{limit}\",max_lora=\"{limit}\"");
        reader.feed(&wanted, format!("vllm:lora_requests_info{{{names}}} 1\n").as_bytes());
        let lora = reader.finish(&wanted, false).reading.lora.unwrap();
        assert_eq!(lora.max_active, expected, "{limit:?}");
    }
}

#[test]
fn a_block_size_with_blanks_counts_and_a_name_may_stand_in_quotes() {
    let wanted = wanted("vllm");
    let page = b"vllm:cache_config_info{block_size=\" 128\",num_gpu_blocks=\"7\"} 1\n\
                 {\"vllm:num_requests_waiting\",m=\"a\"} 7\n{ \"vllm:num_requests_running\" } 3\n{\"x";
    let expected = "waiting=7 running=3 block_size=128 num_blocks=7";
    assert_eq!(describe(&read(&wanted, page)), expected);
    let mut reader = PageReader::new();
    for byte in page {
        reader.feed(&wanted, &[*byte]);
    }
    assert_eq!(describe(&reader.finish(&wanted, false)), expected, "byte by byte");
    let unsaid = b"vllm:cache_config_info{block_size=\"None\"} 1\n";
    assert_eq!(read(&wanted, unsaid).reading.block_size, None);
}

#[test]
fn an_endless_line_is_skipped_and_not_kept() {
    let wanted = wanted("vllm");
    let mut reader = PageReader::new();
    reader.feed(&wanted, b"vllm:num_requests_waiting{a=\"");
    for _ in 0..2000 {
        reader.feed(&wanted, &[b'x'; 1000]);
    }
    reader.feed(&wanted, b"\"} 9\nvllm:num_requests_waiting 4\n");
    assert_eq!(describe(&reader.finish(&wanted, false)), "waiting=4");
}

#[test]
fn ten_thousand_replica_rows_are_bounded() {
    let text: String = (0..10_000)
        .map(|n| format!("vllm:num_requests_waiting{{engine=\"{n}\"}} 1\n"))
        .collect::<Vec<_>>()
        .concat();
    assert_eq!(read(&wanted("vllm"), text.as_bytes()).reading.waiting, Some(256));
}

// --- an obvious reader ---

/// Reads the vLLM gauges the slow way: whole text, strings, vectors of all rows.
fn oracle(page: &[u8]) -> (Option<u64>, Option<u64>, Option<f64>) {
    let lines: Vec<&[u8]> = page.split(|b| *b == b'\n').collect();
    let per_engine = |name: &str| -> Option<Vec<f64>> {
        let rows = lines.iter().filter_map(|line| oracle_row(line, name));
        let rows: Vec<_> = rows.filter(|row| row.2.is_finite() && row.3 >= 0.0).collect();
        // The first of the latest rows decides whose figures these are.
        let latest = rows.iter().map(|row| row.3).fold(0.0, f64::max);
        let leader = rows.iter().find(|row| row.3 >= latest)?.1.clone();
        let mut chosen: Vec<(String, f64, f64)> = Vec::new();
        for (engine, _, value, time) in rows.into_iter().filter(|row| row.1 == leader) {
            match chosen.iter_mut().find(|held| held.0 == engine) {
                Some(held) if time > held.2 => *held = (engine, value, time),
                Some(_) => {}
                None => chosen.push((engine, value, time)),
            }
        }
        Some(chosen.into_iter().map(|held| held.1).collect())
    };
    let sum = |values: Vec<f64>| values.iter().map(|v| v.max(0.0)).sum::<f64>() as u64;
    let mean = |v: Vec<f64>| v.iter().map(|v| v.clamp(0.0, 1.0)).sum::<f64>() / v.len() as f64;
    let usage = per_engine("vllm:kv_cache_usage_perc").or_else(|| per_engine("vllm:gpu_cache_usage_perc"));
    (
        per_engine("vllm:num_requests_waiting").map(sum),
        per_engine("vllm:num_requests_running").map(sum),
        usage.map(mean),
    )
}

/// Engine, other labels sorted, value, timestamp.
fn oracle_row(line: &[u8], name: &str) -> Option<(String, Vec<String>, f64, f64)> {
    let line = String::from_utf8(line.to_vec()).ok()?;
    let rest = line.trim().strip_prefix(name)?;
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(inside) => inside.split_once('}')?,
        None => ("", rest.strip_prefix(' ')?),
    };
    let mut engine = String::new();
    let mut others = Vec::new();
    for label in labels.split(',').filter(|label| !label.is_empty()) {
        let (key, value) = label.split_once('=')?;
        let value = value.strip_prefix('"')?.strip_suffix('"')?;
        match key {
            "engine" => engine = format!("={value}"),
            _ => others.push(format!("{key}={value}")),
        }
    }
    others.sort();
    let words: Vec<&str> = rest.split_whitespace().collect();
    let value = words.first()?.parse().ok()?;
    let time = words.get(1).map_or(Some(0.0), |word| word.parse().ok())?;
    (words.len() <= 2).then_some((engine, others, value, time))
}

fn line() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec![
        "vllm:num_requests_waiting",
        "vllm:num_requests_running",
        "vllm:kv_cache_usage_perc",
        "vllm:gpu_cache_usage_perc",
        "vllm:num_requests_waiting_by_reason",
        "vllm:num_requests",
        "python_info",
        "# TYPE vllm:num_requests_waiting",
        "v",
        "",
    ]);
    let labels = prop::sample::select(vec![
        "",
        "{}",
        "{engine=\"0\"}",
        "{engine=\"1\"}",
        "{engine=\"0\",model_name=\"m\"}",
        "{model_name=\"m\",engine=\"1\"}",
        "{model_name=\"n\"}",
        "{model_name=\"n\",engine=\"0\",}",
        "{model_name=n}",
        "{engine=\"0\"",
    ]);
    let value =
        prop::sample::select(vec!["0", "1.0", "0.25", "7", "-2", "NaN", "+Inf", "1e3", "0.5", "x", ""]);
    let time = prop::sample::select(vec!["", "", "", " 1", " 2", " 1700000000000", " -1", " x", " 1 2"]);
    (name, labels, value, time)
        .prop_map(|(name, labels, value, time)| format!("{name}{labels} {value}{time}"))
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), truncated: bool) {
        let wanted = wanted("vllm");
        let mut reader = PageReader::new();
        reader.feed(&wanted, &bytes);
        reader.finish(&wanted, truncated);
        let row = [b"vllm:lora_requests_info{".as_slice(), &bytes].concat();
        reader.feed(&wanted, &row);
        reader.finish(&wanted, truncated);
        let row = [b"vllm:cache_config_info".as_slice(), &bytes].concat();
        reader.feed(&wanted, &row);
        reader.finish(&wanted, truncated);
    }

    #[test]
    fn it_agrees_with_an_obvious_reader(lines in prop::collection::vec(line(), 0..12)) {
        let page = lines.join("\n");
        let reading = read(&wanted("vllm"), page.as_bytes()).reading;
        prop_assert_eq!((reading.waiting, reading.running, reading.kv_usage), oracle(page.as_bytes()), "{}", page);
    }

    #[test]
    fn pieces_of_any_size_read_like_the_whole(lines in prop::collection::vec(line(), 0..12), cuts in prop::collection::vec(0usize..300, 0..6)) {
        let page = lines.join("\n");
        let wanted = wanted("vllm");
        let whole = read(&wanted, page.as_bytes());
        let mut reader = PageReader::new();
        let mut rest = page.as_bytes();
        for cut in cuts {
            let (piece, after) = rest.split_at(cut.min(rest.len()));
            reader.feed(&wanted, piece);
            rest = after;
        }
        reader.feed(&wanted, rest);
        prop_assert_eq!(reader.finish(&wanted, false), whole);
    }
}
