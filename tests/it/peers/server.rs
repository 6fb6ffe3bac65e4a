//! Replicas over a server that speaks the protocol of Redis: who may use it, and what becomes of its faults.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::ACTIVE;
use super::certificates::{authority, certificate};
use super::over::{Over, with_server};
use super::replicas::{Replicas, free_port, open};
use crate::support::{
    Carries, Client, EndpointsFile, Fleet, Line, Pointsman, Proxy, Redis, config, holds, within,
};

/// The secret of the only user.
const SECRET: &str = "a-secret-that-nobody-reads";

async fn gauge(replica: &Pointsman, connection: &str) -> Option<f64> {
    replica.metric("pointsman_peer_server_connected", &[("connection", connection)]).await
}

async fn ends(replica: &Pointsman, reason: &str) -> f64 {
    let labels = [("reason", reason)];
    let server = replica.metric("pointsman_peer_server_ends_total", &labels).await.unwrap_or(0.0);
    server + replica.metric("pointsman_peer_ends_total", &labels).await.unwrap_or(0.0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_tls_and_users_is_used_with_the_password_of_a_file_that_is_shown_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    certificate(folder.path(), &authority(), "localhost");
    std::fs::write(folder.path().join("password"), format!("{SECRET}\n")).unwrap();
    std::fs::write(folder.path().join("wrong"), "another").unwrap();
    let (plain, secure) = (free_port(), free_port());
    let port = secure.port().to_string();
    let (tls_cert, tls_key, tls_ca) = (at("tls.crt"), at("tls.key"), at("ca.crt"));
    let secret = format!(">{SECRET}");
    let options = [
        "--tls-port",
        &port,
        "--tls-cert-file",
        &tls_cert,
        "--tls-key-file",
        &tls_key,
        "--tls-ca-cert-file",
        &tls_ca,
        "--user",
        "default",
        "off",
        "--user",
        "epp",
        "on",
        &secret,
        "~mine:*",
        "+@read",
        "+@write",
        "+@keyspace",
        "+@connection",
    ];
    let Some(_server) = Redis::start(plain, &options).await else { return };
    let fleet = Fleet::start(2, &[]).await;
    let endpoints = EndpointsFile::with(fleet.list());
    let text = |password: &str, identity: &str| {
        let url = format!("url: \"rediss://epp@localhost:{port}/0\", keyPrefix: mine");
        let files = format!("passwordFile: {}, caFile: {tls_ca}{identity}", at(password));
        with_server(&config(&endpoints.path(), ACTIVE), &format!("{{{url}, {files}}}"))
    };
    let shown = format!(", certFile: {tls_cert}, keyFile: {tls_key}");
    let mut replicas = Replicas::on_their_own(2, &text("password", &shown), &["--v=9"]);
    for number in 0..2 {
        replicas.begin_again(number).await;
    }
    replicas.all_follow().await;
    let proxy = Proxy::connect(replicas.one(0).grpc).await;
    let _open = open(&proxy, "one").await;
    replicas.agree_on(1).await;

    let flags = ["--secure-serving=false", "--v=9"];
    let wrong = Pointsman::start(&text("wrong", &shown), &flags).await;
    holds("the password is refused", async || ends(&wrong, "password").await > 0.0).await;
    let absent = Pointsman::start(&text("nothing", &shown), &flags).await;
    holds("the password is missed", async || ends(&absent, "password").await > 0.0).await;
    let nobody = Pointsman::start(&text("password", ""), &flags).await;
    holds("the certificate is missed", async || {
        ends(&nobody, "handshake").await + ends(&nobody, "closed").await > 0.0
    })
    .await;
    for replica in replicas.running().chain([&wrong, &absent, &nobody]) {
        let mut seen = replica.process.log().join("\n");
        for page in ["/debug/peers", "/debug/config", "/metrics"] {
            seen += Client::http1(replica.metrics).get(page).await.text();
        }
        assert!(seen.contains("connected"), "{seen}");
        assert!(!seen.contains(SECRET), "the password is shown");
    }
}

/// Opens requests one after the other; how long the slowest one took.
async fn slowest(proxy: &Proxy, count: usize) -> Duration {
    let mut slowest = Duration::ZERO;
    for number in 0..count {
        let asked = Instant::now();
        drop(within("a choice", open(proxy, &format!("request {number}"))).await);
        slowest = slowest.max(asked.elapsed());
    }
    slowest
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dies_is_empty_or_forgets_costs_freshness_and_no_request() {
    let Some(Over::Server(mut server)) = Over::server().await else { return };
    let fleet = Fleet::start(3, &[]).await;
    let endpoints = EndpointsFile::with(fleet.list());
    let text =
        with_server(&config(&endpoints.path(), ACTIVE), &format!("{{url: \"redis://{}\"}}", server.addr));
    server.kill().await;
    // The server is not there when they begin.
    let mut replicas = Replicas::on_their_own(2, &text, &[]);
    for number in 0..2 {
        replicas.begin_again(number).await;
    }
    replicas.is_ready(0).await;
    let (first, second) = (replicas.one(0), replicas.one(1));
    assert_eq!((gauge(first, "write").await, gauge(first, "read").await), (Some(0.0), Some(0.0)));
    assert!(ends(first, "unreachable").await > 0.0);
    let proxy = Proxy::connect(first.grpc).await;
    let alone = slowest(&proxy, 30).await;
    let mut held = vec![open(&proxy, "held").await];

    server.begin_again().await;
    replicas.all_follow().await;
    assert_eq!((gauge(first, "write").await, gauge(second, "read").await), (Some(1.0), Some(1.0)));
    replicas.agree_on(1).await;
    assert_eq!(server.ask("FLUSHALL").await, "+OK\r\n+OK\r\n");
    held.push(open(&proxy, "after the flush").await);
    replicas.agree_on(2).await;

    // The server dies: what the other one knew counts for three seconds, and then it knows nothing.
    server.kill().await;
    let lost = Instant::now();
    let down = slowest(&proxy, 30).await;
    eprintln!("the slowest of 30 choices took {alone:.1?} before and {down:.1?} after the server died");
    assert!(down < Duration::from_secs(1), "{down:?}");
    holds("the other one's requests are forgotten", async || replicas.in_flight().await == [2, 0]).await;
    assert!(lost.elapsed() < Duration::from_secs(4), "{:?}", lost.elapsed());
    held.remove(0);
    server.begin_again().await;
    replicas.agree_on(1).await;

    // One log is evicted; a replica that comes later is told all the same.
    let keys = server.ask("KEYS *:log").await;
    let log = keys.lines().find(|line| line.ends_with(":log")).unwrap().to_owned();
    assert!(server.ask(&format!("DEL {log}")).await.starts_with(":1"));
    replicas.kill(1).await;
    replicas.begin_again(1).await;
    replicas.agree_on(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_server_makes_knowledge_old_and_choices_no_slower() {
    let Some(Over::Server(server)) = Over::server().await else { return };
    let fleet = Fleet::start(2, &[]).await;
    let endpoints = EndpointsFile::with(fleet.list());
    let line = Line::to(server.addr).await;
    let text =
        with_server(&config(&endpoints.path(), ACTIVE), &format!("{{url: \"redis://{}\"}}", line.addr));
    let mut replicas = Replicas::on_their_own(2, &text, &[]);
    for number in 0..2 {
        replicas.begin_again(number).await;
    }
    replicas.all_follow().await;
    line.carry(Carries::Late(Duration::from_millis(150)));
    let proxy = Proxy::connect(replicas.one(0).grpc).await;
    let took = slowest(&proxy, 40).await;
    assert!(took < Duration::from_millis(300), "{took:?}: a write takes longer");
    let _held = open(&proxy, "held").await;
    replicas.agree_on(1).await;
    holds("the metric says how slow it is", async || {
        let took = replicas.one(0).metric("pointsman_peer_server_round_trip_seconds", &[]).await;
        took.is_some_and(|took| took > 0.25)
    })
    .await;
    line.carry(Carries::Unread);
    let took = slowest(&proxy, 40).await;
    assert!(took < Duration::from_millis(300), "{took:?}");
    holds("a server that does not answer is let go", async || ends(replicas.one(0), "silent").await > 0.0)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pools_that_share_a_server_tell_each_other_nothing_and_strangers_in_it_are_passed_over() {
    let Some(Over::Server(server)) = Over::server().await else { return };
    let fleet = Fleet::start(2, &[]).await;
    let endpoints = EndpointsFile::with(fleet.list());
    let text =
        with_server(&config(&endpoints.path(), ACTIVE), &format!("{{url: \"redis://{}\"}}", server.addr));
    let mut replicas = Replicas::on_their_own(2, &text, &[]);
    for number in 0..2 {
        replicas.begin_again(number).await;
    }
    replicas.all_follow().await;
    let flags = ["--secure-serving=false", "--pool-namespace=elsewhere"];
    let other = Pointsman::start(&text, &flags).await;
    holds("the other pool writes too", async || gauge(&other, "write").await == Some(1.0)).await;

    let keys = server.ask("KEYS *:replicas").await;
    let set = keys
        .lines()
        .find(|line| line.ends_with("/test-pool}:replicas") && !line.contains("elsewhere"))
        .unwrap();
    let pool = set.strip_suffix(":replicas").unwrap();
    // Entries of the set that are none, one without a log, and logs that hold garbage or an old version.
    for word in ["garbage", "00000000000000aa:no-log", "00000000000000ab:garbage", "00000000000000ac:old"] {
        assert!(server.ask(&format!("SADD {set} {word}")).await.starts_with(":1"), "{word}");
    }
    for (epoch, field, message) in [("ab", "s", "\u{7f}\u{7f}\u{7f}"), ("ac", "s", "\\x20\\x01")] {
        let command = format!("XADD {pool}:00000000000000{epoch}:log 1-0 {field} \"{message}\"");
        assert!(server.ask(&command).await.starts_with('$'), "{command}");
        server.ask(&format!("EXPIRE {pool}:00000000000000{epoch}:log 60")).await;
    }
    let first = replicas.one(0);
    holds("garbage is counted", async || ends(first, "malformed").await > 0.0).await;
    holds("an old version is counted", async || ends(first, "version").await > 0.0).await;
    let proxy = Proxy::connect(first.grpc).await;
    let _held = open(&proxy, "held").await;
    replicas.agree_on(1).await;
    assert_eq!(first.metric("pointsman_peers", &[("state", "following")]).await, Some(1.0));
    assert_eq!(other.metric("pointsman_peers", &[("state", "following")]).await, Some(0.0));
    // The set is cleaned of what has no log.
    holds("the set is clean", async || !server.ask(&format!("SMEMBERS {set}")).await.contains("no-log"))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_answers_with_anything_is_let_go_and_costs_little_memory() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut number = 0;
        while let Ok((mut line, _)) = listener.accept().await {
            number += 1;
            tokio::spawn(async move {
                let mut asked = [0; 4096];
                let answers: [&[u8]; 3] = [b"$400000000\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"*2000000000\r\n"];
                while line.read(&mut asked).await.is_ok_and(|count| count > 0) {
                    let _ = line.write_all(answers[number % 3]).await;
                    let _ = line.write_all(&vec![b'x'; 1 << 20]).await;
                }
            });
        }
    });
    let fleet = Fleet::start(2, &[]).await;
    let endpoints = EndpointsFile::with(fleet.list());
    let text = with_server(&config(&endpoints.path(), ACTIVE), &format!("{{url: \"redis://{addr}\"}}"));
    let replica = Pointsman::start(&text, &["--secure-serving=false"]).await;
    let memory = replica.process.memory();
    let proxy = Proxy::connect(replica.grpc).await;
    assert!(slowest(&proxy, 40).await < Duration::from_secs(1));
    holds("it is let go", async || ends(&replica, "malformed").await >= 4.0).await;
    let grown = replica.process.memory().saturating_sub(memory);
    assert!(grown < 64 << 20, "{grown} bytes");
}
