//! The page against facts about vLLM's, and against the filter rules of Python's client library.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::page::{PageValues, filtered, whole};
use super::template::{PageShape, Template};
use super::{HttpStats, Served};
use crate::config::SimConfig;
use crate::engine::{Engine, Fetch, Prompt, Submission};

fn shape() -> PageShape {
    PageShape {
        model_name: "m".to_owned(),
        engines: 1,
        multiprocess: false,
        max_loras: None,
        block_size: 16,
        blocks: 1024,
        started_unix: 1_795_384_986.567_428_8,
    }
}

fn values(shape: &PageShape) -> PageValues {
    let config = SimConfig { adapters: vec!["a".to_owned()], ..SimConfig::instant() };
    let mut limits = config.engine_limits();
    limits.max_adapters = shape.max_loras;
    let engines = (0..shape.engines).map(|_| {
        let mut engine = Engine::new(limits.clone());
        for _ in 0..2 {
            let prompt = Prompt::Tokens((0..100).collect());
            let submission = Submission {
                prompt,
                adapter: None,
                max_tokens: 10,
                stops_by_itself: false,
                answer_seed: 0,
                fetch: Fetch::Nothing,
            };
            engine.submit(submission, Duration::ZERO).unwrap();
        }
        engine.advance(Duration::ZERO);
        engine.values()
    });
    let mut http = HttpStats::default();
    for handler in
        ["/v1/models", "/v1/chat/completions", "/v1/completions", "/tokenize", "/v1/embeddings", "none"]
    {
        http.record(&Served {
            handler,
            method: "POST",
            status: 200,
            request_bytes: 10,
            response_bytes: 20,
            took: Duration::from_millis(30),
        });
    }
    PageValues { engines: engines.collect(), http: Arc::new(http) }
}

fn page(shape: PageShape) -> String {
    let values = values(&shape);
    whole(&Template::new(shape), &values)
}

fn filter(shape: PageShape, names: &[&str]) -> String {
    let values = values(&shape);
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    filtered(&Template::new(shape), &values, &names)
}

/// Value by name with labels; panics at whatever a strict reader would refuse.
fn samples(page: &str) -> BTreeMap<String, f64> {
    let mut samples = BTreeMap::new();
    let mut typed = HashSet::new();
    assert!(page.is_empty() || page.ends_with('\n'));
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            assert!(typed.insert(rest.split(' ').next().unwrap().to_owned()), "{line}");
        } else if !line.starts_with("# HELP ") {
            let (series, value) = line.rsplit_once(' ').unwrap();
            assert!(samples.insert(series.to_owned(), value.parse().unwrap()).is_none(), "{line}");
        }
    }
    samples
}

#[test]
fn the_page_is_as_large_as_the_real_one() {
    let size = page(shape()).len();
    assert!((50_000..62_000).contains(&size), "{size}");
    let size = page(PageShape { multiprocess: true, ..shape() }).len();
    assert!((33_000..45_000).contains(&size), "{size}");
}

#[test]
fn the_page_has_as_many_families_of_each_kind_as_the_real_one() {
    let count = |page: &str, kind: &str| {
        page.lines().filter(|line| line.starts_with("# TYPE ") && line.ends_with(kind)).count()
    };
    let one = page(shape());
    let counts = [" counter", " gauge", " histogram", " summary"].map(|kind| count(&one, kind));
    assert_eq!(counts, [22, 50, 18, 2]);
    let two = page(PageShape { multiprocess: true, ..shape() });
    let counts = [" counter", " gauge", " histogram", " summary"].map(|kind| count(&two, kind));
    assert_eq!(counts, [18, 6, 18, 2]);
}

