//! `single-profile-handler`: runs the only profile there is, and its result answers. Takes no parameters.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::plugins::{PluginType, Roles, Stability};
use crate::scheduling::{Call, ProfileHandler, ProfileRun, Results, ScheduleError};

/// Registry row.
pub static TYPE: PluginType = PluginType::new("single-profile-handler", Stability::Beta, |cx| {
    cx.no_params();
    Ok(Roles::default().profile_handler(Arc::new(SingleProfile)))
})
.about(
    "Runs the only profile there is, and its result answers.",
    "Use it wherever one server serves a whole request; a configuration with one profile gets it \
         unasked. It costs nothing.",
);

/// Runs everything once.
#[derive(Debug)]
pub(super) struct SingleProfile;

impl ProfileHandler for SingleProfile {
    fn pick(&self, _call: &Call<'_>, _names: &[Arc<str>], results: &mut Results) -> SmallVec<[usize; 2]> {
        if results.iter().all(ProfileRun::is_over) {
            return SmallVec::new();
        }
        (0..results.len()).collect()
    }

    fn conclude(
        &self,
        names: &[Arc<str>],
        results: &Results,
        errors: &mut SmallVec<[(usize, ScheduleError); 1]>,
    ) -> Result<usize, ScheduleError> {
        let ([name], [result]) = (names, results.as_slice()) else {
            let message = format!("single-profile-handler serves one profile, not {}", names.len());
            return Err(ScheduleError::failed(message, [].iter()));
        };
        if result.result().is_some() {
            return Ok(0);
        }
        Err(failed(name, errors))
    }
}

/// The error of a request whose only profile that ran, `name`, has no result.
pub(super) fn failed(name: &str, errors: &[(usize, ScheduleError)]) -> ScheduleError {
    let mut message = format!("failed to run scheduler profile '{name}'");
    for (_, error) in errors {
        message = format!("{message}: {error}");
    }
    ScheduleError::failed(message, errors.iter().map(|(_, error)| error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_profile_is_named_with_its_cause() {
        let names: [Arc<str>; 1] = ["default".into()];
        let results: Results = [ProfileRun::Empty].into_iter().collect();
        let mut errors = SmallVec::new();
        errors.push((0, ScheduleError::NothingLeft));
        let error = SingleProfile.conclude(&names, &results, &mut errors).unwrap_err();
        assert!(error.is_nothing_left());
        assert_eq!(
            error.to_string(),
            "failed to run scheduler profile 'default': no endpoints available for the given request"
        );
    }

    #[test]
    fn several_profiles_are_refused() {
        let names: [Arc<str>; 2] = ["a".into(), "b".into()];
        let results: Results = [ProfileRun::Empty, ProfileRun::Empty].into_iter().collect();
        let error = SingleProfile.conclude(&names, &results, &mut SmallVec::new()).unwrap_err();
        assert!(!error.is_nothing_left());
    }
}
