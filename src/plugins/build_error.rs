//! Why a plugin could not be built.

/// Why a plugin could not be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BuildError {
    /// Path of the offending parameter below `parameters`, as `a.b[0]`; empty if the fault is not one parameter's.
    pub path: String,
    /// The fault, and the value that would be right.
    pub message: String,
}

impl BuildError {
    /// An error that concerns the parameter at `path`.
    pub fn at(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into() }
    }

    /// An error that concerns the plugin as a whole.
    pub fn new(message: impl Into<String>) -> Self {
        Self::at("", message)
    }
}
