//! The tokens of a request, made in this process from the files of the model.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use pointsman_tokens::{Api, Model, ModelLimits, ServerProfile, Stop, Unsupported};
use tokio::task::AbortHandle;

use super::hub::{Hub, HubSettings};
use crate::request::{Tokenized, TokenizedPrompt};
use crate::scheduling::{PrepareCall, PrepareError, PrepareLimits, Prepared, Preparer, Preparing};

/// Longest time for one request.
const TIMEOUT: Duration = Duration::from_secs(1);
/// The smallest request there is.
const SMALLEST: &[u8] = br#"{"prompt":"a","add_special_tokens":false}"#;

/// Where the files of a model are.
#[derive(Clone, Debug)]
pub enum Source {
    /// In a folder.
    Folder(PathBuf),
    /// On a hub.
    Hub(HubSettings),
}

/// Which model is served, and how.
#[derive(Clone, Debug)]
pub struct LocalSettings {
    /// The files of the model.
    pub source: Source,
    /// Names under which requests ask for it.
    pub names: Vec<String>,
    /// What its servers were started with.
    pub profile: ServerProfile,
    /// How much it may cost.
    pub limits: ModelLimits,
    /// Time that requests wait in sum for tokens that do not come.
    pub patience: Duration,
}

/// Pause before a hub is asked again. It doubles each time.
const PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_mins(5);

/// Makes the tokens of requests for one model.
#[derive(Debug)]
pub struct LocalBackend {
    names: Vec<String>,
    patience: Duration,
    concurrent: usize,
    model: Arc<Slot>,
}

/// The model, once it was loaded; nothing if it could not be.
#[derive(Default)]
struct Slot(OnceLock<Option<Arc<Model>>>);

impl std::fmt::Debug for Slot {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = match self.0.get() {
            None => "loading",
            Some(None) => "not loaded",
            Some(Some(_)) => "loaded",
        };
        formatter.write_str(state)
    }
}

impl LocalBackend {
    /// A backend whose model is loaded on a thread of its own. Until then, and if it cannot be loaded, requests have
    /// no exact tokens; the log says why.
    ///
    /// # Errors
    /// There is no thread.
    pub fn new(settings: LocalSettings) -> Result<Self, std::io::Error> {
        let LocalSettings { source, names, profile, limits, patience } = settings;
        let model = Arc::new(Slot::default());
        let (slot, told) = (Arc::downgrade(&model), names.join(", "));
        std::thread::Builder::new().name("tokens-load".to_owned()).spawn(move || {
            let folder = match source {
                Source::Folder(folder) => Some(folder),
                Source::Hub(hub) => from_hub(hub, &told, || slot.strong_count() > 0),
            };
            let loaded = folder.and_then(|folder| load(&told, &folder, profile, limits));
            if let Some(slot) = slot.upgrade() {
                let _ = slot.0.set(loaded);
            }
        })?;
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Ok(Self { names, patience, concurrent: cores.saturating_sub(1).max(1), model })
    }
}

/// The folder with the files of a model on a hub, which is asked until it has answered; nothing once nobody `waits`.
fn from_hub(settings: HubSettings, model: &str, waits: impl Fn() -> bool) -> Option<PathBuf> {
    let named = settings.repository.clone();
    let fail = |reason: &str| {
        tracing::warn!(
            model,
            repository = named,
            reason,
            "the files of the model are not fetched, its tokens are estimated"
        );
    };
    let hub = Hub::new(settings).inspect_err(|reason| fail(reason)).ok()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.inspect_err(|reason| fail(&reason.to_string())).ok()?;
    let mut pause = PAUSE;
    while waits() {
        match runtime.block_on(hub.folder()) {
            Ok(folder) => return Some(folder),
            Err(reason) => fail(&reason),
        }
        runtime.block_on(async {
            tokio::time::sleep(pause).await;
        });
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    None
}

fn load(
    model: &str,
    folder: &std::path::Path,
    profile: ServerProfile,
    limits: ModelLimits,
) -> Option<Arc<Model>> {
    // A tokenizer that makes the loader panic is one that cannot be loaded.
    match catch_unwind(AssertUnwindSafe(|| Model::load(folder, profile, limits))) {
        Ok(Ok(loaded)) => {
            say_loaded(model, &loaded);
            return Some(Arc::new(loaded));
        }
        Ok(Err(error)) => say_failed(model, folder, &error.to_string()),
        Err(_) => say_failed(model, folder, "the tokenizer broke while it was loaded"),
    }
    None
}

fn say_loaded(model: &str, loaded: &Model) {
    match loaded.without_chat() {
        None => tracing::info!(model, "exact tokens are made in this process"),
        Some(reason) => {
            tracing::warn!(model, reason, "exact tokens are made in this process, except for chats");
        }
    }
}

fn say_failed(model: &str, folder: &std::path::Path, reason: &str) {
    tracing::warn!(model, folder = %folder.display(), reason, "the model cannot be matched and has estimated tokens");
}

/// Ends work when nobody waits for it any more.
struct Ends {
    flag: Arc<AtomicBool>,
    work: AbortHandle,
}

impl Drop for Ends {
    fn drop(&mut self) {
        self.flag.store(true, Ordering::Relaxed);
        // Work that has not begun does not begin.
        self.work.abort();
    }
}

/// Makes the tokens of a body on a thread for such work.
fn work(model: Arc<Model>, path: String, body: bytes::Bytes) -> Preparing {
    Box::pin(async move {
        let flag = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&flag);
        let work = tokio::task::spawn_blocking(move || model.prepare(&path, &body, Stop::at(&stop)));
        let _ends = Ends { flag, work: work.abort_handle() };
        match work.await {
            Ok(Ok(prompts)) => {
                let prompt = |ids| TokenizedPrompt { ids, media: Vec::new() };
                Ok(Prepared {
                    tokens: Some(Tokenized { prompts: prompts.ids.into_iter().map(prompt).collect() }),
                    ..Prepared::default()
                })
            }
            Ok(Err(reason @ Unsupported::Encode(_))) => Err(PrepareError::Failed(reason.to_string())),
            Ok(Err(reason)) => Err(PrepareError::Refused(reason.to_string())),
            Err(_) => Err(PrepareError::Refused("the tokenizer broke on this request".to_owned())),
        }
    })
}

