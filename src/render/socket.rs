//! The tokenizer service of earlier releases of the reference, which listens on a socket of the pod and speaks gRPC.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::UnixStream;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use super::chat_message::{
    CompletionQuestion, InitializeQuestion, Initialized, Question, Rendered, question,
};
use crate::scheduling::{PrepareCall, PrepareError, PrepareLimits, Prepared, Preparer, Preparing};

/// Requests that are asked about at once.
const CONCURRENT: usize = 64;
/// Longest answer in bytes: 100 MiB, as the service's own clients have it, is more than 25 million tokens.
const LONGEST_ANSWER: usize = 16 << 20;

const INITIALIZE: &str = "/tokenization.TokenizationService/InitializeTokenizer";
const CHAT: &str = "/tokenization.TokenizationService/RenderChatCompletion";
const COMPLETION: &str = "/tokenization.TokenizationService/RenderCompletion";

/// Where the service is and how it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketSettings {
    /// Path of the socket, or address and port of TCP.
    pub address: String,
    /// `address` is one of TCP.
    pub tcp: bool,
    /// The model, as the service knows it.
    pub model: String,
    /// Longest time for a prompt of text.
    pub timeout: Duration,
    /// Longest time for a prompt with images.
    pub media_timeout: Duration,
    /// Time that requests wait in sum for answers that do not come.
    pub patience: Duration,
}

/// Asks the service for the tokens of requests.
#[derive(Debug)]
pub struct SocketBackend(Arc<Service>);

#[derive(Debug)]
struct Service {
    settings: SocketSettings,
    /// Made with the first call: it needs a runtime.
    channel: Mutex<Option<Channel>>,
    initialized: AtomicBool,
}

impl SocketBackend {
    /// A backend. Nothing is sent yet.
    pub fn new(settings: SocketSettings) -> Self {
        let (channel, initialized) = (Mutex::new(None), AtomicBool::new(false));
        Self(Arc::new(Service { settings, channel, initialized }))
    }

    fn ask(&self, question: Question) -> Preparing {
        let service = Arc::clone(&self.0);
        let media = matches!(&question, Question::Chat(chat) if chat.has_media());
        let limit = if media { service.settings.media_timeout } else { service.settings.timeout };
        Box::pin(async move {
            match tokio::time::timeout(limit, service.answer(question)).await {
                Ok(answer) => answer,
                Err(_) => Err(PrepareError::Failed(format!("no answer within {limit:?}"))),
            }
        })
    }
}

impl Service {
    fn channel(&self) -> Result<Channel, PrepareError> {
        let mut channel = self.channel.lock();
        if let Some(channel) = &*channel {
            return Ok(channel.clone());
        }
        let SocketSettings { address, tcp, .. } = &self.settings;
        let uri = if *tcp { format!("http://{address}") } else { "http://tokenizer".to_owned() };
        let fault = |error: tonic::transport::Error| PrepareError::Failed(error.to_string());
        let endpoint = Endpoint::from_shared(uri).map_err(fault)?.connect_timeout(Duration::from_secs(5));
        let made = if *tcp {
            endpoint.connect_lazy()
        } else {
            endpoint.connect_with_connector_lazy(Socket::from(address.as_str()))
        };
        *channel = Some(made.clone());
        Ok(made)
    }

    async fn answer(&self, question: Question) -> Result<Prepared, PrepareError> {
        if !self.initialized.load(Relaxed) {
            let model_name = self.settings.model.clone();
            let ask = InitializeQuestion { model_name, enable_thinking: false, add_generation_prompt: true };
            let Initialized { success, error_message } = self.call(INITIALIZE, ask).await?;
            if !success {
                return Err(PrepareError::Failed(format!("the tokenizer does not start: {error_message}")));
            }
            self.initialized.store(true, Relaxed);
        }
        let rendered: Rendered = match question {
            Question::Completion(completion) => {
                let answer: super::chat_message::RenderedCompletion =
                    self.call(COMPLETION, completion).await?;
                answer.into()
            }
            Question::Chat(chat) => self.call(CHAT, chat).await?,
        };
        rendered
            .tokens()
            .map(|tokens| Prepared { tokens: Some(tokens), ..Prepared::default() })
            .map_err(PrepareError::Refused)
    }

    async fn call<Q, A>(&self, path: &'static str, question: Q) -> Result<A, PrepareError>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let fault = |error: &dyn std::fmt::Display| PrepareError::Failed(format!("{path}: {error}"));
        let mut grpc = Grpc::new(self.channel()?).max_decoding_message_size(LONGEST_ANSWER);
        grpc.ready().await.map_err(|error| fault(&error))?;
        let path_and_query = PathAndQuery::from_static(path);
        let answer = grpc.unary(tonic::Request::new(question), path_and_query, ProstCodec::default()).await;
        answer.map(tonic::Response::into_inner).map_err(|status| match status.code() {
            tonic::Code::InvalidArgument => PrepareError::Refused(status.message().to_owned()),
            _ => fault(&status),
        })
    }
}

impl Preparer for SocketBackend {
    fn limits(&self) -> PrepareLimits {
        let SocketSettings { timeout, media_timeout, patience, .. } = self.0.settings;
        PrepareLimits { timeout: timeout.max(media_timeout), patience, concurrent: CONCURRENT }
    }

    fn prepare(&self, call: &PrepareCall<'_>) -> Option<Preparing> {
        question(call.inference, call.body, &self.0.settings.model).map(|question| self.ask(question))
    }

    fn probe(&self) -> Preparing {
        let model_name = self.0.settings.model.clone();
        self.ask(Question::Completion(CompletionQuestion { model_name, prompt: "probe".to_owned() }))
    }
}

/// Connects to a socket, whatever address is asked for.
#[derive(Clone, Debug)]
struct Socket(Arc<std::path::Path>);

impl From<&str> for Socket {
    fn from(path: &str) -> Self {
        Self(std::path::Path::new(path).into())
    }
}

impl tower_service::Service<Uri> for Socket {
    type Response = TokioIo<UnixStream>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = std::io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let path = Arc::clone(&self.0);
        Box::pin(async move { UnixStream::connect(path).await.map(TokioIo::new) })
    }
}
