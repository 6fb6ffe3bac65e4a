//! A row of the registry: a plugin type, and what people should know of it.

use std::any::TypeId;
use std::cell::Cell;
use std::sync::Arc;

use serde_json::Value;

use super::BuildError;
use super::build::{BuildCx, ParametersSchema};
use super::roles::Roles;
use crate::metrics::Metrics;

/// How settled a plugin type is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stability {
    /// May change; needs `--allow-experimental-plugins`.
    Alpha,
    /// Usable without a flag.
    Beta,
}

impl Stability {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Alpha => "alpha",
            Self::Beta => "beta",
        }
    }
}

/// A type that another one replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Superseded {
    /// Version of the reference that deprecated it.
    pub since: &'static str,
    /// The type to use instead.
    pub replacement: &'static str,
}

/// One row of the registry.
#[derive(Clone, Copy, Debug)]
pub struct PluginType {
    /// Type string, the reference's letter for letter.
    pub name: &'static str,
    /// The value of the label `plugin_type`; nearly always `name`.
    pub reports_as: &'static str,
    /// How settled it is.
    pub stability: Stability,
    /// The type that replaces it, if there is one.
    pub superseded: Option<Superseded>,
    /// One sentence that says what it does.
    pub summary: &'static str,
    /// When to use it and what it costs, in two sentences.
    pub advice: &'static str,
    /// `parameters` with which it loads, in YAML; empty if it loads without any.
    pub example: &'static str,
    /// Builds an instance.
    pub build: fn(&mut BuildCx<'_>) -> Result<Roles, BuildError>,
}

impl PluginType {
    /// A type of this name. `build` asks [`BuildCx::params`] for its parameters, or says [`BuildCx::no_params`], before
    /// it does anything else.
    pub const fn new(
        name: &'static str,
        stability: Stability,
        build: fn(&mut BuildCx<'_>) -> Result<Roles, BuildError>,
    ) -> Self {
        Self {
            name,
            reports_as: name,
            stability,
            superseded: None,
            summary: "",
            advice: "",
            example: "",
            build,
        }
    }

    /// With what it does, in one sentence, and when to use it and what it costs, in two.
    #[must_use]
    pub const fn about(mut self, summary: &'static str, advice: &'static str) -> Self {
        self.summary = summary;
        self.advice = advice;
        self
    }

    /// With `parameters` with which it loads, in YAML; for a type that does not load without any.
    #[must_use]
    pub const fn with_example(mut self, parameters: &'static str) -> Self {
        self.example = parameters;
        self
    }

    /// With another value of the label `plugin_type`.
    #[must_use]
    pub const fn reported_as(mut self, name: &'static str) -> Self {
        self.reports_as = name;
        self
    }

    /// Deprecated: `replacement` takes its place since this version of the reference.
    #[must_use]
    pub const fn superseded_by(mut self, replacement: &'static str, since: &'static str) -> Self {
        self.superseded = Some(Superseded { since, replacement });
        self
    }

    /// The same under another name; `plugin_type` keeps the first one.
    #[must_use]
    pub const fn renamed(mut self, name: &'static str) -> Self {
        self.name = name;
        self
    }

    /// The schema of its parameters; `None` if it takes none.
    pub fn parameters(&self) -> Option<ParametersSchema> {
        let (found, metrics, mut columns) = (Cell::new(None), Arc::new(Metrics::new()), Vec::new());
        let mut cx = BuildCx::new(self.name, None, &metrics, &mut columns, 0).describing(&found);
        // The build ends early, by intention.
        let _ = (self.build)(&mut cx);
        found.get()
    }

    /// What it can be, with the parameters of its example; nothing if it does not build with them.
    pub fn roles(&self) -> Roles {
        self.tried(|_, roles| roles)
    }

    /// True if it produces data of this type.
    pub(crate) fn makes(&self, data: TypeId) -> bool {
        self.tried(|cx, _| cx.produced.iter().any(|key| key.data == data))
    }

    /// True if it cannot work without data of this type.
    pub(crate) fn reads(&self, data: TypeId) -> bool {
        self.tried(|cx, _| cx.consumed.iter().any(|used| used.required && used.key.data == data))
    }

    /// What comes of building it with its example.
    fn tried<T>(&self, look: impl FnOnce(&BuildCx<'_>, Roles) -> T) -> T {
        let parameters = crate::document::parse(self.example).ok().flatten().map(|node| node.to_json());
        let (metrics, mut columns) = (Arc::new(Metrics::new()), Vec::new());
        let parameters: Option<&Value> = parameters.as_ref();
        let mut cx = BuildCx::new(self.name, parameters, &metrics, &mut columns, 0);
        let roles = (self.build)(&mut cx).unwrap_or_default();
        look(&cx, roles)
    }
}
