//! Names that refer to a plugin, and how they are read.

use crate::document::{Fields, Level, Node, Problems, nearest};

/// A name that refers to a plugin, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Instance name.
    pub name: String,
    /// Line of the reference.
    pub line: u32,
    /// Path of the reference.
    pub path: String,
}

/// The `pluginRef` of a row that has other fields too.
pub(super) fn named(fields: &mut Fields<'_>, problems: &mut Problems) -> Option<Reference> {
    let given = fields.get("pluginRef").is_some();
    let name = fields.text("pluginRef", problems);
    let (line, path) = (fields.line_of("pluginRef"), fields.path("pluginRef"));
    if !given || name == Some("") {
        problems.error(line, path, "is required");
        return None;
    }
    name.map(|name| Reference { name: name.to_owned(), line, path })
}

/// A mapping of nothing but `pluginRef`.
pub(super) fn reference(node: &Node, path: &str, problems: &mut Problems) -> Option<Reference> {
    let mut fields = Fields::of(node, path, problems)?;
    let reference = named(&mut fields, problems);
    fields.finish(Level::Error, problems);
    reference
}

pub(super) fn references(
    fields: &mut Fields<'_>,
    name: &'static str,
    problems: &mut Problems,
) -> Vec<Reference> {
    let at = fields.path(name);
    let nodes = fields.list(name, problems).iter().enumerate();
    nodes.filter_map(|(index, node)| reference(node, &format!("{at}[{index}]"), problems)).collect()
}

/// The tail of "there is no plugin named …".
pub(super) fn near_name<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    nearest(name, names).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default()
}
