//! Exact tokens made in the process, compared with what engines say: they decide as long as they are right.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use parking_lot::Mutex;
use pointsman::extproc::wire::{HttpBody, Request};
use serde_json::{Value, json};

use crate::support::kv_publisher::{KvPublisher, free_ports, stored};
use crate::support::{
    Client, EndpointsFile, Pointsman, Proxy, body, destination, headers, holds, response_headers,
};

const BLOCK: usize = 16;
const TEMPLATE: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
    {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// The letter that stands for a byte in the vocabulary of a byte-level tokenizer.
fn letter(byte: u8) -> char {
    match byte {
        b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => char::from(byte),
        0..=b' ' => char::from_u32(0x100 + u32::from(byte)).unwrap(),
        0x7f..=0xa0 => char::from_u32(0x121 + u32::from(byte) - 0x7f).unwrap(),
        0xad => '\u{143}',
    }
}

/// Files of a model of which every byte is a token, and two marks are tokens of their own.
fn write_model(folder: &Path) {
    let vocabulary: serde_json::Map<String, Value> =
        (0..=255u8).map(|byte| (letter(byte).to_string(), byte.into())).collect();
    let mark = |id: u32, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true})
    };
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [mark(256, "<|im_start|>"), mark(257, "<|im_end|>")],
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocabulary, "merges": []},
    });
    let config = json!({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>",
        "chat_template": TEMPLATE});
    std::fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    std::fs::write(folder.join("tokenizer_config.json"), config.to_string()).unwrap();
}

/// The same tokens, made by hand.
fn ids(text: &str) -> Vec<u32> {
    let marked = text.replace("<|im_start|>", "\u{1}").replace("<|im_end|>", "\u{2}");
    let id = |byte: u8| match byte {
        1 => 256,
        2 => 257,
        byte => u32::from(byte),
    };
    marked.bytes().map(id).collect()
}

/// A model server: it renders, caches blocks and tells of them.
struct Engine {
    publisher: KvPublisher,
    /// Hashes of blocks by all tokens up to their end.
    cache: Mutex<HashMap<Vec<u32>, u64>>,
    /// The template of the model `m` says something more.
    changed: AtomicBool,
    /// The template of the model `m` says something else that is as long.
    swapped: AtomicBool,
}

impl Engine {
    async fn start(address: SocketAddr) -> Self {
        Self {
            publisher: KvPublisher::start(address).await,
            cache: Mutex::default(),
            changed: AtomicBool::new(false),
            swapped: AtomicBool::new(false),
        }
    }

    fn render(&self, model: &str, messages: &[Value]) -> String {
        let mut text = String::new();
        if self.changed.load(Relaxed) && model == "m" {
            text.push_str("<|im_start|>system\nBe kind.<|im_end|>\n");
        }
        for message in messages {
            let (role, content) = (message["role"].as_str().unwrap(), message["content"].as_str().unwrap());
            let role = if self.swapped.load(Relaxed) && role == "user" { "USER" } else { role };
            write!(text, "<|im_start|>{role}\n{content}<|im_end|>\n").unwrap();
        }
        text + "<|im_start|>assistant\n"
    }

    /// Serves a chat: the answer's usage.
    fn serve(&self, model: &str, messages: &[Value]) -> Value {
        let tokens = ids(&self.render(model, messages));
        let mut cache = self.cache.lock();
        let usable = (tokens.len() - 1) / BLOCK;
        let hit = (1..=usable).take_while(|end| cache.contains_key(&tokens[..end * BLOCK])).count();
        let known =
            (1..=tokens.len() / BLOCK).take_while(|end| cache.contains_key(&tokens[..end * BLOCK])).count();
        let parent = (known > 0).then(|| cache[&tokens[..known * BLOCK]]);
        let mut hashes = Vec::new();
        for end in known + 1..=tokens.len() / BLOCK {
            let hash = 1 + cache.len() as u64;
            cache.insert(tokens[..end * BLOCK].to_vec(), hash);
            hashes.push(hash);
        }
        if !hashes.is_empty() {
            let new = &tokens[known * BLOCK..tokens.len() / BLOCK * BLOCK];
            self.publisher.say(&[stored(&hashes, parent, new, BLOCK as u8)]);
        }
        json!({"prompt_tokens": tokens.len(), "completion_tokens": 1, "total_tokens": tokens.len() + 1,
            "prompt_tokens_details": {"cached_tokens": hit * BLOCK}})
    }
}

struct Bench {
    engines: [Engine; 2],
    targets: [String; 2],
    pointsman: Pointsman,
    proxy: Proxy,
    admin: Client,
    _endpoints: EndpointsFile,
    _model: tempfile::TempDir,
}

