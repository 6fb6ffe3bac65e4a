//! Follows one peer, for as long as this replica is told of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::uri::PathAndQuery;
use tonic::client::Grpc;
use tonic::{Code, Request, Streaming};

use super::codec::FollowerCodec;
use super::connect::channel;
use super::fleet::LinkId;
use super::shared::Shared;
use super::status::Standing;
use super::wire::{FOLLOW_PATH, FollowRequest, MAX_MESSAGE_BYTES, Update, VERSION};

/// The longest wait for the first message and for each further one. A peer sends a message every second.
const SILENCE: Duration = Duration::from_secs(3);
/// The first pause after a failed attempt. The pause doubles with each further failure.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest pause while a peer does not answer. It is short, so that a peer that returns is followed at once.
const OUTAGE_PAUSE: Duration = Duration::from_secs(1);
/// The pause after a failure that will not pass soon.
const REFUSAL_PAUSE: Duration = Duration::from_secs(5);

/// The most characters of an error that are kept.
const LONGEST_ERROR: usize = 300;

/// Why an attempt ended.
struct Ended {
    reason: &'static str,
    error: String,
    /// True if the peer sent at least one message.
    heard: bool,
}

impl Ended {
    /// The time until the next attempt. Only an answer of the peer itself leads to the long pause. A failed handshake
    /// and malformed bytes may come from a bad network, so they lead to a short pause.
    fn pause(&self, attempts: u32) -> Duration {
        let spread = 1.0 - 0.3 * fastrand::f64();
        match self.reason {
            "itself" | "known" | "refused" | "version" => REFUSAL_PAUSE.mul_f64(spread),
            _ => FIRST_PAUSE.saturating_mul(1 << attempts.min(10)).min(OUTAGE_PAUSE).mul_f64(spread),
        }
    }
}

/// Removes the share of the peer when it is dropped, however following the peer ends.
struct Followed<'s> {
    shared: &'s Shared,
    link: LinkId,
}

impl Drop for Followed<'_> {
    fn drop(&mut self) {
        self.shared.end(self.link);
    }
}

/// Follows the peer at `address` until the future is dropped.
pub(super) async fn keep(shared: Arc<Shared>, address: SocketAddr) {
    let mut attempts = 0_u32;
    let peer = address.to_string();
    loop {
        let ended = follow(&shared, &peer, address).await;
        shared.metrics.ended(ended.reason);
        let standing = match ended.reason {
            "itself" | "known" => Standing::Alias(ended.reason),
            reason => Standing::Missing(reason),
        };
        let heard = ended.heard;
        if heard {
            tracing::info!(peer = %address, reason = ended.reason, error = ended.error, "peer is not heard any more");
        } else {
            tracing::debug!(peer = %address, reason = ended.reason, error = ended.error, "peer cannot be followed");
        }
        attempts = if heard { 0 } else { attempts.saturating_add(1) };
        let pause = ended.pause(attempts);
        shared.stands(&peer, standing, Some(ended.error));
        tokio::time::sleep(pause).await;
    }
}

/// One attempt: it returns when it has ended.
async fn follow(shared: &Shared, peer: &str, address: SocketAddr) -> Ended {
    let link = shared.next_link();
    let followed = Followed { shared, link };
    let mut stream = match open(shared, address).await {
        Ok(stream) => stream,
        Err(ended) => return ended,
    };
    let mut heard = false;
    loop {
        let ended = |reason, error: String| Ended { reason, error, heard };
        let update = match tokio::time::timeout(SILENCE, stream.message()).await {
            Err(_) => return ended("silent", format!("no word for {SILENCE:?}")),
            Ok(Ok(None)) => return ended("closed", "the peer ended the stream".to_owned()),
            Ok(Err(status)) => return ended(reason_of(&status), chain(&status)),
            Ok(Ok(Some(update))) => update,
        };
        if let Err(fault) = shared.take(followed.link, peer, update) {
            return ended(fault.name(), fault.text().to_owned());
        }
        if !heard {
            heard = true;
            shared.stands(peer, Standing::Following(link), None);
            tracing::info!(peer = %address, "peer is heard");
        }
    }
}

async fn open(shared: &Shared, address: SocketAddr) -> Result<Streaming<Update>, Ended> {
    let ended = |reason, error: String| Ended { reason, error, heard: false };
    let channel = channel(address, shared.tls()).await.map_err(|error| {
        let text = chain(&error);
        ended(if is_of_tls(&text) { "handshake" } else { "unreachable" }, text)
    })?;
    let mut client = Grpc::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
    client.ready().await.map_err(|error| ended("unreachable", chain(&error)))?;
    let asked = FollowRequest {
        version: VERSION,
        epoch: shared.epoch(),
        pool: shared.settings.pool.clone(),
        name: shared.settings.name.clone(),
    };
    let path = PathAndQuery::from_static(FOLLOW_PATH);
    let began = Instant::now();
    let answer = client.server_streaming(Request::new(asked), path, FollowerCodec);
    match tokio::time::timeout(SILENCE, answer).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(ended(reason_of(&status), chain(&status))),
        Err(_) => Err(ended("silent", format!("no answer for {:?}", began.elapsed()))),
    }
}

/// The meaning of a status that ended the stream.
fn reason_of(status: &tonic::Status) -> &'static str {
    // A server that rejects this replica's certificate says so only after the handshake.
    if is_of_tls(&chain(status)) {
        return "handshake";
    }
    match status.code() {
        Code::FailedPrecondition | Code::ResourceExhausted | Code::Unimplemented | Code::PermissionDenied => {
            "refused"
        }
        Code::Internal | Code::OutOfRange | Code::DataLoss | Code::InvalidArgument => "malformed",
        _ => "closed",
    }
}

/// The text of an error and of all its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string);
    let text = causes.collect::<Vec<_>>().join(": ");
    text.chars().take(LONGEST_ERROR).collect()
}

/// True if the other end's certificate was not taken, or ours was not, or it speaks no TLS.
pub(super) fn is_of_tls(error: &str) -> bool {
    ["certificate", "fatal alert", "InvalidMessage", "tls handshake"].iter().any(|word| error.contains(word))
}
