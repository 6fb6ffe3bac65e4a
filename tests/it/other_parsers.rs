//! Bodies of vLLM's gRPC service, of Vertex AI and of SGLang: what they ask for counts, and they go on byte for byte.

use bytes::Bytes;

use crate::support::{
    EndpointsFile, Fleet, Pointsman, Proxy, body, config, destination, eventually, headers, holds,
};

/// A field with bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend(bytes);
    out
}

/// A message in the frame of gRPC.
fn frame(message: &[u8]) -> Vec<u8> {
    [&[0][..], &(message.len() as u32).to_be_bytes(), message].concat()
}

/// A request of vLLM's gRPC service with as many ids, which begin like those of any other with the same `kind`.
fn grpc(kind: u8, ids: usize) -> Vec<u8> {
    let packed = vec![kind; ids];
    frame(&[field(1, b"id"), field(2, &field(2, &packed))].concat())
}

/// A chat in a request of Vertex AI.
fn vertex(text: &str) -> Vec<u8> {
    let chat = serde_json::json!({"model": "m", "messages": [{"role": "user", "content": text}]}).to_string();
    frame(&field(2, &[field(1, b"application/json"), field(2, chat.as_bytes())].concat()))
}

struct Setup {
    pointsman: Pointsman,
    proxy: Proxy,
    _fleet: Fleet,
    _endpoints: EndpointsFile,
}

impl Setup {
    async fn start(parsers: &[&str]) -> Self {
        let fleet = Fleet::start(4, &[]).await;
        let endpoints = EndpointsFile::with(fleet.list());
        let mut config = config(&endpoints.path(), &[("prefix-cache-scorer", 1)]);
        config += "requestHandler:\n  parsers:\n";
        config.extend(parsers.iter().map(|parser| format!("  - pluginRef: {parser}\n")));
        let pointsman = Pointsman::start(&config, &["--secure-serving=false"]).await;
        let proxy = Proxy::connect(pointsman.grpc).await;
        Self { pointsman, proxy, _fleet: fleet, _endpoints: endpoints }
    }

    async fn send(&self, path: &str, kind: &'static str, bytes: Vec<u8>) -> String {
        let mut exchange = self.proxy.open().await;
        let content_type = (Bytes::from_static(b"content-type"), Bytes::from_static(kind.as_bytes()));
        exchange.say(headers(path, Some(content_type), false)).await;
        exchange.say(body(bytes, true)).await;
        destination(&exchange.answer().await.unwrap().unwrap()).unwrap()
    }

    /// Sends requests of two kinds in turns: those of one kind stay at one server.
    async fn stay(&self, path: &str, kind: &'static str, bytes: impl Fn(usize, usize) -> Vec<u8>) {
        let mut homes = [String::new(), String::new()];
        for turn in 0..8 {
            for (which, home) in homes.iter_mut().enumerate() {
                let picked = self.send(path, kind, bytes(which, turn)).await;
                if turn == 0 {
                    home.clone_from(&picked);
                }
                assert_eq!(picked, *home, "{path}: turn {turn} of {which}");
            }
        }
        assert_eq!(
            self.pointsman.metric("pointsman_unread_bodies_total", &[]).await.unwrap_or_default(),
            0.0
        );
    }
}

const GRPC: &str = "application/grpc+proto";

#[tokio::test(flavor = "multi_thread")]
async fn prompts_of_vllms_grpc_service_stay_where_their_beginning_is_cached() {
    let setup = Setup::start(&["vllmgrpc-parser"]).await;
    let path = "/vllm.grpc.engine.VllmEngine/Generate";
    setup.stay(path, GRPC, |which, turn| grpc(which as u8 + 1, 640 + turn)).await;
    // What is no such message goes on.
    setup.send(path, GRPC, b"\0\0\0\0\x05abc".to_vec()).await;
    let unread = eventually("an unread body", async || {
        setup.pointsman.metric("pointsman_unread_bodies_total", &[("api", "grpc_generate")]).await
    });
    assert_eq!(unread.await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn chats_in_messages_of_vertex_ai_stay_where_their_beginning_is_cached() {
    let setup = Setup::start(&["vertexai-parser", "vllmgrpc-parser"]).await;
    let path = "/google.cloud.aiplatform.v1beta1.PredictionService/ChatCompletions";
    let text = |which: usize, turn: usize| format!("{}{turn}", ["a", "b"][which].repeat(3000));
    setup.stay(path, GRPC, |which, turn| vertex(&text(which, turn))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn prompts_of_sglangs_own_path_stay_where_their_beginning_is_cached() {
    let setup = Setup::start(&["sglanghttp-parser"]).await;
    let ids = |which: usize, turn: usize| {
        serde_json::json!({"input_ids": vec![which + 1; 640 + turn], "extra_key": "k"})
            .to_string()
            .into_bytes()
    };
    setup.stay("/generate", "application/json", ids).await;
    holds("an answer", async || setup.pointsman.metric("llm_d_epp_ready_endpoints", &[]).await == Some(4.0))
        .await;
}
