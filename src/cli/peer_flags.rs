//! The flags of peers: whether there are any, and whether they fit each other.

use std::path::Path;

use anyhow::Context;

use super::ServeFlags;
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

/// TLS among replicas, as the flags say; `None` for plaintext.
pub(super) fn tls(flags: &ServeFlags) -> anyhow::Result<Option<PeerTls>> {
    if flags.peer_cert_dir.is_empty() {
        return Ok(None);
    }
    let tls = PeerTls::new(Path::new(&flags.peer_cert_dir), &flags.peer_tls_name);
    Ok(Some(tls.context("peers' port")?))
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