impl Bench {
    async fn start(addresses: [&str; 2]) -> Self {
        let model = tempfile::tempdir().unwrap();
        write_model(model.path());
        let addresses: [IpAddr; 2] = addresses.map(|address| address.parse().unwrap());
        let port = free_ports(addresses).await;
        let engines = [
            Engine::start((addresses[0], port).into()).await,
            Engine::start((addresses[1], port).into()).await,
        ];
        let targets = addresses.map(|address| SocketAddr::new(address, 8000));
        let endpoints = EndpointsFile::with([("one", targets[0]), ("two", targets[1])]);
        let text = configuration(&endpoints.path(), model.path(), port);
        let pointsman = Pointsman::start(&text, &["--secure-serving=false", "-v", "4"]).await;
        let proxy = Proxy::connect(pointsman.grpc).await;
        let admin = Client::http1(pointsman.metrics);
        let targets = targets.map(|address| address.to_string());
        let bench = Self { engines, targets, pointsman, proxy, admin, _endpoints: endpoints, _model: model };
        holds("both engines are heard", async || {
            bench.pointsman.metric("llm_d_epp_kv_cache_events_active_subscribers", &[]).await == Some(2.0)
        })
        .await;
        let fallbacks =
            bench.pointsman.metric("pointsman_prefix_fallbacks_total", &[("reason", "off")]).await;
        assert_eq!(fallbacks, Some(0.0), "what an alert counts is there from the start");
        holds("tokens are made", async || {
            bench.chat("warm", &[json!({"role": "user", "content": "x"})]).await;
            bench.pointsman.metric("pointsman_preparations_total", &[("outcome", "done")]).await > Some(0.0)
        })
        .await;
        bench
    }

    /// Sends a chat through the picker to the engine that it picks. Which engine that was.
    async fn chat(&self, model: &str, messages: &[Value]) -> usize {
        let mut exchange = self.proxy.open().await;
        exchange.say(headers("/v1/chat/completions", [], false)).await;
        exchange.say(body(json!({"model": model, "messages": messages}).to_string(), true)).await;
        let picked = destination(&exchange.answer().await.unwrap().unwrap()).unwrap();
        let engine = self.targets.iter().position(|target| *target == picked).unwrap();
        let usage = self.engines[engine].serve(model, messages);
        let answer = json!({"choices": [], "usage": usage}).to_string();
        exchange.say(response_headers("200")).await;
        exchange.say(Request::ResponseBody(HttpBody { body: answer.into(), end_of_stream: true })).await;
        exchange.finish().await;
        engine
    }

    /// Sends a chat of one message that nobody sent before.
    async fn new_chat(&self, model: &str) -> usize {
        let content = format!("{:x} {}", fastrand::u128(..), "and so on ".repeat(8));
        self.chat(model, &[json!({"role": "user", "content": content})]).await
    }

    /// What `/debug/prefix` shows of the plugin.
    async fn page(&self) -> Value {
        self.admin.get("/debug/prefix").await.json()["plugins"]["precise-prefix-cache-producer"].clone()
    }

    /// Its row of a model.
    async fn row(&self, model: &str) -> Value {
        let models = self.page().await["models"].as_array().unwrap().clone();
        models.into_iter().find(|row| row["model"] == model).unwrap_or_default()
    }

    async fn state(&self, model: &str) -> String {
        self.row(model).await["state"].as_str().unwrap_or("none").to_owned()
    }

    async fn checks(&self, check: &str, result: &str) -> f64 {
        let labels = [("model_name", "m"), ("check", check), ("result", result)];
        self.pointsman.metric("pointsman_prefix_proof_checks_total", &labels).await.unwrap_or_default()
    }

    async fn cached(&self, source: &str) -> f64 {
        let labels = [("model_name", "m"), ("source", source)];
        self.pointsman.metric("pointsman_prefix_cached_tokens_total", &labels).await.unwrap_or_default()
    }

    async fn fallbacks(&self) -> f64 {
        let labels = [("reason", "off")];
        self.pointsman.metric("pointsman_prefix_fallbacks_total", &labels).await.unwrap_or_default()
    }
}

