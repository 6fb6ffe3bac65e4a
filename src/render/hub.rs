//! Files of a model from a hub: those that tokens are made from, kept in a folder.
//!
//! The hub is asked which commit a revision is and which files it has; then the files of that commit are fetched. What
//! is there for a commit is never fetched again. Where the hub cannot be asked, the commit that a revision was last
//! counts. All of this happens on the thread that loads the model; nothing waits for it.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, AUTHORIZATION, LOCATION, USER_AGENT};
use http::{HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

/// Files that tokens are made from.
const FILES: [&str; 7] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "config.json",
    "chat_template.jinja",
    "chat_template.json",
    "additional_chat_templates/tool_use.jinja",
];
/// Files of which only the presence counts. They are kept empty.
const SIGNS: [&str; 4] = ["preprocessor_config.json", "processor_config.json", "params.json", "tekken.json"];
/// Largest file apart from the tokenizer, and largest list of files, in bytes.
const SMALL_FILE: u64 = 4 << 20;
/// Longest wait for a connection, for the beginning of an answer, and for more of it.
const CONNECT: Duration = Duration::from_secs(5);
const SILENCE: Duration = Duration::from_secs(30);
/// Longest time for one file.
const WHOLE: Duration = Duration::from_mins(10);
/// Redirections that are followed for one file.
const REDIRECTIONS: usize = 5;
/// Marks a folder whose files are all there.
const COMPLETE: &str = ".complete";

/// Where a model is found.
#[derive(Clone, Debug)]
pub struct HubSettings {
    /// Address of the hub, without a slash at its end.
    pub endpoint: Uri,
    /// The model, as `organisation/name`.
    pub repository: String,
    /// A commit, a branch or a tag.
    pub revision: String,
    /// Folder in which files are kept.
    pub cache: PathBuf,
    /// Sent to the hub, and to nobody that it redirects to.
    pub token: Option<HeaderValue>,
    /// Largest tokenizer, in bytes.
    pub file_bytes: u64,
}

/// True for `organisation/name` or a name alone, of letters, digits, `-`, `_` and `.`.
pub fn is_repository(text: &str) -> bool {
    text.len() <= 200 && text.split('/').count() <= 2 && text.split('/').all(is_name)
}

/// True for a commit, a branch or a tag.
pub fn is_revision(text: &str) -> bool {
    text.len() <= 200 && text.split('/').all(is_name)
}

fn is_name(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    !text.is_empty() && !text.starts_with('.') && text.bytes().all(fits)
}

fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Fetches the files of one model.
pub(super) struct Hub {
    settings: HubSettings,
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
}

/// What the hub says of a revision.
struct Revision {
    commit: String,
    files: Vec<String>,
}

impl Hub {
    /// A client of the hub.
    pub(super) fn new(settings: HubSettings) -> Result<Self, String> {
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_connect_timeout(Some(CONNECT));
        let tls = match rustls::ClientConfig::builder().with_native_roots() {
            Ok(roots) => roots.with_no_client_auth(),
            Err(error) if settings.endpoint.scheme_str() == Some("https") => {
                return Err(format!("no certificate authorities to verify the hub with: {error}"));
            }
            // Nobody is going to be verified.
            Err(_) => rustls::ClientConfig::builder()
                .with_root_certificates(rustls::RootCertStore::empty())
                .with_no_client_auth(),
        };
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        Ok(Self { settings, client: Client::builder(TokioExecutor::new()).build(connector) })
    }

    /// The folder with the files of the revision, which are fetched if they are not there.
    pub(super) async fn folder(&self) -> Result<PathBuf, String> {
        if is_commit(&self.settings.revision)
            && let Some(folder) = self.kept(&self.settings.revision)
        {
            return Ok(folder);
        }
        let revision = match self.ask().await {
            Ok(revision) => revision,
            Err(error) => {
                let last = std::fs::read_to_string(self.reference()).ok();
                let last = last.filter(|commit| is_commit(commit)).and_then(|commit| self.kept(&commit));
                return last.ok_or(error);
            }
        };
        let folder = match self.kept(&revision.commit) {
            Some(folder) => folder,
            None => self.fetch(&revision).await?,
        };
        let reference = self.reference();
        write(&reference, revision.commit.as_bytes())?;
        Ok(folder)
    }

