//! A request once its body and headers are read.

use fastrand::Rng;
use smallvec::SmallVec;

use super::prepare::HeldTokens;
use super::request_body::{RequestBody, Unparsed};
use super::{Refusal, Routed, objective};
use crate::decisions::Known;
use crate::metrics::RequestLabels;
use crate::request::{Headers, MediaEstimate, cut};
use crate::scheduling::{Finding, PrepareCall, RequestView};

/// The facts about a request once its body and headers are read.
pub(super) struct Understood {
    pub(super) id: String,
    pub(super) id_is_new: bool,
    pub(super) body: RequestBody,
    pub(super) target_model: String,
    pub(super) incoming_model: String,
    /// The body is forwarded with another model than it came with.
    pub(super) rewrites: bool,
    /// The path as it is forwarded, if the model in its query changed.
    pub(super) new_path: Option<Vec<u8>>,
    pub(super) priority: i32,
    pub(super) fairness_id: String,
    /// The exact tokens, where somebody made them in time.
    pub(super) tokens: Option<HeldTokens>,
    /// What preparers found out for their own producers.
    pub(super) findings: SmallVec<[Finding; 1]>,
}

/// A request's labels, kept for the end.
#[derive(Default)]
pub(super) struct LabelText {
    pub(super) id: String,
    model: String,
    target_model: String,
    fairness_id: String,
    priority: i32,
}

impl LabelText {
    /// The body could not be read; this is the model that a header asks for.
    pub(super) fn asked_for(&mut self, target_model: Option<String>) {
        self.target_model = target_model.unwrap_or_default();
    }

    /// One line about the request, for those who want one.
    pub(super) fn log<X>(&self, result: &Result<Routed<X>, Refusal>) {
        let Self { id, model, target_model, priority, .. } = self;
        match result {
            Ok(routed) => tracing::debug!(
                request_id = id,
                model,
                target_model,
                priority,
                destination = %String::from_utf8_lossy(&routed.destination),
                "request routed"
            ),
            Err(refusal) => tracing::debug!(
                request_id = id,
                model,
                target_model,
                priority,
                reason = refusal.reason.label(),
                error = %refusal,
                "request refused"
            ),
        }
    }

    /// The same for its record.
    pub(super) fn known(&self) -> Known {
        let kept = |text: &String| cut(text, MAX_REQUEST_ID).to_owned();
        Known {
            id: kept(&self.id),
            model: kept(&self.model),
            target_model: kept(&self.target_model),
            fairness_id: self.borrow().fairness_id.to_owned(),
            priority: self.priority,
            ..Known::default()
        }
    }

    /// Priority of the request; 0 as long as it is not known.
    pub(super) fn priority(&self) -> i32 {
        self.priority
    }

    pub(super) fn borrow(&self) -> RequestLabels<'_> {
        let fairness_id =
            if self.fairness_id.is_empty() { objective::DEFAULT_FLOW } else { &self.fairness_id };
        RequestLabels {
            model: &self.model,
            target_model: &self.target_model,
            fairness_id,
            priority: self.priority,
        }
    }
}

impl Understood {
    pub(super) fn labels(&self) -> LabelText {
        LabelText {
            id: self.id.clone(),
            model: self.incoming_model.clone(),
            target_model: self.target_model.clone(),
            fairness_id: self.fairness_id.clone(),
            priority: self.priority,
        }
    }

    /// Tokens of the prompts: exact where they are known, else estimated.
    pub(super) fn prompt_tokens(&self) -> u64 {
        let estimate = || estimated_tokens(self.body.plain.len() as u64);
        self.tokens.as_ref().map_or_else(estimate, |held| held.tokens.count())
    }

    /// The view of the request that a preparer gets.
    pub(super) fn prepare_call<'a>(
        &'a self,
        unparsed: Unparsed<'a>,
        media: &'a MediaEstimate,
        dry_run: bool,
    ) -> PrepareCall<'a> {
        let Unparsed { path, headers, .. } = unparsed;
        PrepareCall {
            id: &self.id,
            target_model: &self.target_model,
            path,
            headers,
            body: &self.body.plain,
            inference: &self.body.inference,
            media,
            dry_run,
        }
    }

    pub(super) fn view<'a>(&'a self, headers: &'a Headers, media: &'a MediaEstimate) -> RequestView<'a> {
        RequestView {
            id: &self.id,
            target_model: &self.target_model,
            headers,
            body: &self.body.plain,
            inference: &self.body.inference,
            media,
            tokens: self.tokens.as_ref().map(|held| &held.tokens),
            findings: &self.findings,
            priority: self.priority,
            fairness_id: &self.fairness_id,
        }
    }
}

/// Estimated tokens of a body: four bytes each.
pub(super) fn estimated_tokens(body_bytes: u64) -> u64 {
    body_bytes / 4
}

/// Longest request id that is kept, in bytes. A longer one goes on as it came; logs, traces and plugins see its
/// beginning.
const MAX_REQUEST_ID: usize = 256;

/// A given request id, as far as it is kept.
pub(super) fn kept_request_id(given: &[u8]) -> String {
    let given = given.get(..MAX_REQUEST_ID).unwrap_or(given);
    cut(&String::from_utf8_lossy(given), MAX_REQUEST_ID).to_owned()
}

/// A random UUID, version 4.
pub(super) fn new_request_id(rng: &mut Rng) -> String {
    let bits = (rng.u128(..) & !(0xf000_u128 << 64) & !(0xc000_u128 << 48))
        | (0x4000_u128 << 64)
        | (0x8000_u128 << 48);
    let hex = format!("{bits:032x}");
    let mut id = String::with_capacity(36);
    for (index, digit) in hex.chars().enumerate() {
        if matches!(index, 8 | 12 | 16 | 20) {
            id.push('-');
        }
        id.push(digit);
    }
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_long_request_id_the_beginning_is_kept() {
        assert_eq!(kept_request_id(b"r-1"), "r-1");
        assert_eq!(kept_request_id(&vec![b'r'; 60_000]), "r".repeat(MAX_REQUEST_ID));
        assert!(kept_request_id(&vec![0xff; 60_000]).len() <= MAX_REQUEST_ID);
    }

    #[test]
    fn a_new_request_id_is_a_version_4_uuid() {
        let id = new_request_id(&mut Rng::with_seed(7));
        let groups: Vec<_> = id.split('-').map(str::len).collect();
        assert_eq!(groups, [8, 4, 4, 4, 12]);
        assert_eq!(&id[14..15], "4");
        assert!("89ab".contains(&id[19..20]), "{id}");
    }
}
