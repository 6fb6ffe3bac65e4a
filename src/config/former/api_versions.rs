//! API groups that the document belonged to.

/// Groups of earlier releases and of their previews.
const GROUPS: &[&str] = &[
    "config.apix.gateway-api-inference-extension.sigs.k8s.io",
    "config.x-k8s.io",
    "inference.networking.k8s.io",
    "inference.networking.x-k8s.io",
];

/// True for any version of a former group.
pub(in crate::config) fn is_former(api_version: &str) -> bool {
    let Some((group, version)) = api_version.split_once('/') else { return false };
    GROUPS.contains(&group) && is_version(version)
}

/// True for `v1`, `v1alpha2` and the like.
fn is_version(text: &str) -> bool {
    let Some(rest) = text.strip_prefix('v') else { return false };
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let stage = rest.split_once("alpha").or_else(|| rest.split_once("beta"));
    stage.map_or_else(|| number(rest), |(major, minor)| number(major) && number(minor))
}
