//! `dcgm-extractor` (alpha): the use of an endpoint's GPUs, from the page of the DCGM exporter.
//!
//! The attribute `GPUUtilization` of `dcgm-extractor` is the highest `DCGM_FI_DEV_GPU_UTIL` of the rows that name the
//! endpoint's pod or none, divided by 100. A page without such a row leaves the last value.
//!
//! Use it where endpoint-attribute-filter or endpoint-attribute-scorer go by GPUs. It costs a look at each row of the
//! page.

use std::sync::Arc;

use crate::datalayer::PageExtractor;
use crate::datalayer::exposition::each_row;
use crate::plugins::{PluginType, Roles, Stability};
use crate::pool::{AttributeKey, Endpoint};

/// The row.
pub static TYPE: PluginType = PluginType::new(NAME, Stability::Alpha, |cx| {
    cx.no_params();
    let key = AttributeKey::new(ATTRIBUTE, NAME);
    cx.writes_attribute(&key);
    Ok(Roles { page_extractor: Some(Arc::new(Extractor { key })), ..Roles::default() })
})
.about(
    "Writes the use of an endpoint's GPUs, 0..=1, as its attribute GPUUtilization.",
    "Use it where endpoint-attribute-filter or endpoint-attribute-scorer go by GPUs. It costs a look at each row of \
     the exporter's page.",
);

const NAME: &str = "dcgm-extractor";
const ATTRIBUTE: &str = "GPUUtilization";
const SERIES: &str = "DCGM_FI_DEV_GPU_UTIL";

#[derive(Debug)]
struct Extractor {
    key: AttributeKey,
}

impl PageExtractor for Extractor {
    fn kind(&self) -> &'static str {
        NAME
    }

    fn reads(&self) -> &'static str {
        "dcgm-data-source"
    }

    fn extract(&self, endpoint: &Endpoint, page: &[u8]) -> Result<(), String> {
        let pod = endpoint.spec().pod.as_bytes();
        let mut highest: Option<f64> = None;
        each_row(page, SERIES, |labels, value| {
            let named = labels.iter().find(|(name, _)| *name == b"pod").map(|(_, value)| *value);
            if value.is_finite() && named.is_none_or(|name| name.is_empty() || name == pod) {
                highest = Some(highest.map_or(value, |known| known.max(value)));
            }
        });
        let highest = highest.ok_or_else(|| format!("no row of {SERIES} is about the pod"))?;
        endpoint.load().set_attribute(&self.key, highest / 100.0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::fixture::{Fleet, pod};

    #[test]
    fn the_busiest_gpu_of_the_pod_counts() {
        let mut fleet = Fleet::new([pod("a")]);
        let roles = fleet.build(&TYPE, None).unwrap().roles;
        let extractor = roles.page_extractor.as_ref().unwrap();
        let snapshot = fleet.snapshot();
        let endpoint = &snapshot.endpoints()[0];
        let key = AttributeKey::new(ATTRIBUTE, NAME);
        let own = endpoint.spec().pod.clone();
        for (page, expected) in [
            (
                format!("{SERIES}{{gpu=\"0\",pod=\"{own}\"}} 40\n{SERIES}{{gpu=\"1\",pod=\"{own}\"}} 75\n"),
                Some(0.75),
            ),
            (format!("{SERIES}{{pod=\"other\"}} 99\n{SERIES}{{gpu=\"0\"}} 10\n"), Some(0.1)),
            (format!("{SERIES}{{pod=\"{own}\"}} NaN\n"), None),
            (format!("{SERIES}{{pod=\"other\"}} 99\n"), None),
            (format!("{SERIES}_OTHER 5\n"), None),
            (String::new(), None),
        ] {
            let before = endpoint.load().attribute(&key);
            let read = extractor.extract(endpoint, page.as_bytes());
            assert_eq!(read.is_ok(), expected.is_some(), "{page}");
            assert_eq!(endpoint.load().attribute(&key), expected.or(before), "{page}");
        }
    }
}
