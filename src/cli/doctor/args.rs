//! The flags of `doctor`.

use std::path::PathBuf;

use clap::Args;

use crate::cli::asking::{AskArgs, CallerArgs};
use crate::plugins::Registry;

/// Flags of `doctor`.
#[derive(Args, Clone, Debug)]
pub(in crate::cli) struct DoctorArgs {
    /// Plugin types that a configuration may name; no flag.
    #[arg(skip)]
    pub(in crate::cli) registry: Option<Registry>,
    /// Address of a picker's metrics port; once for each replica, or with commas [default: http://127.0.0.1:9090]
    #[arg(long, value_name = "URL", value_delimiter = ',', env = "POINTSMAN_URL")]
    pub(in crate::cli) url: Vec<String>,
    /// Configuration file that need not run
    #[arg(long, value_name = "PATH")]
    pub(in crate::cli) config_file: Option<PathBuf>,
    /// File that says where the Kubernetes API server is
    #[arg(long, value_name = "PATH")]
    pub(in crate::cli) kubeconfig: Option<PathBuf>,
    /// Name of the InferencePool; without it the running picker's
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) pool_name: Option<String>,
    /// Namespace of the InferencePool; without it the running picker's
    #[arg(long, value_name = "NAMESPACE")]
    pub(in crate::cli) pool_namespace: Option<String>,
    /// API group of the InferencePool
    #[arg(long, value_name = "GROUP", default_value = "inference.networking.k8s.io")]
    pub(in crate::cli) pool_group: String,
    /// Service account whose rights are looked at; without it that of the picker's pods
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) service_account: Option<String>,
    /// Address of Envoy's admin port
    #[arg(long, value_name = "URL")]
    pub(in crate::cli) envoy_admin: Option<String>,
    /// File of alerts or a dashboard in which to look for older names of series; once for each file
    #[arg(long, value_name = "PATH")]
    pub(in crate::cli) monitoring: Vec<PathBuf>,
    /// Print the findings as JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
    #[command(flatten)]
    pub(in crate::cli) caller: CallerArgs,
}

impl DoctorArgs {
    /// How the picker at `url` is asked.
    pub(super) fn ask(&self, url: &str) -> AskArgs {
        AskArgs { url: url.to_owned(), caller: self.caller.clone() }
    }

    /// Something beside a picker is to be looked at.
    pub(super) fn names_more(&self) -> bool {
        self.config_file.is_some()
            || self.kubeconfig.is_some()
            || self.envoy_admin.is_some()
            || !self.monitoring.is_empty()
    }
}
