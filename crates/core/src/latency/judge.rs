//! Decides whether a model predicts better than the plain mean.

/// Samples that a model needs before its predictions are used.
const ENOUGH: u64 = 20;

/// Number of samples over which the errors are averaged.
const WINDOW: f64 = 100.0;

/// A model that is out of use is used again when its error is below this share of the mean's error.
const RETURN: f64 = 0.9;

/// Compares the errors of a model with those of the plain mean of the last values.
#[derive(Clone, Debug, Default)]
pub(super) struct Judge {
    samples: u64,
    mean: f64,
    /// Mean absolute errors, in milliseconds.
    model_error: f64,
    mean_error: f64,
    believed: bool,
}

impl Judge {
    /// Notes an observed value, and what the model had predicted for it.
    pub(super) fn note(&mut self, predicted: Option<f64>, value: f64) {
        let step = 1.0 / (self.samples as f64 + 1.0).min(WINDOW);
        if let Some(predicted) = predicted
            && self.samples > 0
        {
            self.model_error += ((predicted - value).abs() - self.model_error) * step;
            self.mean_error += ((self.mean - value).abs() - self.mean_error) * step;
        }
        self.mean += (value - self.mean) * step;
        self.samples += 1;
        let bar = if self.believed { 1.0 } else { RETURN };
        self.believed = self.samples >= ENOUGH && self.model_error <= bar * self.mean_error;
    }

    /// True if the model is better than the mean.
    pub(super) fn believes(&self) -> bool {
        self.believed
    }

    /// Mean absolute error of the model as a share of the mean value; `None` before there are enough samples.
    pub(super) fn error(&self) -> Option<f64> {
        (self.samples >= ENOUGH && self.mean > 0.0).then(|| self.model_error / self.mean)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_believed_while_it_is_better_than_the_mean() {
        let mut judge = Judge::default();
        let value = |index: u32| f64::from(index % 10) * 10.0 + 10.0;
        (0..100).for_each(|index| judge.note(Some(value(index) * 1.1), value(index)));
        assert!(judge.believes());
        assert!(judge.error().unwrap() < 0.2);
        // It predicts the wrong way round.
        (0..300).for_each(|index| judge.note(Some(120.0 - value(index)), value(index)));
        assert!(!judge.believes());
        (0..600).for_each(|index| judge.note(Some(value(index)), value(index)));
        assert!(judge.believes());
    }

    #[test]
    fn few_samples_prove_nothing() {
        let mut judge = Judge::default();
        (0..19).for_each(|_| judge.note(Some(5.0), 5.0));
        assert!(!judge.believes() && judge.error().is_none());
    }
}
