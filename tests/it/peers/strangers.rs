//! Who may follow, and who may be followed.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::uri::PathAndQuery;
use http_body_util::StreamBody;
use hyper::body::Frame;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tonic::client::Grpc;
use tonic::transport::Channel;
use tonic_prost::ProstCodec;

use super::ACTIVE;
use super::certificates::{authority, certificate, flag};
use super::replicas::{Replicas, free_port, open};
use crate::support::{EndpointsFile, Fleet, Pointsman, Proxy, config, holds};

#[tokio::test(flavor = "multi_thread")]
async fn replicas_with_certificates_of_one_authority_follow_each_other_and_nobody_else_does() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let ours = authority();
    certificate(&at("ours"), &ours, "pointsman-peers");
    certificate(&at("theirs"), &authority(), "pointsman-peers");
    certificate(&at("another-name"), &ours, "some-client");
    let fleet = Fleet::start(2, &[]).await;
    let endpoints = EndpointsFile::with(fleet.list());
    let replicas = Replicas::start(2, &endpoints, ACTIVE, &[&flag(&at("ours"))]).await;
    replicas.all_follow().await;
    let first = replicas.running().next().unwrap();
    let proxy = Proxy::connect(first.grpc).await;
    let _open = open(&proxy, "one").await;
    replicas.agree_on(1).await;

    for stranger in ["theirs", "another-name"] {
        let peers = format!("--peers={}", replicas.addresses[0]);
        let flags = ["--secure-serving=false", "--peer-port=0", &peers, &flag(&at(stranger))];
        let stranger = Pointsman::start(&config(&endpoints.path(), ACTIVE), &flags).await;
        holds("the stranger hears nothing", async || {
            stranger.metric("pointsman_peer_ends_total", &[("reason", "handshake")]).await.is_some()
        })
        .await;
        assert_eq!(
            stranger.metric("pointsman_peer_messages_total", &[("direction", "received")]).await,
            None
        );
        assert_eq!(first.metric("pointsman_peers", &[("state", "followers")]).await, Some(1.0));
    }

    // Plaintext, and garbage, on the port of a replica that wants certificates.
    for bytes in [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &[0x16, 0x03, 0x01, 0xff, 0xff, 0xff]] {
        let mut line = TcpStream::connect(replicas.addresses[0]).await.unwrap();
        line.write_all(bytes).await.unwrap();
        line.write_all(&[0xfe; 4096]).await.unwrap();
        // It hangs up, in whatever way.
        let _ = line.read_to_end(&mut Vec::new()).await;
    }
    holds("garbage is counted", async || refused_handshakes(first).await.is_some_and(|count| count >= 2.0))
        .await;
    replicas.agree_on(1).await;
}

