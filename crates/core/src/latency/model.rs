//! The models of a pool, of the types of its endpoints, and of each endpoint.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;

use super::features::{BETWEEN, FIRST, Situation};
use super::judge::Judge;
use super::regression::Regression;

/// Samples after which a model is used on its own. The samples of the model from which it started count as well.
const OWN: u64 = 20;

/// Time after which a sample counts for a third.
const MEMORY: Duration = Duration::from_mins(2);

/// Most types of endpoints that have a model.
const MAX_TYPES: usize = 64;

/// Most endpoints that have a model. Further endpoints share the models of their types.
const MAX_ENDPOINTS: usize = 16_384;

/// When there are too many models, those that were not used for this long are removed.
const UNUSED: Duration = Duration::from_mins(30);

/// Longest latency that is predicted, in milliseconds: an hour.
const LONGEST: f64 = 3_600_000.0;

/// The kind of a latency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LatencyKind {
    /// From the forwarding of a request to the first byte of its answer.
    FirstToken,
    /// Between two tokens of an answer.
    BetweenTokens,
}

/// The identity of an endpoint's model.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The endpoint's incarnation.
    pub endpoint: u64,
    /// Its type: the value of a label, empty without one.
    pub kind: Arc<str>,
}

/// How well a kind of latency is predicted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Standing {
    /// True if predictions are given out.
    pub in_force: bool,
    /// Mean absolute error as a share of the mean latency; `None` before there are enough samples.
    pub error: Option<f64>,
    /// Number of samples of the whole pool.
    pub samples: u64,
}

/// One kind of latency, predicted for all endpoints.
#[derive(Debug)]
struct Models<const N: usize> {
    pool: Regression<N>,
    types: HashMap<Arc<str>, Regression<N>>,
    endpoints: HashMap<u64, Own<N>>,
    judge: Judge,
    last: Option<Instant>,
}

#[derive(Debug)]
struct Own<const N: usize> {
    model: Regression<N>,
    last: Instant,
}

impl<const N: usize> Default for Models<N> {
    fn default() -> Self {
        Self {
            pool: Regression::default(),
            types: HashMap::new(),
            endpoints: HashMap::new(),
            judge: Judge::default(),
            last: None,
        }
    }
}

/// The share of past samples that still counts after this time.
fn kept(last: Option<Instant>, now: Instant) -> f64 {
    let passed = last.map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
    (-passed.as_secs_f64() / MEMORY.as_secs_f64()).exp()
}

/// A new model. It starts from the first of the other models that has learned enough, or from nothing.
fn begun<'m, const N: usize>(others: impl IntoIterator<Item = &'m Regression<N>>) -> Regression<N> {
    let known = others.into_iter().find(|other| other.experience() >= OWN);
    known.map_or_else(Regression::default, Regression::after)
}

impl<const N: usize> Models<N> {
    /// Predicted milliseconds for these features; `None` while no model has learned enough.
    fn predict(&self, endpoint: u64, kind: &str, features: &[f64; N]) -> Option<f64> {
        let own = self.endpoints.get(&endpoint).map(|own| &own.model);
        let known = |model: &&Regression<N>| model.experience() >= OWN;
        let model = own
            .filter(known)
            .or_else(|| self.types.get(kind).filter(known))
            .or_else(|| Some(&self.pool).filter(known))?;
        Some(model.predict(features).clamp(0.1, LONGEST))
    }

    fn learn(
        &mut self,
        place: &Place,
        features: &[f64; N],
        value: f64,
        predicted: Option<f64>,
        now: Instant,
    ) {
        self.judge.note(predicted, value);
        let keep = kept(self.last.replace(now), now);
        self.pool.learn(features, value, keep);
        if self.types.len() < MAX_TYPES || self.types.contains_key(&place.kind) {
            let pool = &self.pool;
            self.types
                .entry(Arc::clone(&place.kind))
                .or_insert_with(|| begun([pool]))
                .learn(features, value, keep);
        }
        if self.endpoints.len() >= MAX_ENDPOINTS && !self.endpoints.contains_key(&place.endpoint) {
            self.endpoints.retain(|_, own| now.saturating_duration_since(own.last) < UNUSED);
            if self.endpoints.len() >= MAX_ENDPOINTS {
                return;
            }
        }
        let parents = self.types.get(&place.kind).into_iter().chain([&self.pool]);
        let own =
            self.endpoints.entry(place.endpoint).or_insert_with(|| Own { model: begun(parents), last: now });
        own.model.learn(features, value, kept(Some(own.last), now));
        own.last = now;
    }

    fn standing(&self) -> Standing {
        Standing { in_force: self.judge.believes(), error: self.judge.error(), samples: self.pool.samples() }
    }
}

/// Both kinds of latency, predicted for all endpoints of a pool. Memory: about 700 bytes for each endpoint.
#[derive(Debug, Default)]
pub struct Latencies {
    first: Models<FIRST>,
    between: Models<BETWEEN>,
}

impl Latencies {
    /// The model's prediction for this endpoint, in milliseconds, whether or not the model is better than the mean.
    /// `None` while no model has learned enough.
    pub fn guess(
        &self,
        kind: LatencyKind,
        endpoint: u64,
        of_type: &str,
        situation: &Situation,
    ) -> Option<f64> {
        match kind {
            LatencyKind::FirstToken => self.first.predict(endpoint, of_type, &situation.first()),
            LatencyKind::BetweenTokens => self.between.predict(endpoint, of_type, &situation.between()),
        }
    }

