//! What plugins may say of a request on its way to the cycle: whose it is, which endpoints may serve it at all, and
//! whether it is served now.

use std::borrow::Cow;
use std::sync::Arc;

use fastrand::Rng;

use super::{Call, Mask, ProfilePlugin};
use crate::request::Headers;

/// Names the flow of a request whose client names none.
pub trait FlowNamer: Send + Sync {
    /// The fairness id that the headers tell, if they tell one. It may be of any length.
    fn flow<'h>(&self, headers: &'h Headers) -> Option<Cow<'h, str>>;
}

/// Rules candidates out for all profiles, before producers and filters see them.
pub trait Screener: Send + Sync {
    /// Clears the bit of each candidate that must not serve the request. `call` has all candidates and no columns;
    /// `keep` has one bit per position of it, all set. If several screeners leave nobody together, the request is
    /// refused.
    fn screen(&self, call: &Call<'_>, rng: &mut Rng, keep: &mut Mask);
}

/// Says whether a request is served now.
pub trait Admitter: Send + Sync {
    /// `Err` refuses the request as one too many, with the reason for its client. `call` has all candidates, never
    /// none, and the columns of all producers.
    fn admit(&self, call: &Call<'_>, rng: &mut Rng) -> Result<(), String>;
}

/// The plugins of the way to the cycle, each kind in document order.
#[derive(Debug, Default)]
pub struct Entry {
    /// Those that name flows; the first that knows a name counts.
    pub flow_namers: Vec<ProfilePlugin<dyn FlowNamer>>,
    /// Those that rule candidates out; a candidate stays if all of them leave it.
    pub screeners: Vec<ProfilePlugin<dyn Screener>>,
    /// Those that refuse requests; one refusal is enough.
    pub admitters: Vec<ProfilePlugin<dyn Admitter>>,
}

impl Entry {
    /// The fairness id of a request that names none; never empty.
    pub fn flow<'h>(&self, headers: &'h Headers) -> Option<Cow<'h, str>> {
        let mut names = self.flow_namers.iter().filter_map(|namer| namer.call(|namer| namer.flow(headers)));
        names.find(|name| !name.is_empty())
    }

    /// The candidates that all screeners leave; `None` if there are no screeners.
    pub fn screen(&self, call: &Call<'_>, rng: &mut Rng) -> Option<Mask> {
        let (first, others) = self.screeners.split_first()?;
        let mut left = Mask::full(call.len());
        first.call(|screener| screener.screen(call, rng, &mut left));
        for screener in others {
            let mut keep = Mask::full(call.len());
            screener.call(|screener| screener.screen(call, rng, &mut keep));
            left.intersect(&keep);
        }
        Some(left)
    }

    /// Asks the admitters in turn. `Err` has the name of the first one that refuses, and why it does.
    pub fn admit(&self, call: &Call<'_>, rng: &mut Rng) -> Result<(), (Arc<str>, String)> {
        self.admitters.iter().try_for_each(|admitter| {
            let verdict = admitter.call(|admitter| admitter.admit(call, rng));
            verdict.map_err(|reason| (Arc::clone(&admitter.name), reason))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Instant;

    use bytes::Bytes;

    use super::*;
    use crate::pool::{EndpointId, EndpointSpec, Pool};
    use crate::request::Inference;
    use crate::scheduling::{Candidates, Columns, RequestView};

    /// Keeps the positions that it lists.
    struct Only(&'static [usize]);

    impl Screener for Only {
        fn screen(&self, call: &Call<'_>, _: &mut Rng, keep: &mut Mask) {
            (0..call.len()).filter(|position| !self.0.contains(position)).for_each(|it| keep.clear(it));
        }
    }

    /// Refuses with this text, if it has one.
    struct Refuses(Option<&'static str>);

    impl Admitter for Refuses {
        fn admit(&self, _: &Call<'_>, _: &mut Rng) -> Result<(), String> {
            self.0.map_or(Ok(()), |reason| Err(reason.to_owned()))
        }
    }

    /// Names every request so.
    struct Always(&'static str);

    impl FlowNamer for Always {
        fn flow<'h>(&self, _: &'h Headers) -> Option<Cow<'h, str>> {
            Some(self.0.into())
        }
    }

    /// Runs `look` on a call with three candidates.
    fn with_call<R>(look: impl FnOnce(&Call<'_>) -> R) -> R {
        let now = Instant::now();
        let pool = Pool::new("default", "pool", now);
        let spec = |index: u8| {
            let address = SocketAddr::from(([10, 0, 0, index], 8000));
            EndpointSpec::new(EndpointId::new("default", &format!("pod-{index}")), address)
        };
        pool.replace_endpoints((0..3).map(spec).collect());
        let candidates = Candidates::all(pool.snapshot());
        let (headers, body, inference) = (Headers::new(), Bytes::new(), Inference::opaque());
        let view = RequestView {
            id: "r",
            target_model: "m",
            headers: &headers,
            body: &body,
            inference: &inference,
            tokens: None,
            findings: &[],
            media: &crate::request::MediaEstimate::DEFAULT,
            priority: 0,
            fairness_id: "f",
        };
        look(&Call::new(view, now, &candidates, &[0, 1, 2], &Columns::new()))
    }

    #[test]
    fn a_candidate_stays_only_if_every_screener_leaves_it() {
        let left = |lists: &[&'static [usize]]| {
            let mut entry = Entry::default();
            for list in lists {
                entry.screeners.push(ProfilePlugin::new("only", "only", Arc::new(Only(list))));
            }
            let mask = with_call(|call| entry.screen(call, &mut Rng::with_seed(1)));
            mask.map(|mask| (0..3).filter(|position| mask.contains(*position)).collect::<Vec<_>>())
        };
        assert_eq!(left(&[]), None);
        assert_eq!(left(&[&[0, 2]]), Some(vec![0, 2]));
        assert_eq!(left(&[&[0, 2], &[1, 2]]), Some(vec![2]));
        assert_eq!(left(&[&[0], &[1]]), Some(vec![]));
    }

    #[test]
    fn the_first_admitter_that_refuses_says_why() {
        let verdict = |list: [Option<&'static str>; 3]| {
            let mut entry = Entry::default();
            for (name, reason) in ["a", "b", "c"].into_iter().zip(list) {
                entry.admitters.push(ProfilePlugin::new(name, "refuses", Arc::new(Refuses(reason))));
            }
            with_call(|call| entry.admit(call, &mut Rng::with_seed(1)))
        };
        assert_eq!(verdict([None; 3]), Ok(()));
        assert_eq!(verdict([None, Some("full"), Some("late")]), Err(("b".into(), "full".to_owned())));
    }

    #[test]
    fn the_first_name_of_a_flow_that_is_not_empty_counts() {
        let mut entry = Entry::default();
        assert_eq!(entry.flow(&Headers::new()), None);
        for name in ["", "x", "y"] {
            entry.flow_namers.push(ProfilePlugin::new("always", "always", Arc::new(Always(name))));
        }
        assert_eq!(entry.flow(&Headers::new()).as_deref(), Some("x"));
    }
}
