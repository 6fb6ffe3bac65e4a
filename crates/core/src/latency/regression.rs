//! Linear regression that learns one sample at a time and forgets.
//!
//! The method is recursive least squares with exponential forgetting (Haykin, "Adaptive Filter Theory", chapter on the
//! RLS algorithm). With the features `x`, the observed value `y`, the covariance `P` and the forgetting factor `λ`:
//!
//! ```text
//! k = P·x / (λ/ω + xᵀ·P·x)      w ← w + k·(y − wᵀ·x)      P ← (P − k·xᵀ·P) / λ
//! ```
//!
//! `ω` is the weight of the sample. It falls with the distance of the sample from the prediction (Huber's weights). A
//! single request that stood still for a minute therefore changes the model little.

/// Variance of a weight before the first sample. Features are scaled so that weights are as large as the values.
const WIDE: f64 = 1e6;

/// A residual counts in full up to this many typical residuals, and counts less above.
const HUBER: f64 = 3.0;

/// Number of consecutive residuals, all above the typical one and of the same sign, after which the past no longer
/// counts.
const RUN_OF_SURPRISES: i32 = 8;

/// A linear model of `N` features.
#[derive(Clone, Debug)]
pub struct Regression<const N: usize> {
    weights: [f64; N],
    covariance: [[f64; N]; N],
    /// Typical size of a residual, as a share of the value; 0 before the first sample.
    spread: f64,
    /// Surprises in a row: positive if the values were higher than predicted.
    surprises: i32,
    samples: u64,
    /// Samples of the model from which this model started.
    inherited: u64,
}

impl<const N: usize> Default for Regression<N> {
    fn default() -> Self {
        Self {
            weights: [0.0; N],
            covariance: diagonal(WIDE),
            spread: 0.0,
            surprises: 0,
            samples: 0,
            inherited: 0,
        }
    }
}

fn diagonal<const N: usize>(value: f64) -> [[f64; N]; N] {
    std::array::from_fn(|row| std::array::from_fn(|column| if row == column { value } else { 0.0 }))
}

