//! The flags of peers: whether there are any, and whether they fit each other.

use std::path::PathBuf;

use anyhow::Context;

use super::ServeFlags;
use crate::peers::PeerName;
use crate::transport::PeerTls;

/// True if the flags name peers, in one way or another.
pub(super) fn is_wanted(flags: &ServeFlags) -> bool {
    !flags.peers.is_empty() || !flags.peer_service.is_empty()
}

/// Flags of peers that do not fit each other.
pub(super) fn problems(flags: &ServeFlags) -> Vec<String> {
    let mut problems = Vec::new();
    if !flags.peers.is_empty() && !flags.peer_service.is_empty() {
        problems.push("--peers and --peer-service exclude each other".to_owned());
    }
    let wanted = if flags.peers.is_empty() { "--peer-service" } else { "--peers" };
    match (flags.peer_cert_dir.as_str(), flags.peer_plaintext) {
        ("", false) if is_wanted(flags) => problems.push(format!(
            "{wanted} needs --peer-cert-dir with tls.crt, tls.key and ca.crt, or --peer-plaintext where the network is trusted"
        )),
        ("", _) | (_, false) => {}
        (_, true) => problems.push("--peer-cert-dir and --peer-plaintext exclude each other".to_owned()),
    }
    problems
}

/// The other replicas, as the flags say.
#[derive(Clone, Debug)]
pub(super) struct PeerSettings {
    /// Their names; empty if a Service names them.
    pub(super) names: Vec<PeerName>,
    /// The headless Service whose pods they are.
    pub(super) service: String,
    /// Port on which they follow this replica.
    pub(super) port: u16,
    /// Folder of the certificates; `None` for plaintext.
    cert_dir: Option<PathBuf>,
    /// Name that their certificates hold.
    tls_name: String,
}

impl PeerSettings {
    /// Reads the flags; `None` if they name no peers.
    pub(super) fn new(flags: &ServeFlags) -> Option<Self> {
        is_wanted(flags).then(|| Self {
            names: flags.peers.clone(),
            service: flags.peer_service.clone(),
            port: flags.peer_port,
            cert_dir: (!flags.peer_cert_dir.is_empty()).then(|| PathBuf::from(&flags.peer_cert_dir)),
            tls_name: flags.peer_tls_name.clone(),
        })
    }

    /// TLS among replicas; `None` for plaintext.
    pub(super) fn tls(&self) -> anyhow::Result<Option<PeerTls>> {
        let tls = self.cert_dir.as_deref().map(|folder| PeerTls::new(folder, &self.tls_name));
        tls.transpose().context("peers' port")
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args, Command, FromArgMatches};

    use super::*;

    #[test]
    fn peers_need_certificates_or_say_that_they_need_none() {
        let problems = |line: &str| {
            let words = std::iter::once("pointsman").chain(line.split_whitespace());
            let matches = ServeFlags::augment_args(Command::new("pointsman")).get_matches_from(words);
            problems(&ServeFlags::from_arg_matches(&matches).unwrap()).join("; ")
        };
        assert_eq!(problems(""), "");
        assert_eq!(problems("--peers a:1 --peer-plaintext"), "");
        assert_eq!(problems("--peer-service s --peer-cert-dir d"), "");
        assert!(problems("--peers a:1").starts_with("--peers needs --peer-cert-dir"));
        assert!(problems("--peer-service s").starts_with("--peer-service needs --peer-cert-dir"));
        assert!(problems("--peers a:1 --peer-service s --peer-plaintext").contains("exclude each other"));
        assert!(problems("--peers a:1 --peer-cert-dir d --peer-plaintext").contains("exclude each other"));
    }
}
