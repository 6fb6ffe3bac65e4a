//! Public traces, in the forms in which they are published.
//!
//! | file | form |
//! |---|---|
//! | `mooncake` | a JSON object a line: `timestamp` in ms, `input_length`, `output_length`, `hash_ids` of 512-token blocks |
//! | `bailian` | the same with `chat_id`, `parent_chat_id`, `turn`, `timestamp` in s, ids of 16-token blocks |
//! | `azure` | `TIMESTAMP,ContextTokens,GeneratedTokens` |
//! | `burst` | `Timestamp,Model,Request tokens,Response tokens,…` |
//! | `agents` | a JSON document a session: requests with `in`, `out`, `hash_ids`, think times |

mod agents;
mod azure;
mod bailian;
mod burst;
mod lines;
mod mooncake;

use std::path::Path;

use anyhow::{Context as _, bail, ensure};

use super::workload::Workload;

/// Largest file that is read.
const MOST_BYTES: u64 = 4 << 30;
/// Reads the trace at `path`: a file of any of the forms, or a folder of agent sessions. The form is told from the
/// beginning of the file. `seed` places what the trace leaves open.
pub fn read(path: &Path, seed: u64) -> anyhow::Result<Workload> {
    let name = path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    let mut workload = if path.is_dir() {
        agents::read(&sessions(path)?, seed)
    } else {
        let text = text(path)?;
        let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
        if first.starts_with('{') {
            json(first, &text, seed)
        } else if first.contains("ContextTokens") {
            azure::read(&text)
        } else if first.contains("Request tokens") {
            burst::read(&text)
        } else {
            bail!(
                "{}: begins with {:?}, which no known trace does; expected Mooncake, Bailian, agent sessions, Azure or BurstGPT",
                path.display(),
                first.chars().take(60).collect::<String>()
            )
        }
    }
    .with_context(|| path.display().to_string())?;
    ensure!(!workload.requests.is_empty(), "{}: has no requests", path.display());
    workload.name = name;
    Ok(workload)
}

fn json(first: &str, text: &str, seed: u64) -> anyhow::Result<Workload> {
    if first.contains("\"chat_id\"") {
        bailian::read(text, seed)
    } else if first.contains("\"requests\"") || !first.contains("\"input_length\"") {
        agents::read(&[text.to_owned()], seed)
    } else {
        mooncake::read(text, seed)
    }
}

/// The documents of a folder, by name.
fn sessions(folder: &Path) -> anyhow::Result<Vec<String>> {
    let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    paths.sort();
    paths.iter().map(|path| text(path)).collect()
}

fn text(path: &Path) -> anyhow::Result<String> {
    let size = std::fs::metadata(path).with_context(|| path.display().to_string())?.len();
    ensure!(size <= MOST_BYTES, "{}: has {size} bytes, at most {MOST_BYTES} are read", path.display());
    std::fs::read_to_string(path).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests;
