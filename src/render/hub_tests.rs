//! Files from a stand-in for a hub.

use std::collections::HashMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{AUTHORIZATION, LOCATION};
use http::{HeaderValue, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use pointsman_tokens::{ModelLimits, ServerProfile};
use tokio::net::TcpListener;

use super::hub::{Hub, HubSettings};
use super::local::{LocalBackend, LocalSettings, Source};
use crate::scheduling::Preparer as _;

const FIRST: &str = "0123456789abcdef0123456789abcdef01234567";
const SECOND: &str = "89abcdef0123456789abcdef0123456789abcdef";

/// A hub with one model whose branch `main` is one of two commits.
#[derive(Default)]
struct Shared {
    files: Mutex<HashMap<String, Vec<u8>>>,
    commit: Mutex<&'static str>,
    /// Paths that were asked for, and whether a token came with them.
    asked: Mutex<Vec<(String, bool)>>,
}

struct StandIn {
    shared: Arc<Shared>,
    address: String,
    accepting: tokio::task::JoinHandle<()>,
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl StandIn {
    async fn start(files: &[(&str, &[u8])]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared::default());
        *shared.commit.lock() = FIRST;
        shared.files.lock().extend(files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec())));
        let serving = Arc::clone(&shared);
        let accepting = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                let shared = Arc::clone(&serving);
                let service = service_fn(move |request| {
                    let answer = shared.answer(&request);
                    async move { Ok::<_, Infallible>(answer) }
                });
                let connection = hyper::server::conn::http1::Builder::new();
                tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { shared, address, accepting }
    }

    fn settings(&self, revision: &str, cache: &Path) -> HubSettings {
        HubSettings {
            endpoint: self.address.parse().unwrap(),
            repository: "org/model".to_owned(),
            revision: revision.to_owned(),
            cache: cache.to_owned(),
            token: Some(HeaderValue::from_static("Bearer secret")),
            file_bytes: 1 << 20,
        }
    }

    async fn folder(&self, revision: &str, cache: &Path) -> Result<PathBuf, String> {
        Hub::new(self.settings(revision, cache)).unwrap().folder().await
    }

    fn asked(&self) -> usize {
        self.shared.asked.lock().len()
    }
}

impl Shared {
    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path().to_owned();
        self.asked.lock().push((path.clone(), request.headers().contains_key(AUTHORIZATION)));
        let commit = *self.commit.lock();
        let files = self.files.lock();
        let body = |bytes: &[u8]| Response::new(Full::new(Bytes::copy_from_slice(bytes)));
        let status = |status: u16| {
            let mut answer = body(b"");
            *answer.status_mut() = http::StatusCode::from_u16(status).unwrap();
            answer
        };
        if let Some(revision) = path.strip_prefix("/api/models/org/model/revision/") {
            if !["main", commit].contains(&revision) {
                return status(404);
            }
            let siblings: Vec<_> = files.keys().map(|name| serde_json::json!({"rfilename": name})).collect();
            return body(serde_json::json!({"sha": commit, "siblings": siblings}).to_string().as_bytes());
        }
        // Large files are elsewhere.
        if let Some(name) = path.strip_prefix(&format!("/org/model/resolve/{commit}/")) {
            let mut answer = status(302);
            let host = request.headers()["host"].to_str().unwrap().replace("127.0.0.1", "localhost");
            let location = match name {
                "tokenizer.json" => format!("http://{host}/blob/{name}"),
                _ => format!("/blob/{name}"),
            };
            answer.headers_mut().insert(LOCATION, HeaderValue::try_from(location).unwrap());
            return answer;
        }
        path.strip_prefix("/blob/")
            .and_then(|name| files.get(name))
            .map_or_else(|| status(404), |bytes| body(bytes))
    }
}

fn read(folder: &Path, name: &str) -> Option<String> {
    std::fs::read_to_string(folder.join(name)).ok()
}

