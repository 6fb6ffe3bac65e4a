//! `pointsman migrate`: a document in the form of today, with its comments where they can be kept.
//!
//! The translations are those of loading ([`former`](super::former)), and those of [`today`] for what loads with a word
//! of warning. [`page`] carries the changes of the tree over to the text: lines that did not change are copied. The new
//! text is read again, and where it does not say what it should, [`yaml`] writes the whole tree anew.

mod page;
mod today;
mod yaml;

use super::config_map;
use super::former;
use super::source::ConfigSource;
use crate::document::{Node, Problem, Problems, parse};

/// A document in the form of today.
#[derive(Debug)]
pub struct Migrated {
    /// The text.
    pub text: String,
    /// The edits, as the warnings that they answer.
    pub edits: Vec<Problem>,
    /// False if the text was written anew, so that its comments are gone.
    pub keeps_comments: bool,
}

/// Translates the document of `source`.
///
/// # Errors
///
/// If it cannot be read, or is no document.
pub fn migrate(source: &ConfigSource) -> Result<Migrated, Problems> {
    let mut problems = Problems::new(&source.name());
    let Some(mut text) = source.text(&mut problems) else { return Err(problems) };
    let first = ConfigSource::first_document(&text, &mut problems).len();
    text.truncate(first);
    let Some(mut before) = tree(&text, &mut problems)? else {
        return Ok(Migrated { text, edits: Vec::new(), keeps_comments: true });
    };
    if let Some(inner) = config_map::inside(&before, &mut problems) {
        let Ok(inner) = inner else { return Err(problems) };
        text = inner;
        let Some(root) = tree(&text, &mut problems)? else { return Err(problems) };
        before = root;
    }
    let mut after = before.clone();
    former::translate(&mut after, &mut problems);
    today::translate(&mut after, &mut problems);
    problems.sort();
    let edits: Vec<Problem> = problems.iter().cloned().collect();
    let wanted = after.to_json();
    if wanted == before.to_json() {
        return Ok(Migrated { text, edits, keeps_comments: true });
    }
    let says = |text: &str| matches!(parse(text), Ok(Some(root)) if root.to_json() == wanted);
    if text.trim_start().starts_with('{') {
        return Ok(Migrated { text: yaml::json(&after), edits, keeps_comments: true });
    }
    let edited = page::edit(&text, &before, &after);
    if says(&edited) {
        return Ok(Migrated { text: edited, edits, keeps_comments: true });
    }
    Ok(Migrated { text: yaml::document(&after), edits, keeps_comments: !text.contains('#') })
}

/// The tree of a text; `None` if it holds nothing.
fn tree(text: &str, problems: &mut Problems) -> Result<Option<Node>, Problems> {
    parse(text).map_err(|fault| {
        problems.error(fault.line, "", fault.message);
        problems.clone()
    })
}

#[cfg(test)]
mod tests;
