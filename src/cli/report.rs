//! Where the result of a command goes: to standard output, and to the files that the command line names.

use std::io::{self, Write as _};
use std::path::Path;

use anyhow::Context as _;

/// The file that stands for standard output.
const STDOUT: &str = "-";

/// Writes a result. Standard output gets `table`, or the JSON if `json_file` is `-`. The files get the JSON and the HTML
/// page. Fails if a file cannot be written.
pub(super) fn write(
    json_file: Option<&Path>,
    html_file: Option<&Path>,
    table: impl FnOnce() -> String,
    json: impl Fn() -> anyhow::Result<String>,
    html: impl FnOnce() -> String,
) -> anyhow::Result<()> {
    let to_output = json_file == Some(Path::new(STDOUT));
    let text = if to_output { json()? + "\n" } else { table() };
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // Nobody left to read is no failure.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error.into()),
        _ => {}
    }
    let save = |path: &Path, text: &str| {
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    if let Some(path) = json_file.filter(|_| !to_output) {
        save(path, &json()?)?;
    }
    if let Some(path) = html_file {
        save(path, &html())?;
    }
    Ok(())
}