#[tokio::test]
async fn files_of_a_commit_are_fetched_once_and_kept() {
    let hub = StandIn::start(&[
        ("tokenizer.json", b"{1}"),
        ("config.json", b"{2}"),
        ("additional_chat_templates/tool_use.jinja", b"{3}"),
        ("tekken.json", b"large"),
        ("model.safetensors", b"huge"),
        ("../../escape.json", b"x"),
    ])
    .await;
    let cache = tempfile::tempdir().unwrap();
    let folder = hub.folder("main", cache.path()).await.unwrap();
    assert_eq!(folder, cache.path().join("org--model").join(FIRST));
    assert_eq!(read(&folder, "tokenizer.json").as_deref(), Some("{1}"));
    assert_eq!(read(&folder, "additional_chat_templates/tool_use.jinja").as_deref(), Some("{3}"));
    assert_eq!(read(&folder, "tekken.json").as_deref(), Some(""), "only its presence counts");
    assert_eq!(read(&folder, "model.safetensors"), None);
    let asked = hub.asked();
    assert_eq!(hub.folder(FIRST, cache.path()).await.unwrap(), folder);
    assert_eq!(hub.asked(), asked, "a commit that is there needs no hub");
    // Which commit a branch is may change.
    assert_eq!(hub.folder("main", cache.path()).await.unwrap(), folder);
    assert_eq!(hub.asked(), asked + 1);
    *hub.shared.commit.lock() = SECOND;
    hub.shared.files.lock().insert("tokenizer.json".to_owned(), b"{4}".to_vec());
    let second = hub.folder("main", cache.path()).await.unwrap();
    assert_eq!(read(&second, "tokenizer.json").as_deref(), Some("{4}"));
    assert_eq!(read(&folder, "tokenizer.json").as_deref(), Some("{1}"));
    let elsewhere = hub.shared.asked.lock().iter().filter(|(_, token)| !token).count();
    assert_eq!(elsewhere, 2, "the token goes to the hub alone");
    // Without the hub, the last commit of the branch counts.
    let unreachable =
        HubSettings { endpoint: "http://127.0.0.1:1".parse().unwrap(), ..hub.settings("main", cache.path()) };
    assert_eq!(Hub::new(unreachable.clone()).unwrap().folder().await.unwrap(), second);
    let other = HubSettings { revision: "other".to_owned(), ..unreachable };
    assert!(Hub::new(other).unwrap().folder().await.unwrap_err().contains("/revision/other"));
}

#[tokio::test]
async fn what_is_not_whole_is_not_taken() {
    let cache = tempfile::tempdir().unwrap();
    let large = vec![b'x'; (1 << 20) + 1];
    let hub = StandIn::start(&[("config.json", b"{}"), ("tokenizer.json", &large)]).await;
    let error = hub.folder("main", cache.path()).await.unwrap_err();
    assert!(error.contains("tokenizer.json: has more than 1048576 bytes"), "{error}");
    let error = hub.folder("gone", cache.path()).await.unwrap_err();
    assert!(error.contains("/revision/gone: status 404"), "{error}");
    hub.shared.files.lock().insert("tokenizer.json".to_owned(), b"{}".to_vec());
    assert!(hub.folder("main", cache.path()).await.is_ok());
    let left = std::fs::read_dir(cache.path().join("org--model")).unwrap();
    let mut left: Vec<_> = left.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    left.sort();
    assert_eq!(left, [FIRST, "ref-main"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_of_a_hub_has_tokens_once_it_is_there_and_a_hub_that_hangs_holds_nobody() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/tokens/tests/data");
    let files = ["tokenizer.json", "tokenizer_config.json"]
        .map(|name| (name, std::fs::read(data.join(name)).unwrap()));
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (*name, bytes.as_slice())).collect();
    let hub = StandIn::start(&files).await;
    let cache = tempfile::tempdir().unwrap();
    let backend = |hub| {
        let settings = LocalSettings {
            source: Source::Hub(hub),
            names: vec!["m".to_owned()],
            profile: ServerProfile::default(),
            limits: ModelLimits::default(),
            patience: Duration::from_millis(50),
        };
        LocalBackend::new(settings).unwrap()
    };
    let ready = backend(hub.settings("main", cache.path()));
    let began = Instant::now();
    while ready.probe().await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", silent.local_addr().unwrap());
    let began = Instant::now();
    let hung =
        backend(HubSettings { endpoint: address.parse().unwrap(), ..hub.settings("other", cache.path()) });
    assert!(began.elapsed() < Duration::from_secs(1));
    assert!(hung.probe().await.is_err());
}
