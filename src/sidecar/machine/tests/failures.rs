//! Every way in which a call may fail.

use std::time::Duration;

use super::nixl::{P, decoded, nixl, settings};
use super::support::{Got, Reply, ask, ok, play, shared};
use crate::sidecar::api::Api;
use crate::sidecar::connector::Connector;
use crate::sidecar::machine::{Leg, LegFailure, Rewrite};
use crate::sidecar::settings::{OnPrefillFailure, Settings};

#[test]
fn every_failure_of_every_call_ends_the_request_with_one_outcome_and_leaves_no_call_open() {
    let replies = [
        Reply::Fail(LegFailure::Refused),
        Reply::Fail(LegFailure::ConnectTimeout),
        Reply::Fail(LegFailure::Reset),
        Reply::Fail(LegFailure::Garbage),
        Reply::BreakOff(200),
        Reply::Answer(400, String::new()),
        Reply::Answer(503, String::new()),
        Reply::Hang,
    ];
    let policies = [OnPrefillFailure::Error, OnPrefillFailure::Next, OnPrefillFailure::Local];
    for connector in Connector::ALL {
        for (leg, reply, policy) in all(&replies, &policies) {
            let mut settings = Settings { on_prefill_failure: policy, retries: 1, ..settings(connector) };
            settings.limits.decode = Some(Duration::from_mins(10));
            let body = r#"{"cache_hit_threshold":1}"#;
            let played =
                play(&shared(settings), ask(Api::Chat, body, &[P, "10.0.0.3:8000"]), |made| match made.leg {
                    other if other == leg => reply.clone(),
                    Leg::Query => ok(r#"{"0":{"engine_id":"A"}}"#),
                    Leg::Probe => ok(r#"{"choices":[{"finish_reason":"cache_threshold"}]}"#),
                    _ => nixl(made),
                });
            let what = format!("{connector} {leg:?} {reply:?} {policy:?}");
            assert_ne!(played.got, Got::Nothing, "{what}");
            assert_eq!(played.outcomes.len(), 1, "{what}: {:?}", played.outcomes);
            let beside = played.got == decoded(Rewrite::Nothing);
            assert!(beside || played.open.is_empty(), "{what}: {:?}", played.open);
            assert!(played.took <= Duration::from_secs(1300), "{what}: {:?}", played.took);
        }
    }
}

fn all<'r>(
    replies: &'r [Reply],
    policies: &'r [OnPrefillFailure],
) -> impl Iterator<Item = (Leg, &'r Reply, OnPrefillFailure)> {
    let legs = [Leg::Query, Leg::Prefill, Leg::Probe, Leg::Decode];
    legs.into_iter().flat_map(move |leg| {
        replies.iter().flat_map(move |reply| policies.iter().map(move |policy| (leg, reply, *policy)))
    })
}
