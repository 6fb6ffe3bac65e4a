//! Decides who may read the metrics port. It asks the API server who a bearer token belongs to (TokenReview), and
//! whether that user may request the path (SubjectAccessReview).

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::api::PostParams;
use kube::{Api, Client};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::access_cache::{AccessCache, Question, ReviewAnswer};
use super::access_strangers::Strangers;
use super::{Failure, told};
use crate::admin::{Access, AccessVerdict, Answer, Caller};
use crate::metrics::KubernetesMetrics;
use crate::telemetry::Repeat;

/// Longest wait for the API server.
const PATIENCE: Duration = Duration::from_secs(5);
/// The same for whoever was allowed lately: scrapers do not wait for long.
const TRUSTED_PATIENCE: Duration = Duration::from_secs(1);
/// Questions under way; invented tokens must not become a flood at the API server.
const AT_ONCE: usize = 4;
/// No page has a longer path.
const LONGEST_PATH: usize = 256;
/// No token of a service account is longer.
const LONGEST_TOKEN: usize = 16 << 10;

/// Asks the API server.
pub struct TokenReviews {
    client: Client,
    cache: Mutex<AccessCache>,
    slots: Semaphore,
    strangers: Strangers,
    trusted_slots: Semaphore,
    metrics: KubernetesMetrics,
    failures: Repeat,
}

impl std::fmt::Debug for TokenReviews {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenReviews").finish_non_exhaustive()
    }
}

impl TokenReviews {
    /// Asks by `client`. Nothing is asked yet.
    pub fn new(client: Client, metrics: KubernetesMetrics) -> Self {
        metrics.checks_access(AccessVerdict::NAMES);
        Self {
            client,
            cache: Mutex::default(),
            slots: Semaphore::new(AT_ONCE),
            strangers: Strangers::default(),
            trusted_slots: Semaphore::new(AT_ONCE),
            metrics,
            failures: Repeat::every(Duration::from_mins(1)),
        }
    }

    async fn verdict(&self, caller: Caller, now: Instant) -> AccessVerdict {
        let Some(token) = caller.token.filter(|token| token.len() <= LONGEST_TOKEN) else {
            return AccessVerdict::Unauthenticated;
        };
        if caller.path.len() > LONGEST_PATH {
            return AccessVerdict::Denied;
        }
        let origin = caller.address;
        let question = Question { token: token.into(), path: caller.path.into(), verb: caller.verb.into() };
        let (known, trusted) = {
            let cache = self.cache.lock();
            (cache.get(&question, now), cache.is_trusted(&question, now))
        };
        if let Some(decision) = known {
            return verdict(decision);
        }
        // Who was allowed lately neither queues behind strangers nor waits for long.
        let (slots, patience) =
            if trusted { (&self.trusted_slots, TRUSTED_PATIENCE) } else { (&self.slots, PATIENCE) };
        let place = if trusted { None } else { self.strangers.enter(origin) };
        if !trusted && place.is_none() {
            return AccessVerdict::Unavailable(
                "too many tokens of this address are being checked".to_owned(),
            );
        }
        let is_asked = AtomicBool::new(false);
        let asked = async {
            // The semaphores are never closed.
            let _slot = slots.acquire().await.ok();
            is_asked.store(true, Relaxed);
            self.ask(&question).await
        };
        let answer = tokio::time::timeout(patience, asked).await;
        drop(place);
        match answer {
            Ok(Ok(decision)) => {
                self.failures.reset();
                self.cache.lock().put(question, decision, now);
                verdict(decision)
            }
            Ok(Err(error)) => {
                let away = Failure::from(&error) == Failure::Unavailable;
                self.without_answer(trusted && away, trusted && away, now, &told(&error))
            }
            Err(_) => {
                // A question that was never asked says nothing of the API server, and one about an invented token
                // nothing of its answers about known ones.
                let silent = trusted && is_asked.load(Relaxed);
                self.without_answer(trusted, silent, now, "the API server did not answer in time")
            }
        }
    }

    fn without_answer(&self, trusted: bool, silent: bool, now: Instant, error: &str) -> AccessVerdict {
        if silent {
            self.cache.lock().note_silence(now);
        }
        if let Some(suppressed) = self.failures.due(now) {
            tracing::warn!(
                error,
                trusted,
                suppressed,
                "callers of the metrics port cannot be checked; the account needs create on tokenreviews and subjectaccessreviews, or \
                 --metrics-endpoint-auth=false"
            );
        }
        if trusted { AccessVerdict::Allowed } else { AccessVerdict::Unavailable(error.to_owned()) }
    }

    async fn ask(&self, question: &Question) -> kube::Result<ReviewAnswer> {
        let spec = TokenReviewSpec { token: Some(question.token.to_string()), audiences: None };
        let review = TokenReview { spec, ..TokenReview::default() };
        let review = Api::all(self.client.clone()).create(&PostParams::default(), &review).await?;
        let status = review.status.unwrap_or_default();
        let (true, Some(user)) = (status.authenticated.unwrap_or(false), status.user) else {
            return Ok(ReviewAnswer::Unauthenticated);
        };
        let review = SubjectAccessReview { spec: may(user, question), ..SubjectAccessReview::default() };
        let review = Api::all(self.client.clone()).create(&PostParams::default(), &review).await?;
        let allowed = review.status.is_some_and(|status| status.allowed);
        Ok(if allowed { ReviewAnswer::Allowed } else { ReviewAnswer::Denied })
    }
}

/// May `user` do that?
fn may(user: UserInfo, question: &Question) -> SubjectAccessReviewSpec {
    SubjectAccessReviewSpec {
        user: user.username,
        groups: user.groups,
        uid: user.uid,
        extra: user.extra,
        non_resource_attributes: Some(NonResourceAttributes {
            path: Some(question.path.to_string()),
            verb: Some(question.verb.to_string()),
        }),
        resource_attributes: None,
    }
}

fn verdict(decision: ReviewAnswer) -> AccessVerdict {
    match decision {
        ReviewAnswer::Allowed => AccessVerdict::Allowed,
        ReviewAnswer::Denied => AccessVerdict::Denied,
        ReviewAnswer::Unauthenticated => AccessVerdict::Unauthenticated,
    }
}

impl Access for TokenReviews {
    fn check(&self, caller: Caller) -> Answer<'_> {
        Box::pin(async move {
            let verdict = self.verdict(caller, Instant::now()).await;
            self.metrics.access(verdict.name());
            verdict
        })
    }
}

#[cfg(test)]
#[path = "access_tests.rs"]
mod tests;
