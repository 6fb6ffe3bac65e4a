//! A render endpoint as a preparer.

use std::sync::Arc;
use std::time::Duration;

use http::Uri;

use super::client::{NoAnswer, NoAuthorities, RenderClient};
use super::question::{self, Question};
use super::reply;
use crate::scheduling::{PrepareCall, PrepareError, PrepareLimits, Prepared, Preparer, Preparing};

/// Requests that are rendered at once.
const CONCURRENT: usize = 64;
/// Bytes of an answer beside those that the prompt and its media explain.
const ANSWER_BASE: usize = 64 << 10;
/// Bytes of an answer for each byte of the question: a byte of text is at most one token, and a token has few digits.
const ANSWER_PER_BYTE: usize = 16;
/// Bytes of an answer for media: vLLM sends pictures along as the model will see them.
const ANSWER_MEDIA: usize = 32 << 20;
/// Longest answer.
const LONGEST_ANSWER: usize = 64 << 20;
/// Answers longer than this are read on a thread for such work.
const READ_IN_PLACE: usize = 256 << 10;

/// Where a render endpoint is and how it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenderSettings {
    /// Address of the endpoint, `http` or `https`, without a path.
    pub url: Uri,
    /// The model, as the endpoint knows it.
    pub model: String,
    /// Longest time for a prompt of text.
    pub timeout: Duration,
    /// Longest time for a prompt with images, videos or sounds.
    pub media_timeout: Duration,
    /// Time that requests wait in sum for answers that do not come.
    pub patience: Duration,
}

/// Asks a render endpoint for the tokens of requests.
#[derive(Debug)]
pub struct RenderBackend {
    settings: RenderSettings,
    client: Arc<RenderClient>,
}

impl RenderBackend {
    /// A backend. Nothing is sent yet.
    pub fn new(settings: RenderSettings) -> Result<Self, NoAuthorities> {
        let client = Arc::new(RenderClient::new(&settings.url)?);
        Ok(Self { settings, client })
    }

    fn ask(&self, question: Question) -> Preparing {
        let client = Arc::clone(&self.client);
        let limit = if question.media { self.settings.media_timeout } else { self.settings.timeout };
        Box::pin(async move {
            match tokio::time::timeout(limit, answer(&client, question)).await {
                Ok(answer) => answer,
                Err(_) => Err(PrepareError::Failed(format!("no answer within {limit:?}"))),
            }
        })
    }
}

async fn answer(client: &RenderClient, question: Question) -> Result<Prepared, PrepareError> {
    let asked: usize = question.body.iter().map(bytes::Bytes::len).sum();
    let media = if question.media { ANSWER_MEDIA } else { 0 };
    let most = ANSWER_BASE.saturating_add(asked.saturating_mul(ANSWER_PER_BYTE)).saturating_add(media);
    let answer = client.post(question.path, question.body, most.min(LONGEST_ANSWER)).await;
    let answer = answer.map_err(|no_answer| match no_answer {
        NoAnswer::Refused(text) => PrepareError::Refused(text),
        NoAnswer::Failed(text) => PrepareError::Failed(text),
    })?;
    let read = if answer.len() > READ_IN_PLACE {
        tokio::task::spawn_blocking(move || reply::read(&answer))
            .await
            .unwrap_or_else(|_| Err("it cannot be read".to_owned()))
    } else {
        reply::read(&answer)
    };
    let path = question.path;
    let tokens = read.map_err(|error| PrepareError::Failed(format!("{path}: {error}")))?;
    Ok(Prepared { tokens: Some(tokens), ..Prepared::default() })
}

impl Preparer for RenderBackend {
    fn limits(&self) -> PrepareLimits {
        let RenderSettings { timeout, media_timeout, patience, .. } = self.settings;
        PrepareLimits { timeout: timeout.max(media_timeout), patience, concurrent: CONCURRENT }
    }

    fn prepare(&self, call: &PrepareCall<'_>) -> Option<Preparing> {
        question::question(call.inference, call.body, &self.settings.model).map(|question| self.ask(question))
    }

    fn probe(&self) -> Preparing {
        self.ask(question::smallest(&self.settings.model))
    }
}
