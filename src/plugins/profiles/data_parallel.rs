//! `data-parallel-profile-handler`: runs the only profile; the proxy reaches every server on one port, and a header
//! names the engine rank.
//!
//! The routing sidecar listens on `primaryPort` and passes the request to the rank in the header
//! `x-data-parallel-host-port`, which is the address of the chosen endpoint. What a client sends under that name is
//! replaced.
//!
//! Use it only where the sidecar of data-parallel servers expects that header; today each rank is an endpoint with a
//! port of its own. It costs nothing beside `single-profile-handler`.

use std::sync::Arc;

use schemars::JsonSchema;

use serde::Deserialize;
use smallvec::SmallVec;

use super::single::SingleProfile;
use crate::plugins::routing_headers;
use crate::plugins::{BuildCx, BuildError, PluginType, Roles, Stability};
use crate::scheduling::{
    Call, DecidedCall, HeaderEdits, PluginState, PreRequest, PreRequestError, ProfileFault, ProfileHandler,
    Results, ScheduleError,
};

/// Registry row.
pub static TYPE: PluginType = PluginType::new("data-parallel-profile-handler", Stability::Beta, build)
    .superseded_by("single-profile-handler", "v0.7.0")
    .about(
        "Runs the only profile, and names the engine rank that was picked in a header.",
        "Use it only where the sidecar of data-parallel servers expects that header; otherwise each rank is \
         an endpoint of its own. It costs nothing beside single-profile-handler.",
    );

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Params {
    /// Port on which the proxy reaches every server, 1 to 65535.
    primary_port: i64,
}

impl Default for Params {
    fn default() -> Self {
        Self { primary_port: 8000 }
    }
}

fn build(cx: &mut BuildCx<'_>) -> Result<Roles, BuildError> {
    let params: Params = cx.params()?;
    let port = port("primaryPort", params.primary_port)?;
    Ok(Roles::default().profile_handler(Arc::new(DataParallel { port })).pre_request(Arc::new(RankHeader)))
}

/// The port that a parameter gives.
pub(super) fn port(parameter: &str, given: i64) -> Result<u16, BuildError> {
    let port = u16::try_from(given).ok().filter(|port| *port > 0);
    port.ok_or_else(|| BuildError::at(parameter, format!("is {given}; expected a port from 1 to 65535")))
}

#[derive(Debug)]
struct DataParallel {
    port: u16,
}

impl ProfileHandler for DataParallel {
    fn pick(&self, call: &Call<'_>, names: &[Arc<str>], results: &mut Results) -> SmallVec<[usize; 2]> {
        SingleProfile.pick(call, names, results)
    }

    fn conclude(
        &self,
        names: &[Arc<str>],
        results: &Results,
        errors: &mut SmallVec<[(usize, ScheduleError); 1]>,
    ) -> Result<usize, ScheduleError> {
        SingleProfile.conclude(names, results, errors)
    }

    fn proxy_port(&self) -> Option<u16> {
        Some(self.port)
    }

    fn review(&self, names: &[Arc<str>]) -> Vec<ProfileFault> {
        match names.len() {
            1 => Vec::new(),
            several => vec![ProfileFault::Fatal(format!("runs one profile, and there are {several}"))],
        }
    }
}

/// Writes the address of the chosen rank.
#[derive(Debug)]
pub(super) struct RankHeader;

impl PreRequest for RankHeader {
    fn before_forward(
        &self,
        decided: &DecidedCall<'_>,
        headers: &mut HeaderEdits,
    ) -> Result<PluginState, PreRequestError> {
        routing_headers::write_rank(decided, headers);
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugins::fixture::{Fleet, pod, request};

    #[test]
    fn every_server_is_reached_on_the_primary_port_and_the_header_names_the_rank() {
        for (params, reached) in
            [(json!({}), "10.0.0.7:8000"), (json!({"primaryPort": 9000}), "10.0.0.7:9000")]
        {
            let mut fleet = Fleet::new([pod("a").at("10.0.0.7:8003")]);
            let built = fleet.build(&TYPE, Some(params)).unwrap();
            let handler = built.roles.profile_handler.as_ref().unwrap();
            let mut decision = fleet.decision(&[Some(0)], &[]);
            decision.proxy_port = handler.proxy_port();
            assert_eq!(decision.address(&decision.targets()[0]), reached);
            let edits = fleet.edits(&built.roles, &request("m"), &decision, &["default".into()]);
            assert_eq!(edits.set.as_slice(), [("x-data-parallel-host-port".into(), "10.0.0.7:8003".into())]);
        }
    }

    #[test]
    fn a_port_that_is_none_is_refused() {
        for wrong in [0, -1, 65_536] {
            let error = Fleet::new([]).build(&TYPE, Some(json!({"primaryPort": wrong}))).unwrap_err();
            assert_eq!(error.path, "primaryPort", "{error}");
        }
    }

    #[test]
    fn exactly_one_profile_is_served() {
        let built = Fleet::new([]).build(&TYPE, None).unwrap();
        let handler = built.roles.profile_handler.unwrap();
        assert_eq!(handler.review(&["a".into()]), []);
        assert!(matches!(handler.review(&["a".into(), "b".into()])[..], [ProfileFault::Fatal(_)]));
    }
}
