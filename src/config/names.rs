//! Names of what references lead to, for the effective configuration.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Names of a band's policies, for the effective configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BandNames {
    pub(super) fairness: Arc<str>,
    pub(super) ordering: Arc<str>,
}

/// Names of all policies, for the effective configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FlowNames {
    pub(super) usage_limit: Arc<str>,
    pub(super) default_band: BandNames,
    pub(super) default_negative_band: Option<BandNames>,
    pub(super) bands: BTreeMap<i32, BandNames>,
}

/// Names in the data layer, for the effective configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct DataLayerNames {
    pub(super) source: Option<Arc<str>>,
    pub(super) extractor: Option<Arc<str>>,
    pub(super) discovery: Option<Arc<str>>,
    /// Sources of other pages, each with its extractors.
    pub(super) pages: Vec<(Arc<str>, Vec<Arc<str>>)>,
}