impl Preparer for LocalBackend {
    fn limits(&self) -> PrepareLimits {
        PrepareLimits { timeout: TIMEOUT, patience: self.patience, concurrent: self.concurrent }
    }

    fn prepare(&self, call: &PrepareCall<'_>) -> Option<Preparing> {
        if !self.names.iter().any(|name| name == call.target_model) {
            return None;
        }
        let model = self.model.0.get()?.as_ref()?;
        Api::of(call.path)?;
        Some(work(Arc::clone(model), call.path.to_owned(), call.body.clone()))
    }

    fn probe(&self) -> Preparing {
        match self.model.0.get() {
            Some(Some(model)) => {
                work(Arc::clone(model), "/v1/completions".to_owned(), bytes::Bytes::from_static(SMALLEST))
            }
            _ => Box::pin(std::future::ready(Err(PrepareError::Failed("no model is loaded".to_owned())))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::request::{Headers, Inference};

    fn backend(folder: &Path) -> LocalBackend {
        let names = vec!["m".to_owned(), "adapter".to_owned()];
        let (profile, limits) = (ServerProfile::default(), ModelLimits::default());
        let patience = Duration::from_millis(50);
        let source = Source::Folder(folder.to_owned());
        let settings = LocalSettings { source, names, profile, limits, patience };
        let backend = LocalBackend::new(settings).unwrap();
        backend.model.0.wait();
        backend
    }

    fn data() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/tokens/tests/data")
    }

    fn ask(backend: &LocalBackend, model: &str, path: &str, body: &'static str) -> Option<Preparing> {
        let body = bytes::Bytes::from_static(body.as_bytes());
        let call = PrepareCall {
            id: "r",
            target_model: model,
            path,
            headers: &Headers::new(),
            body: &body,
            inference: &Inference::opaque(),
            media: &crate::request::MediaEstimate::DEFAULT,
            dry_run: false,
        };
        backend.prepare(&call)
    }

    #[tokio::test]
    async fn requests_for_the_model_and_its_aliases_get_its_tokens() {
        let backend = backend(&data());
        let prompt = r#"{"prompt":[[1,2],[3]]}"#;
        for model in ["m", "adapter"] {
            let prepared = ask(&backend, model, "/v1/completions", prompt).unwrap().await.unwrap();
            let ids: Vec<Vec<u32>> =
                prepared.tokens.unwrap().prompts.into_iter().map(|prompt| prompt.ids).collect();
            assert_eq!(ids, [vec![1, 2], vec![3]]);
        }
        assert!(ask(&backend, "other", "/v1/completions", prompt).is_none());
        assert!(ask(&backend, "m", "/v1/embeddings", prompt).is_none());
        assert!(backend.probe().await.unwrap().tokens.is_some());
    }

    #[tokio::test]
    async fn what_cannot_be_matched_is_the_fault_of_the_request_alone() {
        let backend = backend(&data());
        for body in ["{", r#"{"prompt":[99999999]}"#, r#"{"prompt":"\ud800"}"#] {
            let error = ask(&backend, "m", "/v1/completions", body).unwrap().await.unwrap_err();
            assert!(matches!(error, PrepareError::Refused(_)), "{body}: {error}");
        }
        // The model of the test data has no chat template.
        let chat = r#"{"messages":[{"role":"user","content":"hi"}]}"#;
        let error = ask(&backend, "m", "/v1/chat/completions", chat).unwrap().await.unwrap_err();
        assert_eq!(error, PrepareError::Refused("the model has no chat template".to_owned()));
    }

    #[tokio::test]
    async fn a_model_that_cannot_be_loaded_has_no_exact_tokens() {
        let folder = tempfile::tempdir().unwrap();
        let backend = backend(folder.path());
        assert!(ask(&backend, "m", "/v1/completions", r#"{"prompt":"a"}"#).is_none());
        assert!(matches!(backend.probe().await, Err(PrepareError::Failed(_))));
    }

    #[tokio::test]
    async fn work_whose_request_is_gone_is_told_to_end() {
        let task = tokio::task::spawn_blocking(|| ());
        let flag = Arc::new(AtomicBool::new(false));
        drop(Ends { flag: Arc::clone(&flag), work: task.abort_handle() });
        assert!(flag.load(Ordering::Relaxed));
    }
}
