//! Reaching the API server: by a file that a flag names, in a pod by its service account, elsewhere by `KUBECONFIG` or
//! the file in the home folder.

use std::path::Path;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// Longest silence on a connection. Watch calls are shorter; a server that went away without a word is noticed by it.
const SILENCE: Duration = Duration::from_secs(30);

/// Why the API server cannot be reached at all: the environment does not say where it is, or in a form that cannot be
/// used.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Neither a service account nor a kubeconfig.
    #[error(
        "no Kubernetes API server is known: {0}. Pointsman runs in a pod with a service account, or elsewhere with a kubeconfig (KUBECONFIG, \
         ~/.kube/config); without Kubernetes, list a file-discovery plugin in the configuration and name it in dataLayer.discovery.pluginRef"
    )]
    Unknown(kube::config::InferConfigError),
    /// The file that a flag names says nothing of use.
    #[error("--kubeconfig {path:?}: {error}")]
    File {
        /// The file.
        path: String,
        /// The fault in the file.
        error: kube::config::KubeconfigError,
    },
    /// The settings that were found cannot be used.
    #[error("the Kubernetes client cannot be set up: {0}")]
    Unusable(kube::Error),
}

/// The address of the API server, and the identity of this process towards it.
#[derive(Clone, Debug)]
pub struct Connection {
    config: Config,
}

impl Connection {
    /// Takes the settings from the environment. Nothing is sent yet.
    pub async fn from_environment() -> Result<Self, ConnectError> {
        Ok(Self::with(Config::infer().await.map_err(ConnectError::Unknown)?))
    }

    /// Takes the settings from the current context of this file. Nothing is sent yet.
    pub async fn from_file(path: &str) -> Result<Self, ConnectError> {
        let fault = |error| ConnectError::File { path: path.to_owned(), error };
        let file = Kubeconfig::read_from(Path::new(path)).map_err(fault)?;
        let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
        Ok(Self::with(config.map_err(fault)?))
    }

    fn with(mut config: Config) -> Self {
        config.connect_timeout = Some(CONNECT);
        config.read_timeout = Some(SILENCE);
        config.write_timeout = Some(SILENCE);
        config.reset_reader_on_write = true;
        // Whoever asks knows best whether and when to ask again.
        config.default_retry = false;
        Self { config }
    }

    /// Address of the API server.
    pub fn server(&self) -> String {
        self.config.cluster_url.to_string()
    }

    /// Host and port of the API server; `None` if its address has no host.
    pub fn host(&self) -> Option<(&str, u16)> {
        let server = &self.config.cluster_url;
        let usual = if server.scheme_str() == Some("http") { 80 } else { 443 };
        let host = server.host()?.trim_start_matches('[').trim_end_matches(']');
        Some((host, server.port_u16().unwrap_or(usual)))
    }

    /// A client. It works in the runtime in which this is called.
    pub fn client(&self) -> Result<Client, ConnectError> {
        Client::try_from(self.config.clone()).map_err(ConnectError::Unusable)
    }
}
