//! Pages of `docs/` that are made from the code. `make docs` writes them; a test says when one is old.

use std::path::Path;

/// Most columns of a line in a generated page.
const COLUMNS: usize = 120;

/// Compares a page with what the code says it should be, or writes it if `UPDATE_DOCS` is set.
pub(crate) fn keep(page: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, text).unwrap_or_else(|error| panic!("{page}: {error}"));
        return;
    }
    let current = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(current == text, "{page} is old: `make docs` writes it anew");
}

/// The text in lines of at most 120 columns, each but the first behind `indent`.
pub(crate) fn wrapped(text: &str, indent: &str) -> String {
    let mut out = String::new();
    let mut width = 0;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if width > 0 && width + 1 + length > COLUMNS {
            out.push('\n');
            out.push_str(indent);
            width = indent.len();
        } else if width > 0 {
            out.push(' ');
            width += 1;
        }
        out.push_str(word);
        width += length;
    }
    out
}
