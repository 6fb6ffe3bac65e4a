//! `header-profile-handler`: the request names its profile in a header, by default `EPP-Profile`.
//!
//! The coordinator of disaggregated serving calls the pool once for each phase and says `encode`, `prefill` or
//! `decode`. Without the header, or with a blank one, `defaultProfile` runs. A profile that does not exist is an error
//! of that request. A single configured profile always runs.
//!
//! Use it behind such a coordinator, which must be the only one that can set the header. It costs one look at the
//! headers.

use std::sync::Arc;

use schemars::JsonSchema;

use serde::Deserialize;
use smallvec::{SmallVec, smallvec};

use super::single::failed;
use crate::plugins::{BuildCx, BuildError, PluginType, Roles, Stability};
use crate::scheduling::{Call, ProfileFault, ProfileHandler, ProfileRun, Results, ScheduleError};

/// Registry row.
pub static TYPE: PluginType = PluginType::new("header-profile-handler", Stability::Alpha, build).about(
    "Runs the profile that a header of the request names.",
    "Use it behind a coordinator of disaggregated serving, which must be the only one that can set the \
         header. It costs one look at the headers.",
);

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Params {
    /// Header that names the profile, in any letter case.
    header_name: String,
    /// Profile of requests without the header.
    default_profile: String,
}

impl Default for Params {
    fn default() -> Self {
        Self { header_name: "epp-profile".to_owned(), default_profile: "decode".to_owned() }
    }
}

fn build(cx: &mut BuildCx<'_>) -> Result<Roles, BuildError> {
    let params: Params = cx.params()?;
    let header = params.header_name.trim().to_ascii_lowercase();
    let handler = ByHeader { header, default: params.default_profile };
    Ok(Roles::default().profile_handler(Arc::new(handler)))
}

#[derive(Debug)]
struct ByHeader {
    /// Lower case.
    header: String,
    default: String,
}

impl ByHeader {
    fn wanted(&self, call: &Call<'_>, names: &[Arc<str>]) -> Option<usize> {
        if names.len() == 1 {
            return Some(0);
        }
        let given = call.request.headers.text(&self.header).unwrap_or_default();
        let wanted = Some(given.trim()).filter(|name| !name.is_empty()).unwrap_or(&self.default);
        names.iter().position(|name| **name == *wanted)
    }
}

impl ProfileHandler for ByHeader {
    fn pick(&self, call: &Call<'_>, names: &[Arc<str>], results: &mut Results) -> SmallVec<[usize; 2]> {
        if results.iter().any(ProfileRun::is_over) {
            return SmallVec::new();
        }
        self.wanted(call, names).map(|index| smallvec![index]).unwrap_or_default()
    }

    fn conclude(
        &self,
        names: &[Arc<str>],
        results: &Results,
        errors: &mut SmallVec<[(usize, ScheduleError); 1]>,
    ) -> Result<usize, ScheduleError> {
        let run = results.iter().position(ProfileRun::is_over).unwrap_or_default();
        if results.get(run).is_some_and(|run| run.result().is_some()) {
            return Ok(run);
        }
        Err(failed(names.get(run).map_or("", |name| &**name), errors))
    }

    fn review(&self, names: &[Arc<str>]) -> Vec<ProfileFault> {
        if names.len() == 1 || names.iter().any(|name| **name == *self.default) {
            return Vec::new();
        }
        let listed: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
        let text = format!(
            "refuses requests without the header {}: there is no profile \"{}\"; `defaultProfile` may be {}",
            self.header,
            self.default,
            listed.join(", ")
        );
        let first = names.first().map(|name| &**name).unwrap_or_default();
        vec![ProfileFault::Idle(text, format!("`defaultProfile: {first}` among its parameters"))]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::plugins::fixture::{Fleet, Request, pod, request};
    use crate::scheduling::Columns;

    fn names() -> [Arc<str>; 3] {
        ["encode".into(), "prefill".into(), "decode".into()]
    }

    fn picked(params: &Value, names: &[Arc<str>], request: &Request) -> Vec<usize> {
        let mut fleet = Fleet::new([pod("a")]);
        let handler = fleet.build(&TYPE, Some(params.clone())).unwrap().roles.profile_handler.unwrap();
        fleet.call(request, &Columns::new(), |call| {
            let mut results: Results = names.iter().map(|_| ProfileRun::NotRun).collect();
            let picked = handler.pick(call, names, &mut results);
            if let Some(index) = picked.first() {
                results[*index] = ProfileRun::Empty;
            }
            assert!(handler.pick(call, names, &mut results).is_empty() || picked.is_empty());
            picked.to_vec()
        })
    }

    #[test]
    fn the_header_names_the_profile_and_a_blank_one_means_the_default() {
        let with = |value: &str| request("m").header("epp-profile", value);
        for (request, expected) in [
            (with("prefill"), vec![1]),
            (with(" encode "), vec![0]),
            (with("decode"), vec![2]),
            (with(""), vec![2]),
            (with("  "), vec![2]),
            (request("m"), vec![2]),
            (with("Prefill"), vec![]),
            (with("no-such"), vec![]),
        ] {
            assert_eq!(picked(&json!({}), &names(), &request), expected, "{request:?}");
        }
        let own = json!({"headerName": "X-Phase", "defaultProfile": "encode"});
        assert_eq!(picked(&own, &names(), &request("m").header("x-phase", "prefill")), [1]);
        assert_eq!(picked(&own, &names(), &with("prefill")), [0]);
        assert_eq!(picked(&json!({}), &["only".into()], &with("no-such")), [0]);
    }

    #[test]
    fn the_profile_that_ran_answers_and_a_failed_one_is_named() {
        let built = Fleet::new([]).build(&TYPE, None).unwrap();
        let handler = built.roles.profile_handler.unwrap();
        let results: Results =
            [ProfileRun::NotRun, ProfileRun::Empty, ProfileRun::NotRun].into_iter().collect();
        let mut errors = SmallVec::new();
        errors.push((1, ScheduleError::NothingLeft));
        let error = handler.conclude(&names(), &results, &mut errors).unwrap_err();
        assert!(error.is_nothing_left() && error.to_string().contains("'prefill'"), "{error}");
    }

    #[test]
    fn a_default_profile_that_does_not_exist_is_told() {
        let built = Fleet::new([]).build(&TYPE, None).unwrap();
        let handler = built.roles.profile_handler.unwrap();
        assert_eq!(handler.review(&names()), []);
        assert_eq!(handler.review(&["x".into()]), []);
        assert!(matches!(handler.review(&["x".into(), "y".into()])[..], [ProfileFault::Idle(..)]));
    }
}