async fn refused_handshakes(replica: &Pointsman) -> Option<f64> {
    replica.metric("pointsman_connections_ended_total", &[("port", "peers"), ("reason", "handshake")]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_sends_garbage_or_says_nothing_harms_nobody() {
    let (garbage, mute) =
        (TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let (at, mute_at) = (garbage.local_addr().unwrap(), mute.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut line, _)) = garbage.accept().await {
            let _ = line.write_all(&vec![0x5a; 1 << 16]).await;
        }
    });
    tokio::spawn(async move {
        let mut lines = Vec::new();
        while let Ok((line, _)) = mute.accept().await {
            lines.push(line);
        }
    });
    let fleet = Fleet::start(2, &[]).await;
    let endpoints = EndpointsFile::with(fleet.list());
    let nobody = free_port();
    let peers = format!("--peers={at},{mute_at},{nobody}");
    let flags = ["--secure-serving=false", "--peer-plaintext", "--peer-port=0", &peers];
    let replica = Pointsman::start(&config(&endpoints.path(), ACTIVE), &flags).await;
    let proxy = Proxy::connect(replica.grpc).await;
    for number in 0..20 {
        drop(open(&proxy, &format!("request {number}")).await);
    }
    holds("all three are missed", async || {
        replica.metric("pointsman_peers", &[("state", "missing")]).await == Some(3.0)
            && replica.metric("pointsman_peer_ends_total", &[("reason", "silent")]).await.is_some()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_of_different_pools_tell_each_other_nothing() {
    let fleet = Fleet::start(2, &[]).await;
    let endpoints = EndpointsFile::with(fleet.list());
    let replicas = Replicas::start(1, &endpoints, ACTIVE, &["--peer-plaintext"]).await;
    let peers = format!("--peers={}", replicas.addresses[0]);
    let flags =
        ["--secure-serving=false", "--peer-plaintext", "--peer-port=0", &peers, "--pool-namespace=elsewhere"];
    let other = Pointsman::start(&config(&endpoints.path(), ACTIVE), &flags).await;
    holds("the other one is refused", async || {
        other.metric("pointsman_peer_ends_total", &[("reason", "refused")]).await.is_some()
    })
    .await;
    let refused = replicas.running().next().unwrap();
    assert!(refused.metric("pointsman_peer_refusals_total", &[("reason", "pool")]).await.is_some());
}

/// What a follower asks.
#[derive(Clone, PartialEq, prost::Message)]
struct Question {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(fixed64, tag = "2")]
    epoch: u64,
    #[prost(string, tag = "3")]
    pool: String,
}

/// What a peer says.
#[derive(Clone, PartialEq, prost::Message)]
struct Word {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(fixed64, tag = "2")]
    epoch: u64,
    #[prost(uint64, tag = "3")]
    sequence: u64,
    #[prost(bool, tag = "4")]
    snapshot: bool,
    /// A field that this version does not know.
    #[prost(string, tag = "99")]
    news: String,
}

/// Asks a replica to be told what it does.
async fn ask(replica: SocketAddr, version: u32) -> Result<Word, tonic::Status> {
    let channel = Channel::from_shared(format!("http://{replica}")).unwrap().connect().await.unwrap();
    let mut client = Grpc::new(channel);
    client.ready().await.unwrap();
    let path = PathAndQuery::from_static("/pointsman.peers.v1.Replicas/Follow");
    let asked = Question { version, epoch: 77, pool: "default/test-pool".to_owned() };
    let codec = ProstCodec::<Question, Word>::default();
    let answer = client.server_streaming(tonic::Request::new(asked), path, codec).await?;
    Ok(answer.into_inner().message().await?.unwrap())
}

/// A peer that says this one thing to whoever follows it.
async fn says(word: Word) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((line, _)) = listener.accept().await {
            let message = word.encode_to_vec();
            let mut frame = vec![0];
            frame.extend((message.len() as u32).to_be_bytes());
            frame.extend(message);
            let frame = Bytes::from(frame);
            let answer = service_fn(move |_| {
                let first = Ok::<_, Infallible>(Frame::data(frame.clone()));
                let body = StreamBody::new(stream::once(async { first }).chain(stream::pending()));
                let reply = http::Response::builder().header("content-type", "application/grpc").body(body);
                async move { Ok::<_, Infallible>(reply.unwrap()) }
            });
            tokio::spawn(
                http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(line), answer),
            );
        }
    });
    addr
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_of_another_version_is_heard_if_it_is_later_and_refused_if_it_is_earlier() {
    let fleet = Fleet::start(2, &[]).await;
    let endpoints = EndpointsFile::with(fleet.list());
    let word =
        |version, epoch| Word { version, epoch, sequence: 1, snapshot: true, news: "of later".to_owned() };
    let (earlier, later) = (says(word(0, 5)).await, says(word(9, 6)).await);
    let peers = format!("--peers={earlier},{later}");
    let own = free_port();
    let port = format!("--peer-port={}", own.port());
    let flags = ["--secure-serving=false", "--peer-plaintext", &port, &peers];
    let replica = Pointsman::start(&config(&endpoints.path(), ACTIVE), &flags).await;
    holds("the later one is heard", async || {
        replica.metric("pointsman_peers", &[("state", "following")]).await == Some(1.0)
    })
    .await;
    holds("the earlier one is refused", async || {
        replica.metric("pointsman_peer_ends_total", &[("reason", "version")]).await.is_some()
            && replica.metric("pointsman_peers", &[("state", "missing")]).await == Some(1.0)
    })
    .await;
    // And the other way round.
    let refused = ask(own, 0).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition, "{refused}");
    assert!(refused.message().contains("version: got 0"), "{refused}");
    assert_eq!(replica.metric("pointsman_peer_refusals_total", &[("reason", "version")]).await, Some(1.0));
    let told = ask(own, 9).await.unwrap();
    assert!((told.version, told.snapshot) == (1, true) && told.epoch != 0, "{told:?}");
    drop(open(&Proxy::connect(replica.grpc).await, "served all the same").await);
}
