//! What would become of a request if it came now. Nothing is booked: it waits for nothing in a queue, takes no lease,
//! runs no hook that an index learns from, and leaves no record.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use fastrand::Rng;

use super::course::Course;
use super::handle::refuse;
use super::prepare::Preparation;
use super::request_body::Unparsed;
use super::{AdmissionCall, Ask, Director, Outlook, Refusal, retry};
use crate::clock;
use crate::decisions::DecisionView;
use crate::prefix::ToldPrompt;
use crate::request;
use crate::scheduling::{Call, Decision, Finding};

/// The decision that a request would get.
#[derive(Clone, Debug)]
pub struct DryRun {
    /// Its record.
    pub view: DecisionView,
    /// It would wait in a queue first.
    pub would_wait: bool,
    /// How long, as far as that can be said.
    pub queue_wait: Duration,
}

impl Director {
    /// Decides a request for nobody. `told` says what stands for its prompt where the text is not at hand: then the body
    /// only has its size.
    pub async fn dry_run(&self, ask: Ask, told: Option<ToldPrompt>) -> DryRun {
        let sequence = self.sequence.load(Relaxed);
        let seed = self.seed_of(sequence);
        let mut rng = Rng::with_seed(seed);
        let mut course = Course::dry(self, sequence, seed, clock::now());
        let mut outlook = Outlook::default();
        let result = self.try_out(ask, told, &mut course, &mut rng, &mut outlook).await;
        let queue_wait = if outlook.would_wait {
            let ahead = outlook.ahead.saturating_add(1);
            self.pace.time_for(ahead, clock::now()).unwrap_or(retry::DEFAULT_WAIT)
        } else {
            Duration::ZERO
        };
        DryRun { view: course.tried(result.as_ref()), would_wait: outlook.would_wait, queue_wait }
    }

    /// The steps of a request that leave nothing behind.
    async fn try_out(
        &self,
        ask: Ask,
        told: Option<ToldPrompt>,
        course: &mut Course,
        rng: &mut Rng,
        outlook: &mut Outlook,
    ) -> Result<Decision, Refusal> {
        let Ask { headers, body, body_seen, hint } = ask;
        let path = request::routing_path(&headers);
        let unparsed = Unparsed { path: &path, headers: &headers, body: &body, seen: body_seen };
        let read = self.read(unparsed).await?;
        let mut request = self.understand(&headers, read, rng)?;
        course.labels = request.labels();
        let subset = self.subset(hint)?;
        let preparation = match &told {
            // What has no text cannot be asked about.
            Some(_) => Preparation::default(),
            None => self.prepare(&request, unparsed, true),
        };
        if let Some(admission) = &self.parts.admission {
            *outlook = admission.outlook(&AdmissionCall {
                headers: &headers,
                priority: request.priority,
                fairness_id: &request.fairness_id,
                model: &request.incoming_model,
                target_model: &request.target_model,
                size: body.len() as u64,
                tokens: told.as_ref().map(|told| told.tokens).or_else(|| preparation.token_count()),
                received: clock::now(),
                subset: subset.as_ref(),
                pool: &self.parts.pool,
            });
            if let Some(refusal) = outlook.refusal.take() {
                return Err(refusal);
            }
        }
        let began = course.now();
        (request.tokens, request.findings) = preparation.finish().await;
        course.prepared(&request, began);
        if let Some(told) = told {
            course.counted(told.tokens);
            request.findings.push(Finding::new(told));
        }
        let now = clock::now();
        let view = request.view(&headers, &self.parts.media);
        let candidates = self.screened(self.candidates(subset.as_ref())?, view, now, rng)?;
        let everyone = candidates.slots();
        let columns = self.produce(view, now, &candidates, &everyone);
        let call = Call::new(view, now, &candidates, &everyone, &columns);
        self.admit_scheduling(&call, rng)?;
        course.candidates(self, &candidates, &columns, now);
        let scheduler = &self.parts.scheduler;
        let mut decision = scheduler
            .schedule_recorded(&call, rng, None, course.recorder())
            .map_err(|error| refuse(&error))?;
        if let Some(bindings) = self.bindings.as_ref().filter(|_| !decision.answers_for_a_stage())
            && let Some(key) = bindings.referred(&path, &request.body.inference, &request.body.plain)
        {
            bindings.try_out(key, &candidates, &mut decision);
        }
        self.require_cached(&headers, &decision, &columns, &candidates)?;
        Ok(decision)
    }
}
