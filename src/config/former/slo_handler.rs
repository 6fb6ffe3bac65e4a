//! The profile handler of the first releases with predicted latencies: it ran the profile `slo` for requests with the
//! header `x-prediction-based-scheduling: true`, and the profile `default` for all others.

use super::tree::{self, Map};
use crate::document::Problems;

const FORMER: &str = "slo-aware-profile-handler";
/// Runs the profile that a header names.
const TODAY: &str = "header-profile-handler";
/// The profile of requests without the header.
const DEFAULT: &str = "default";

/// Turns such a handler into the one of today that a request can choose the profile with.
pub(super) fn translate(row: &mut Map, path: &str, problems: &mut Problems) {
    if tree::text_of(row, "type") != Some(FORMER) {
        return;
    }
    let Some((key, _)) = tree::take(row, "type") else { return };
    if tree::text_of(row, "name").is_none() {
        tree::take(row, "name");
        tree::put(row, key.line, "name", tree::text(key.line, FORMER));
    }
    tree::put(row, key.line, "type", tree::text(key.line, TODAY));
    if let Some(parameters) = tree::section(row, key.line, "parameters")
        && !tree::has_any_case(parameters, "defaultProfile")
    {
        tree::take_any_case(parameters, "defaultProfile");
        tree::put(parameters, key.line, "defaultProfile", tree::text(key.line, DEFAULT));
    }
    let message = format!(
        "\"{FORMER}\" is gone; write `type: {TODAY}` with `defaultProfile: {DEFAULT}`, and let requests say \
         `EPP-Profile: slo` in place of `x-prediction-based-scheduling: true`"
    );
    problems.warning(key.line, format!("{path}.type"), message);
}