    /// The folder of the model.
    fn home(&self) -> PathBuf {
        self.settings.cache.join(self.settings.repository.replace('/', "--"))
    }

    /// The file that names the commit that the revision was last.
    fn reference(&self) -> PathBuf {
        self.home().join(format!("ref-{}", self.settings.revision.replace('/', "--")))
    }

    /// The folder of a commit, if all its files are there.
    fn kept(&self, commit: &str) -> Option<PathBuf> {
        let folder = self.home().join(commit);
        folder.join(COMPLETE).is_file().then_some(folder)
    }

    /// Asks which commit the revision is, and which files it has.
    async fn ask(&self) -> Result<Revision, String> {
        let HubSettings { repository, revision, .. } = &self.settings;
        let path = format!("/api/models/{repository}/revision/{}", revision.replace('/', "%2F"));
        let body = self.get(&path, SMALL_FILE).await?;
        let json: serde_json::Value = serde_json::from_slice(&body)
            .map_err(|error| format!("{path}: the answer is no JSON: {error}"))?;
        let commit = json["sha"].as_str().filter(|commit| is_commit(commit));
        let commit = commit.ok_or_else(|| format!("{path}: the answer names no commit"))?.to_owned();
        if is_commit(revision) && *revision != commit {
            return Err(format!("{path}: the answer is about the commit {commit}"));
        }
        let names = json["siblings"].as_array().map(Vec::as_slice).unwrap_or_default();
        let files = names.iter().filter_map(|file| file["rfilename"].as_str()).map(str::to_owned).collect();
        Ok(Revision { commit, files })
    }

    /// Fetches the files of a commit into a new folder, which takes its name when all are there.
    async fn fetch(&self, revision: &Revision) -> Result<PathBuf, String> {
        let new = self.home().join(format!("new-{}-{:x}", std::process::id(), fastrand::u64(..)));
        let fetched = self.fetch_into(&new, revision).await;
        let folder = self.home().join(&revision.commit);
        // Another process that shares the folder may have been faster.
        let moved = fetched.and_then(|()| {
            let moved = std::fs::rename(&new, &folder);
            moved
                .or_else(|error| if self.kept(&revision.commit).is_some() { Ok(()) } else { Err(error) })
                .map_err(|error| format!("{}: {error}", folder.display()))
        });
        if moved.is_err() || new.exists() {
            let _ = std::fs::remove_dir_all(&new);
        }
        moved.map(|()| folder)
    }

    async fn fetch_into(&self, folder: &Path, revision: &Revision) -> Result<(), String> {
        let HubSettings { repository, file_bytes, .. } = &self.settings;
        for file in &revision.files {
            let file = file.as_str();
            if FILES.contains(&file) {
                let path = format!("/{repository}/resolve/{}/{file}", revision.commit);
                let most = if file == "tokenizer.json" { *file_bytes } else { SMALL_FILE };
                write(&folder.join(file), &self.get(&path, most).await?)?;
            } else if SIGNS.contains(&file) || file.starts_with("tokenizer.model.v") && is_name(file) {
                write(&folder.join(file), b"")?;
            }
        }
        write(&folder.join(COMPLETE), b"")
    }

    /// The body of an answer, of at most `most` bytes.
    async fn get(&self, path: &str, most: u64) -> Result<Vec<u8>, String> {
        let told = |error: String| format!("{}{path}: {error}", self.settings.endpoint);
        let got = tokio::time::timeout(WHOLE, self.follow(path, most)).await;
        got.unwrap_or_else(|_| Err(format!("took more than {} s", WHOLE.as_secs()))).map_err(told)
    }

    async fn follow(&self, path: &str, most: u64) -> Result<Vec<u8>, String> {
        let base = self.settings.endpoint.to_string();
        let mut address = format!("{}{path}", base.trim_end_matches('/'));
        for _ in 0..=REDIRECTIONS {
            let uri: Uri = address.parse().map_err(|error| format!("{address}: {error}"))?;
            let answer = self.answer(&uri).await?;
            if answer.status().is_redirection() {
                address = redirected(&uri, answer.headers().get(LOCATION))?;
                continue;
            }
            if answer.status() != StatusCode::OK {
                return Err(format!("status {}", answer.status().as_u16()));
            }
            return whole(answer.into_body(), most).await;
        }
        Err(format!("more than {REDIRECTIONS} redirections"))
    }

