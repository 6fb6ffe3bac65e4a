//! Kinds of the inference API, each of which exists in more than one group.

use std::borrow::Cow;

/// Group of the current InferencePool.
pub(crate) const POOL_GROUP: &str = "inference.networking.k8s.io";
/// Group of the current InferenceObjective and InferenceModelRewrite.
pub(crate) const CURRENT_GROUP: &str = "llm-d.ai";
/// Group that all three had before.
pub(crate) const LEGACY_GROUP: &str = "inference.networking.x-k8s.io";

/// The place of a kind in the API: the dynamic part of its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GroupVersion {
    /// API group.
    pub(crate) group: Cow<'static, str>,
    /// Version within the group.
    pub(crate) version: &'static str,
}

impl GroupVersion {
    /// A version of a group.
    pub(crate) fn new(group: impl Into<Cow<'static, str>>, version: &'static str) -> Self {
        Self { group: group.into(), version }
    }

    /// The pool's group at the version that it has there.
    pub(crate) fn of_pool(group: &str) -> Self {
        Self::new(group.to_owned(), if group == LEGACY_GROUP { "v1alpha2" } else { "v1" })
    }
}

/// Makes a type with a `metadata` field a resource of the API whose group is chosen at run time.
macro_rules! resource {
    ($type:ty, $kind:literal, $plural:literal) => {
        impl kube::Resource for $type {
            type DynamicType = super::GroupVersion;
            type Scope = kube::core::DynamicResourceScope;

            fn kind(_: &Self::DynamicType) -> std::borrow::Cow<'_, str> {
                $kind.into()
            }

            fn group(at: &Self::DynamicType) -> std::borrow::Cow<'_, str> {
                at.group.as_ref().into()
            }

            fn version(at: &Self::DynamicType) -> std::borrow::Cow<'_, str> {
                at.version.into()
            }

            fn plural(_: &Self::DynamicType) -> std::borrow::Cow<'_, str> {
                $plural.into()
            }

            fn meta(&self) -> &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                &self.metadata
            }

            fn meta_mut(&mut self) -> &mut k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

pub(super) use resource;
