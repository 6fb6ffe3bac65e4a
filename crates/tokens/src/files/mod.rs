//! Reads the files of a model as the server reads them.

mod config;
mod folder;
mod templates;

pub(crate) use config::TokenizerConfig;
pub(crate) use folder::{ModelFiles, read};
pub(crate) use templates::{Templates, templates};

/// Why a model cannot be loaded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {field}: {reason}")]
pub struct LoadError {
    /// The file in the folder of the model.
    pub file: String,
    /// The field of the file; `(whole file)` if no single field is at fault.
    pub field: String,
    /// What is wrong.
    pub reason: String,
}

impl LoadError {
    pub(crate) fn new(file: &str, field: &str, reason: impl Into<String>) -> Self {
        Self { file: file.to_owned(), field: field.to_owned(), reason: reason.into() }
    }

    fn whole(file: &str, reason: impl Into<String>) -> Self {
        Self::new(file, "(whole file)", reason)
    }
}