    async fn answer(&self, uri: &Uri) -> Result<Response<Incoming>, String> {
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = uri.clone();
        let headers = request.headers_mut();
        headers
            .insert(USER_AGENT, HeaderValue::from_static(concat!("pointsman/", env!("CARGO_PKG_VERSION"))));
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let hub = &self.settings.endpoint;
        let same = (uri.scheme(), uri.authority()) == (hub.scheme(), hub.authority());
        if let Some(token) = self.settings.token.as_ref().filter(|_| same) {
            headers.insert(AUTHORIZATION, token.clone());
        }
        let answer = tokio::time::timeout(SILENCE, self.client.request(request)).await;
        answer.map_err(|_| silent())?.map_err(|error| chain(&error))
    }
}

/// Where a redirection leads. It does not lead from `https` to `http`.
fn redirected(from: &Uri, location: Option<&HeaderValue>) -> Result<String, String> {
    let location =
        location.and_then(|location| location.to_str().ok()).ok_or("a redirection without an address")?;
    let scheme = from.scheme_str().unwrap_or("http");
    let authority = from.authority().map(ToString::to_string).unwrap_or_default();
    let to = match location {
        _ if location.starts_with("//") => format!("{scheme}:{location}"),
        _ if location.starts_with('/') => format!("{scheme}://{authority}{location}"),
        _ => location.to_owned(),
    };
    let allowed = to.starts_with("https://") || scheme == "http" && to.starts_with("http://");
    if allowed { Ok(to) } else { Err("a redirection to an address that is not followed".to_owned()) }
}

async fn whole(mut body: Incoming, most: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    while let Some(frame) = tokio::time::timeout(SILENCE, body.frame()).await.map_err(|_| silent())? {
        let frame = frame.map_err(|error| chain(&error))?;
        let Some(data) = frame.data_ref() else { continue };
        if (bytes.len() + data.len()) as u64 > most {
            return Err(format!("has more than {most} bytes"));
        }
        bytes.extend_from_slice(data);
    }
    Ok(bytes)
}

fn silent() -> String {
    format!("nothing came for {} s", SILENCE.as_secs())
}

/// Writes a file, which is there whole or not at all.
fn write(file: &Path, bytes: &[u8]) -> Result<(), String> {
    let part = file.with_extension(format!("part-{:x}", fastrand::u64(..)));
    let written = file
        .parent()
        .map_or(Ok(()), std::fs::create_dir_all)
        .and_then(|()| std::fs::write(&part, bytes))
        .and_then(|()| std::fs::rename(&part, file));
    written.map_err(|error| format!("{}: {error}", file.display()))
}

/// An error with those that it comes from.
fn chain(error: &(dyn Error + 'static)) -> String {
    let (mut text, mut source) = (error.to_string(), error.source());
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_models_and_revisions_lead_to_no_other_folder() {
        for (text, fits) in [
            ("org/model-1.0_x", true),
            ("model", true),
            ("", false),
            ("a/b/c", false),
            ("../x", false),
            ("a/..", false),
            ("a/ b", false),
            ("a//b", false),
        ] {
            assert_eq!(is_repository(text), fits, "{text}");
        }
        assert!(
            is_revision("refs/pr/1") && is_revision("main") && !is_revision("a/../b") && !is_revision("a?b")
        );
    }

    #[test]
    fn a_redirection_stays_with_tls() {
        let to = |from: &'static str, location: &'static str| {
            redirected(&Uri::from_static(from), Some(&HeaderValue::from_static(location))).ok()
        };
        assert_eq!(to("https://hub/a", "/b?c"), Some("https://hub/b?c".to_owned()));
        assert_eq!(to("https://hub/a", "//cdn/b"), Some("https://cdn/b".to_owned()));
        assert_eq!(to("http://hub:1/a", "http://cdn/b"), Some("http://cdn/b".to_owned()));
        assert_eq!(to("https://hub/a", "http://cdn/b"), None);
        assert_eq!(to("http://hub/a", "file:///b"), None);
        assert_eq!(redirected(&Uri::from_static("http://hub/a"), None).ok(), None);
    }
}