fn dot<const N: usize>(a: &[f64; N], b: &[f64; N]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

impl<const N: usize> Regression<N> {
    /// A model that starts from what `other` has learned, and replaces it by its own samples.
    #[must_use]
    pub fn after(other: &Self) -> Self {
        // Endpoints differ by a factor more than by a fixed amount.
        let mut covariance = diagonal(0.0);
        for (index, weight) in other.weights.iter().enumerate() {
            covariance[index][index] = (weight * weight + 100.0).min(WIDE);
        }
        Self { weights: other.weights, covariance, inherited: other.experience(), ..Self::default() }
    }

    /// Samples so far.
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// Samples so far, together with those of the model from which it started.
    pub fn experience(&self) -> u64 {
        self.samples.saturating_add(self.inherited)
    }

    /// The value for these features. It may be negative if no sample had similar features.
    pub fn predict(&self, features: &[f64; N]) -> f64 {
        dot(&self.weights, features)
    }

    /// Learns that `features` gave `value`, which must be above 0. `keep` in 0..=1 is the share of the past that still
    /// counts. Samples that are not finite numbers are skipped.
    pub fn learn(&mut self, features: &[f64; N], value: f64, keep: f64) {
        if !value.is_finite() || value <= 0.0 || features.iter().any(|feature| !feature.is_finite()) {
            return;
        }
        let residual = value - self.predict(features);
        // A relative error counts the same for short and for long waits.
        let share = residual / value.max(self.predict(features)).max(1.0);
        self.note_surprise(share);
        let distance = share.abs() / self.spread.max(0.02);
        let robust = if self.samples < N as u64 * 2 || distance <= HUBER { 1.0 } else { HUBER / distance };
        let weight = robust / value.max(1.0).powi(2) * 100.0;
        let keep = keep.clamp(0.5, 1.0);
        let projected: [f64; N] = std::array::from_fn(|row| dot(&self.covariance[row], features));
        let scale = keep / weight + dot(&projected, features);
        if !scale.is_finite() || scale <= 0.0 {
            *self = Self::default();
            return;
        }
        for (row, projection) in projected.iter().enumerate() {
            let gain = projection / scale;
            self.weights[row] += gain * residual;
            for (column, other) in projected.iter().enumerate() {
                let reduced = (self.covariance[row][column] - gain * other) / keep;
                self.covariance[row][column] = reduced;
            }
        }
        self.bound();
        self.spread += (share.abs() - self.spread) / (self.samples as f64 + 1.0).min(50.0);
        self.samples += 1;
    }

    /// Counts surprises. Eight consecutive samples on one side, each off by more than usual and by more than a tenth,
    /// mean that the endpoint has changed. What was learned stays the best guess, but each new sample may change it
    /// much.
    fn note_surprise(&mut self, share: f64) {
        let usual = self.spread.max(0.1);
        self.surprises = match (share > usual, share < -usual) {
            (true, _) => self.surprises.max(0) + 1,
            (_, true) => self.surprises.min(0) - 1,
            _ => 0,
        };
        if self.surprises.abs() >= RUN_OF_SURPRISES {
            self.surprises = 0;
            self.covariance = diagonal(WIDE);
            self.spread = 0.5;
        }
    }

    /// Bounds the covariance. Forgetting widens it in directions that no sample has; it never gets wider than at the
    /// start.
    fn bound(&mut self) {
        let widest = (0..N).map(|index| self.covariance[index][index]).fold(0.0, f64::max);
        if !widest.is_finite() || self.weights.iter().any(|weight| !weight.is_finite()) {
            *self = Self::default();
        } else if widest > WIDE {
            self.covariance.iter_mut().flatten().for_each(|cell| *cell *= WIDE / widest);
        }
    }
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;
    use proptest::prelude::*;

    use super::*;

    fn sample(rng: &mut Rng) -> [f64; 3] {
        [1.0, rng.f64() * 10.0, rng.f64() * 4.0]
    }

    fn truth(features: &[f64; 3], factor: f64) -> f64 {
        factor * (20.0 + 60.0 * features[1] + 15.0 * features[2])
    }

    fn error(model: &Regression<3>, rng: &mut Rng, factor: f64) -> f64 {
        let errors = (0..200).map(|_| {
            let features = sample(rng);
            let value = truth(&features, factor);
            (model.predict(&features) - value).abs() / value
        });
        errors.sum::<f64>() / 200.0
    }

    #[test]
    fn a_linear_relation_is_found_in_spite_of_noise_and_outliers() {
        let (mut model, mut rng) = (Regression::<3>::default(), Rng::with_seed(5));
        for round in 0..200 {
            let features = sample(&mut rng);
            let noise = 0.8 + 0.4 * rng.f64();
            let outlier = if round % 25 == 24 { 30.0 } else { 1.0 };
            model.learn(&features, truth(&features, noise * outlier), 0.99);
        }
        let error = error(&model, &mut rng, 1.0);
        assert!(error < 0.25, "{error}");
    }

    #[test]
    fn an_endpoint_that_gets_half_as_fast_is_relearned_within_sixty_samples() {
        let (mut model, mut rng) = (Regression::<3>::default(), Rng::with_seed(6));
        for factor in [1.0, 2.0, 0.7] {
            for _ in 0..60 {
                let features = sample(&mut rng);
                model.learn(&features, truth(&features, factor * (0.9 + 0.2 * rng.f64())), 0.99);
            }
            let error = error(&model, &mut rng, factor);
            assert!(error < 0.15, "{factor}: {error}");
        }
    }

    #[test]
    fn a_model_that_follows_another_predicts_like_it_until_it_has_seen_something() {
        let (mut model, mut rng) = (Regression::<3>::default(), Rng::with_seed(7));
        for _ in 0..100 {
            let features = sample(&mut rng);
            model.learn(&features, truth(&features, 1.0), 1.0);
        }
        let mut follower = Regression::after(&model);
        assert!(error(&follower, &mut rng, 1.0) < 0.05);
        for _ in 0..40 {
            let features = sample(&mut rng);
            follower.learn(&features, truth(&features, 3.0), 0.99);
        }
        let error = error(&follower, &mut rng, 3.0);
        assert!(error < 0.15, "{error}");
    }

    proptest! {
        #[test]
        fn whatever_is_learned_predictions_are_numbers(
            samples in proptest::collection::vec((any::<[f64; 3]>(), any::<f64>(), any::<f64>()), 0..60),
            ask in any::<[f32; 3]>(),
        ) {
            let mut model = Regression::<3>::default();
            for (features, value, keep) in samples {
                let features = features.map(|feature| feature % 1e6);
                model.learn(&features, value % 1e9, if keep.is_nan() { 1.0 } else { keep });
            }
            let ask = ask.map(|feature| f64::from(feature) % 1e6);
            prop_assume!(ask.iter().all(|feature| feature.is_finite()));
            prop_assert!(model.predict(&ask).is_finite());
        }
    }
}
