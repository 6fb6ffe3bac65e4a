//! Finds peers that are given by address or by DNS name.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::telemetry::Repeat;

/// The time between two look-ups of the names.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// The longest wait for an answer.
const LOOKUP: Duration = Duration::from_secs(2);
/// The time between two log lines that say that a name cannot be resolved.
const SAID_AGAIN: Duration = Duration::from_mins(5);

/// The place of one or several peers, written `HOST:PORT`. A host with several addresses stands for as many peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerName {
    host: String,
    port: u16,
}

impl FromStr for PeerName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("got {text:?}, expected HOST:PORT such as pointsman-peers:9006 or [::1]:9006");
        let (host, port) = text.trim().rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let is_host = !host.is_empty() && !host.contains(['/', '@', ' ', '[', ']']);
        is_host.then(|| Self { host: host.to_owned(), port }).ok_or_else(wrong)
    }
}

/// Looks up the names again and again until it is told to stop. A name that cannot be resolved keeps its last
/// addresses.
pub async fn resolve(
    names: Vec<PeerName>,
    to: watch::Sender<Option<BTreeSet<SocketAddr>>>,
    stop: CancellationToken,
) {
    let mut known: Vec<BTreeSet<SocketAddr>> = vec![BTreeSet::new(); names.len()];
    let troubles = Repeat::every(SAID_AGAIN);
    loop {
        for (name, addresses) in names.iter().zip(&mut known) {
            let found =
                tokio::time::timeout(LOOKUP, tokio::net::lookup_host((name.host.as_str(), name.port)));
            match found.await {
                Ok(Ok(found)) => *addresses = found.collect(),
                Ok(Err(error)) => say(&troubles, name, &error.to_string()),
                Err(_) => say(&troubles, name, "no answer in time"),
            }
        }
        let all: BTreeSet<SocketAddr> = known.iter().flatten().copied().collect();
        to.send_if_modified(|before| {
            let changed = before.as_ref() != Some(&all);
            *before = Some(all);
            changed
        });
        tokio::select! {
            () = tokio::time::sleep(LOOK_AGAIN) => {}
            () = stop.cancelled() => return,
        }
    }
}

fn say(troubles: &Repeat, name: &PeerName, error: &str) {
    if let Some(suppressed) = troubles.due(Instant::now()) {
        tracing::warn!(host = name.host, error, suppressed, "name of a peer cannot be resolved");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_a_host_and_a_port() {
        let name = |text: &str| text.parse::<PeerName>().ok().map(|name| (name.host, name.port));
        assert_eq!(name("peers.ns.svc:9006"), Some(("peers.ns.svc".to_owned(), 9006)));
        assert_eq!(name(" 10.0.0.1:1 "), Some(("10.0.0.1".to_owned(), 1)));
        assert_eq!(name("[fe80::1]:80"), Some(("fe80::1".to_owned(), 80)));
        for wrong in ["", "host", ":80", "host:", "host:0", "host:99999", "http://host:80", "a b:80"] {
            assert!(wrong.parse::<PeerName>().unwrap_err().contains("expected HOST:PORT"), "{wrong}");
        }
    }

    #[tokio::test]
    async fn addresses_are_told_once() {
        let (to, mut addresses) = watch::channel(None);
        let stop = CancellationToken::new();
        let names = vec!["127.0.0.1:80".parse().unwrap(), "127.0.0.1:81".parse().unwrap()];
        let resolving = tokio::spawn(resolve(names, to, stop.clone()));
        let found = addresses.wait_for(Option::is_some).await.unwrap().clone().unwrap();
        assert_eq!(found.iter().map(SocketAddr::port).collect::<Vec<_>>(), [80, 81]);
        stop.cancel();
        resolving.await.unwrap();
    }
}