fn configuration(endpoints: &Path, model: &Path, port: u16) -> String {
    let (endpoints, model) = (endpoints.display(), model.display());
    format!(
        "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: file-discovery
  parameters: {{path: {endpoints}, watchFile: true}}
- type: token-producer
  parameters: {{modelName: m, local: {{folder: {model}, aliases: [other, warm]}}}}
- type: precise-prefix-cache-producer
  parameters:
    kvEventsConfig: {{podDiscoveryConfig: {{socketPort: {port}}}}}
    proof: {{retryAfter: 500ms}}
- type: prefix-cache-scorer
  parameters: {{prefixMatchInfoProducerName: precise-prefix-cache-producer}}
- type: max-score-picker
dataLayer:
  discovery: {{pluginRef: file-discovery}}
schedulingProfiles:
- name: default
  plugins: [{{pluginRef: prefix-cache-scorer}}, {{pluginRef: max-score-picker}}]
"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_made_in_the_process_predict_what_engines_have_cached() {
    let bench = Bench::start(["127.0.43.1", "127.0.43.2"]).await;
    let mut chats: Vec<Vec<Value>> = (0..6)
        .map(|number| {
            let content = format!("Chat {number}: {}", "tell me of caches. ".repeat(6));
            vec![
                json!({"role": "system", "content": "You are a cache."}),
                json!({"role": "user", "content": content}),
            ]
        })
        .collect();
    let mut homes = vec![None; chats.len()];
    for turn in 0..4 {
        for (chat, home) in chats.iter_mut().zip(&mut homes) {
            let engine = bench.chat("m", chat).await;
            // From the second turn on a chat stays where its beginning is.
            assert_eq!(*home.get_or_insert(engine), engine);
            chat.push(json!({"role": "assistant", "content": format!("Answer {turn} at some length.")}));
            chat.push(json!({"role": "user", "content": format!("Question {turn}, é, 日本?")}));
            // All chats begin alike. The next one comes when the engines have told of this one.
            let told: usize = bench.engines.iter().map(|engine| engine.cache.lock().len()).sum();
            holds("all events are taken in", async || bench.page().await["index"]["entries"] == told).await;
        }
    }
    holds("all answers were compared", async || bench.checks("hit", "matched").await == 24.0).await;
    assert_eq!(bench.checks("count", "matched").await, 24.0);
    assert_eq!(bench.checks("events", "matched").await, 24.0);
    let (predicted, observed) = (bench.cached("predicted").await, bench.cached("observed").await);
    assert!(predicted >= 6.0 * 3.0 * 128.0, "{predicted}");
    assert_eq!(predicted, observed);
    let row = bench.row("m").await;
    assert_eq!((&row["state"], &row["decides"]), (&json!("exact"), &json!("exact")), "{row}");
    let age = bench.pointsman.metric("pointsman_kv_event_age_seconds", &[]).await;
    assert!(age.is_some_and(|age| age < 30.0), "{age:?}");
    let blocks = bench.pointsman.metric("pointsman_prefix_index_blocks", &[("tier", "gpu")]).await;
    assert!(blocks > Some(100.0), "{blocks:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_changed_on_one_server_is_noticed_within_20_requests_and_so_is_its_return() {
    let bench = Bench::start(["127.0.44.1", "127.0.44.2"]).await;
    for _ in 0..20 {
        bench.new_chat("m").await;
        bench.new_chat("other").await;
    }
    assert_eq!((bench.state("m").await.as_str(), bench.state("other").await.as_str()), ("exact", "exact"));
    bench.engines[1].changed.store(true, Relaxed);
    let mut requests = 0;
    while bench.state("m").await != "off" {
        bench.new_chat("m").await;
        requests += 1;
        assert!(requests <= 20, "{}", bench.row("m").await);
    }
    let row = bench.row("m").await;
    assert_eq!(row["decides"], "approximate");
    assert_eq!(row["mismatches"][0]["server"], json!(bench.targets[1]));
    // The approximate index decides for this model, and has learned from what was sent before.
    let before = bench.fallbacks().await;
    let again = [json!({"role": "user", "content": "the same ".repeat(40)})];
    let home = bench.chat("m", &again).await;
    for _ in 0..6 {
        assert_eq!(bench.chat("m", &again).await, home);
    }
    assert_eq!(bench.fallbacks().await - before, 7.0);
    bench.new_chat("other").await;
    assert_eq!((bench.fallbacks().await - before, bench.state("other").await.as_str()), (7.0, "exact"));
    let off = [("model_name", "m"), ("state", "off")];
    assert_eq!(bench.pointsman.metric("pointsman_prefix_proof_state", &off).await, Some(1.0));
    // Set right, it recovers by itself.
    bench.engines[1].changed.store(false, Relaxed);
    holds("exact tokens decide again", async || {
        bench.new_chat("m").await;
        bench.state("m").await != "off"
    })
    .await;
    assert_eq!(bench.row("m").await["decides"], "exact");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_differ_while_their_number_does_not_show_in_the_events() {
    let bench = Bench::start(["127.0.45.1", "127.0.45.2"]).await;
    for engine in &bench.engines {
        engine.swapped.store(true, Relaxed);
    }
    for _ in 0..10 {
        bench.new_chat("m").await;
    }
    assert_eq!(bench.checks("count", "mismatched").await, 0.0);
    holds("the events show it", async || bench.state("m").await == "off").await;
    assert!(bench.checks("events", "mismatched").await >= 4.0);
}