#[test]
fn the_numbers_are_those_of_the_engine() {
    let samples = samples(&page(shape()));
    let value = |series: &str| samples[series];
    assert!((value(r#"vllm:prompt_tokens_total{engine="0",model_name="m"}"#) - 200.0).abs() < 1e-9);
    assert!((value(r#"vllm:prefix_cache_hits_total{engine="0",model_name="m"}"#) - 96.0).abs() < 1e-9);
    assert!((value(r#"vllm:generation_tokens_total{engine="0",model_name="m"}"#) - 20.0).abs() < 1e-9);
    let finished = r#"vllm:request_success_total{engine="0",finished_reason="length",model_name="m"}"#;
    assert!((value(finished) - 2.0).abs() < 1e-9);
    let bucket = r#"vllm:request_prompt_tokens_bucket{engine="0",le="+Inf",model_name="m"}"#;
    assert!((value(bucket) - 2.0).abs() < 1e-9);
}

#[test]
fn buckets_never_fall_and_the_last_is_the_count() {
    for multiprocess in [false, true] {
        let page = page(PageShape { multiprocess, ..shape() });
        let mut last: Option<(String, f64)> = None;
        for line in page.lines().filter(|line| !line.starts_with('#')) {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let value: f64 = value.parse().unwrap();
            let name = series.split('{').next().unwrap();
            if let Some(stem) = name.strip_suffix("_bucket") {
                let fresh = last.as_ref().is_none_or(|(known, count)| known != stem || value < *count);
                assert!(!fresh || series.contains(r#"le="0."#) || series.contains(r#"le="1.0""#), "{line}");
                last = Some((stem.to_owned(), value));
            } else if let (Some(stem), Some((known, count))) = (name.strip_suffix("_count"), &last)
                && stem == known
            {
                assert!((count - value).abs() < 1e-9, "{line}");
            }
        }
    }
}

#[test]
fn the_cache_info_has_the_labels_of_the_real_one() {
    let page = page(shape());
    let line = page.lines().find(|line| line.starts_with("vllm:cache_config_info{")).unwrap();
    assert_eq!(line.matches("=\"").count(), 37);
    assert!(line.contains(r#",block_size="16","#) && line.contains(r#",num_gpu_blocks="1024","#), "{line}");
    assert!(line.contains(r#"hash_block_size="None""#) && !line.contains("model_name"));
}

#[test]
fn lora_rows_are_there_only_with_adapters() {
    assert!(!page(shape()).contains("lora"));
    let page = page(PageShape { max_loras: Some(4), ..shape() });
    let row =
        r#"vllm:lora_requests_info{max_lora="4",running_lora_adapters="",waiting_lora_adapters=""} 1.795"#;
    assert!(page.contains(row), "{page}");
}

#[test]
fn a_filter_keeps_exact_sample_names_with_their_header() {
    let page = filter(shape(), &["vllm:num_requests_waiting", "vllm:kv_cache_usage_perc", "vllm:nothing"]);
    let expected = "# HELP vllm:num_requests_waiting Number of requests waiting to be processed.\n\
        # TYPE vllm:num_requests_waiting gauge\n\
        vllm:num_requests_waiting{engine=\"0\",model_name=\"m\"} 0.0\n\
        # HELP vllm:kv_cache_usage_perc KV-cache usage. 1 means 100 percent usage.\n\
        # TYPE vllm:kv_cache_usage_perc gauge\n\
        vllm:kv_cache_usage_perc{engine=\"0\",model_name=\"m\"} 0.0\n";
    assert_eq!(page, expected);
}

#[test]
fn a_filter_by_family_name_finds_no_counter_and_no_histogram() {
    assert_eq!(filter(shape(), &["vllm:prompt_tokens", "vllm:request_prompt_tokens"]), "");
}

#[test]
fn a_filter_by_one_suffix_leaves_the_other_samples_out() {
    let page = filter(shape(), &["vllm:request_prompt_tokens_sum"]);
    assert_eq!(page.lines().count(), 3, "{page}");
    let page = filter(shape(), &["vllm:prompt_tokens_created"]);
    let kinds: Vec<&str> = page.lines().filter(|line| line.starts_with("# TYPE")).collect();
    assert_eq!(kinds, ["# TYPE vllm:prompt_tokens_total counter", "# TYPE vllm:prompt_tokens_created gauge"]);
}

#[test]
fn several_processes_answer_a_filter_with_nothing() {
    assert_eq!(filter(PageShape { multiprocess: true, ..shape() }, &["vllm:num_requests_waiting"]), "");
}

#[test]
fn each_engine_has_its_rows() {
    let page = page(PageShape { engines: 2, multiprocess: true, ..shape() });
    let samples = samples(&page);
    for engine in 0..2 {
        assert!(
            samples
                .contains_key(&format!(r#"vllm:num_requests_waiting{{engine="{engine}",model_name="m"}}"#))
        );
    }
    assert_eq!(page.matches("\nvllm:cache_config_info{").count(), 2);
    assert_eq!(page.matches("\nvllm:admission_rejections_total{").count(), 2);
}

#[test]
fn a_strange_model_name_is_escaped() {
    let page = page(PageShape { model_name: "a\"b\\c".to_owned(), ..shape() });
    assert!(page.contains(r#"model_name="a\"b\\c""#));
}