    /// Learns a latency of `value` milliseconds. `predicted` is the guess from the time of the decision.
    pub fn learn(
        &mut self,
        kind: LatencyKind,
        place: &Place,
        situation: &Situation,
        value: f64,
        predicted: Option<f64>,
        now: Instant,
    ) {
        if !value.is_finite() || value <= 0.0 || value > LONGEST {
            return;
        }
        match kind {
            LatencyKind::FirstToken => self.first.learn(place, &situation.first(), value, predicted, now),
            LatencyKind::BetweenTokens => {
                self.between.learn(place, &situation.between(), value, predicted, now);
            }
        }
    }

    /// How well a kind of latency is predicted.
    pub fn standing(&self, kind: LatencyKind) -> Standing {
        match kind {
            LatencyKind::FirstToken => self.first.standing(),
            LatencyKind::BetweenTokens => self.between.standing(),
        }
    }
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::*;

    fn place(endpoint: u64, kind: &str) -> Place {
        Place { endpoint, kind: kind.into() }
    }

    fn situation(rng: &mut Rng) -> Situation {
        Situation {
            uncached_tokens: rng.f64() * 8000.0,
            queued_tokens: rng.f64() * 20_000.0,
            running: rng.f64() * 30.0,
            waiting: rng.f64() * 4.0,
            kv_usage: rng.f64(),
        }
    }

    /// A server that prefills 10 tokens a millisecond times `speed`.
    fn truth(situation: &Situation, speed: f64) -> f64 {
        (15.0 + (situation.uncached_tokens + situation.queued_tokens) / 10.0 + situation.running) / speed
    }

    /// Serves `requests` at one a tenth of a second; the mean relative error of what was guessed for the last half.
    fn serve(
        latencies: &mut Latencies,
        rng: &mut Rng,
        at: &Place,
        speed: f64,
        requests: u32,
        from: Instant,
    ) -> (f64, Instant) {
        let (mut sum, mut count, mut now) = (0.0, 0_u32, from);
        for index in 0..requests {
            now += Duration::from_millis(100);
            let situation = situation(rng);
            let value = truth(&situation, speed) * (0.85 + 0.3 * rng.f64());
            let guess = latencies.guess(LatencyKind::FirstToken, at.endpoint, &at.kind, &situation);
            if index >= requests / 2
                && let Some(guess) = guess
            {
                sum += (guess - value).abs() / value;
                count += 1;
            }
            latencies.learn(LatencyKind::FirstToken, at, &situation, value, guess, now);
        }
        (sum / f64::from(count), now)
    }

    #[test]
    fn each_endpoint_is_known_within_a_quarter_after_two_hundred_requests_and_again_a_minute_after_it_slowed_down()
     {
        let (mut latencies, mut rng, mut now) = (Latencies::default(), Rng::with_seed(3), Instant::now());
        for (endpoint, speed) in [(1, 1.0), (2, 0.4), (3, 2.5)] {
            let (error, then) = serve(&mut latencies, &mut rng, &place(endpoint, ""), speed, 200, now);
            now = then;
            assert!(error < 0.25, "{endpoint}: {error}");
        }
        assert!(latencies.standing(LatencyKind::FirstToken).in_force);
        // 600 requests are a minute; the second half of it counts.
        let (error, _) = serve(&mut latencies, &mut rng, &place(1, ""), 0.5, 600, now);
        assert!(error < 0.25, "{error}");
    }

    #[test]
    fn a_new_endpoint_borrows_the_model_of_its_type() {
        let (mut latencies, mut rng, now) = (Latencies::default(), Rng::with_seed(4), Instant::now());
        assert_eq!(latencies.guess(LatencyKind::FirstToken, 1, "a", &Situation::default()), None);
        let (_, now) = serve(&mut latencies, &mut rng, &place(1, "fast"), 4.0, 200, now);
        serve(&mut latencies, &mut rng, &place(2, "slow"), 1.0, 200, now);
        for (kind, speed) in [("fast", 4.0), ("slow", 1.0)] {
            let ask = Situation {
                uncached_tokens: 4000.0,
                queued_tokens: 10_000.0,
                running: 15.0,
                ..Situation::default()
            };
            let guess = latencies.guess(LatencyKind::FirstToken, 9, kind, &ask).unwrap();
            let value = truth(&ask, speed);
            assert!((guess - value).abs() < 0.25 * value, "{kind}: {guess} instead of {value}");
        }
    }

    #[test]
    fn latencies_that_follow_no_figure_are_not_predicted() {
        let (mut latencies, mut rng, mut now) = (Latencies::default(), Rng::with_seed(5), Instant::now());
        for _ in 0..400 {
            now += Duration::from_millis(50);
            let situation = situation(&mut rng);
            let guess = latencies.guess(LatencyKind::FirstToken, 1, "", &situation);
            let value = if rng.bool() { 1000.0 } else { 10.0 };
            latencies.learn(LatencyKind::FirstToken, &place(1, ""), &situation, value, guess, now);
        }
        assert!(!latencies.standing(LatencyKind::FirstToken).in_force);
    }

    #[test]
    fn impossible_latencies_teach_nothing() {
        let mut latencies = Latencies::default();
        for value in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e12] {
            let now = Instant::now();
            latencies.learn(
                LatencyKind::BetweenTokens,
                &place(1, ""),
                &Situation::default(),
                value,
                None,
                now,
            );
        }
        assert_eq!(latencies.standing(LatencyKind::BetweenTokens).samples, 0);
    }
}
