//! The shape of the source tree: who may use whom, how long files get, what they must not name.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

mod circles;
mod modules;

/// Lines in a source file, at most; longer ones hold more than one concept.
const LONGEST_FILE: usize = 500;

/// For each folder of `src/`, the folders and the folders of the core that it may use. `cli`, the wiring, may use all.
const MAY_USE: &[(&str, &[&str])] = &[
    // Values.
    ("document", &[]),
    ("telemetry", &["request"]),
    ("metrics", &["flow", "latency", "pool", "request", "scheduling"]),
    ("datalayer", &["pool"]),
    ("render", &["request", "scheduling"]),
    ("kvevents", &["pool", "prefix", "metrics"]),
    // Choices.
    (
        "plugins",
        &[
            "clock",
            "scheduling",
            "flow",
            "latency",
            "pool",
            "prefix",
            "request",
            "metrics",
            "datalayer",
            "render",
            "kvevents",
            "document",
        ],
    ),
    // Order.
    (
        "config",
        &[
            "kvevents",
            "plugins",
            "scheduling",
            "flow",
            "pool",
            "prefix",
            "request",
            "metrics",
            "datalayer",
            "document",
        ],
    ),
    ("decisions", &["scheduling", "pool", "prefix", "request", "metrics", "telemetry", "document"]),
    ("doctor", &["telemetry", "document"]),
    ("capture", &["scheduling", "pool", "prefix", "request", "metrics", "telemetry"]),
    (
        "director",
        &[
            "clock",
            "capture",
            "decisions",
            "scheduling",
            "flow",
            "pool",
            "prefix",
            "request",
            "metrics",
            "telemetry",
        ],
    ),
    // Edges.
    ("transport", &["metrics", "telemetry"]),
    ("peers", &["flow", "pool", "prefix", "metrics", "telemetry", "transport"]),
    ("extproc", &["director", "scheduling", "request", "metrics", "telemetry", "transport"]),
    ("admin", &["decisions", "doctor", "pool", "metrics", "telemetry", "transport"]),
    ("kubernetes", &["admin", "metrics", "telemetry"]),
    ("discovery", &["kubernetes", "plugins", "datalayer", "pool", "metrics", "telemetry", "document"]),
    ("scaler", &["document", "transport"]),
    ("sidecar", &["pool", "request", "metrics", "telemetry", "transport"]),
    ("replay", &["clock", "capture", "decisions", "director", "pool", "prefix", "request", "scheduling"]),
    ("simulate", &["clock", "datalayer", "director", "flow", "pool", "request", "telemetry"]),
];

/// For each folder of the core, the folders that it may use.
const CORE_MAY_USE: &[(&str, &[&str])] = &[
    ("clock", &[]),
    ("pool", &["clock"]),
    ("request", &[]),
    ("prefix", &["pool", "request"]),
    ("latency", &[]),
    ("scheduling", &["pool", "request"]),
    ("flow", &["clock", "pool"]),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Files below `folder` of the project, with their text. Files that are no text are left out.
fn files(folder: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder);
        for entry in entries.unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "new") {
                // A snapshot that waits to be accepted; git does not see it.
            } else if let Ok(text) = std::fs::read_to_string(&path) {
                found.push((path.strip_prefix(root()).unwrap().to_owned(), text));
            }
        }
    }
    found.sort();
    found
}

/// The Rust files of a folder, of which there is at least one: a folder that got another name must not pass unseen.
fn rust_files(folder: &str) -> impl Iterator<Item = (PathBuf, String)> {
    let mut found = files(folder);
    found.retain(|(path, _)| path.extension().is_some_and(|extension| extension == "rs"));
    assert!(!found.is_empty(), "no Rust file in {folder}");
    found.into_iter()
}

/// The folder of a crate's `src/` that a file belongs to.
fn folder_of(path: &Path) -> Option<String> {
    let mut parts = path.components().map(|part| part.as_os_str().to_str().unwrap_or_default());
    parts.find(|part| *part == "src")?;
    Some(parts.next()?.trim_end_matches(".rs").to_owned())
}

/// True for files that only tests see.
fn is_test(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_str().is_some_and(|name| name.ends_with("tests.rs")))
        || path.components().any(|part| part.as_os_str() == "tests")
        || is_declared_for_tests(path)
}

/// True if the module above the file declares it for tests alone, as it does with what writes pages of `docs/`.
fn is_declared_for_tests(path: &Path) -> bool {
    let Some(name) = path.file_stem().and_then(|stem| stem.to_str()) else { return false };
    ["lib.rs", "mod.rs"].into_iter().any(|above| {
        std::fs::read_to_string(root().join(path.with_file_name(above)))
            .is_ok_and(|text| text.contains(&format!("#[cfg(test)]\nmod {name};")))
    })
}

/// The code before the test module, without comments.
fn code(text: &str) -> String {
    let text = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

/// Names after `crate::`, also in `use crate::{a::…, b::…}`.
fn used(code: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let before = code[..at].chars().next_back().unwrap_or(' ');
        if before.is_alphanumeric() || before == '_' || before == ':' || before == '$' {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut name = String::new();
            for character in group.chars() {
                match character {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => {
                        names.insert(head(&std::mem::take(&mut name)));
                    }
                    _ if depth == 0 => name.push(character),
                    _ => {}
                }
            }
            names.insert(head(&name));
        } else {
            names.insert(head(rest));
        }
    }
    names.remove("");
    names
}

fn head(path: &str) -> String {
    path.trim_start()
        .chars()
        .take_while(|character| character.is_alphanumeric() || *character == '_')
        .collect()
}

/// Uses of folders that the table does not allow, for the crate in `folder`.
fn forbidden_uses(folder: &str, table: &[(&str, &[&str])]) -> Vec<String> {
    let may_use: BTreeMap<&str, &[&str]> = table.iter().copied().collect();
    let mut wrong = Vec::new();
    for (path, text) in rust_files(folder) {
        let Some(folder) = folder_of(&path) else { continue };
        if ["lib", "main", "cli"].contains(&folder.as_str()) || is_test(&path) {
            continue;
        }
        let Some(allowed) = may_use.get(folder.as_str()) else {
            wrong.push(format!("{}: the folder {folder} is not in the table", path.display()));
            continue;
        };
        for name in used(&code(&text)) {
            if name != folder && !allowed.contains(&name.as_str()) {
                wrong.push(format!("{} uses {name}", path.display()));
            }
        }
    }
    wrong
}

#[test]
fn folders_use_only_what_they_may() {
    let wrong = [forbidden_uses("src", MAY_USE), forbidden_uses("crates/core/src", CORE_MAY_USE)].concat();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Edges of a table that no file uses.
fn unused_edges(folder: &str, table: &[(&str, &[&str])]) -> Vec<String> {
    let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (path, text) in rust_files(folder) {
        let Some(folder) = folder_of(&path).filter(|_| !is_test(&path)) else { continue };
        uses.entry(folder).or_default().extend(used(&code(&text)));
    }
    let edges = table.iter().flat_map(|(folder, allowed)| allowed.iter().map(move |other| (*folder, *other)));
    let idle = edges.filter(|(folder, other)| !uses.get(*folder).is_some_and(|used| used.contains(*other)));
    idle.map(|(folder, other)| format!("{folder} does not use {other}")).collect()
}

#[test]
fn every_edge_that_folders_may_have_is_used() {
    let idle = [unused_edges("src", MAY_USE), unused_edges("crates/core/src", CORE_MAY_USE)].concat();
    assert!(idle.is_empty(), "take these out of the table:\n{}", idle.join("\n"));
}

#[test]
fn the_core_and_the_tokens_know_no_protocol_no_cluster_and_no_exporter() {
    let outside =
        ["tonic", "prost", "kube", "hyper", "axum", "prometheus", "opentelemetry", "rustls", "reqwest"];
    for folder in ["crates/core", "crates/tokens"] {
        let manifest = std::fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
        for name in outside {
            let named = manifest.lines().any(|line| line.starts_with(name));
            assert!(!named, "{folder} depends on {name}");
        }
    }
}

#[test]
fn source_files_hold_one_concept() {
    let long: Vec<String> = ["src", "crates", "tests", "benches"]
        .into_iter()
        .flat_map(rust_files)
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(_, lines)| *lines > LONGEST_FILE)
        .map(|(path, lines)| format!("{}: {lines} lines", path.display()))
        .collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}

#[test]
fn scheduling_neither_waits_nor_looks_at_the_clock_nor_locks() {
    for (path, text) in rust_files("crates/core/src/scheduling") {
        if is_test(&path) {
            continue;
        }
        let code = code(&text);
        for word in ["async ", ".await", "Instant::now", "SystemTime::now", "parking_lot"] {
            assert!(!code.contains(word), "{} contains {word:?}", path.display());
        }
    }
}

#[test]
fn only_the_protocol_folder_names_protocol_messages() {
    for (path, text) in rust_files("src") {
        let folder = folder_of(&path).unwrap_or_default();
        if folder == "extproc" || is_test(&path) {
            continue;
        }
        assert!(!code(&text).contains("extproc::wire"), "{} names protocol messages", path.display());
    }
}

#[test]
fn a_plugin_uses_no_other_plugin_but_the_producer_whose_data_it_reads() {
    let roles = ["filters", "scorers", "pickers", "profiles"];
    for role in roles.into_iter().chain(["producers"]) {
        for (path, text) in rust_files(&format!("src/plugins/{role}")) {
            for other in roles {
                let edge = format!("plugins::{other}::");
                assert!(is_test(&path) || !code(&text).contains(&edge), "{} uses {edge}", path.display());
            }
        }
    }
}

#[test]
fn no_file_names_a_place_on_one_machine() {
    let places = [concat!("/wo", "rk/"), concat!("/tm", "p/"), concat!("/ro", "ot/"), concat!("/ho", "me/")];
    let folders = ["src", "crates", "tests", "benches", "deploy", "docs", "config", ".ci"];
    let tops =
        ["Makefile", "README.md", "CONTRIBUTING.md", "SECURITY.md", "Cargo.toml", "deny.toml", "clippy.toml"];
    let alone = tops
        .into_iter()
        .filter_map(|name| Some((PathBuf::from(name), std::fs::read_to_string(root().join(name)).ok()?)));
    for (path, text) in folders.into_iter().flat_map(files).chain(alone) {
        for place in places {
            assert!(!text.contains(place), "{} contains {place}", path.display());
        }
    }
}

#[test]
fn links_in_the_documents_lead_somewhere() {
    let mut documents: Vec<(PathBuf, String)> = files("docs");
    documents.extend(files("benches/runs"));
    for name in ["README.md", "CONTRIBUTING.md", "SECURITY.md"] {
        documents
            .extend(std::fs::read_to_string(root().join(name)).ok().map(|text| (PathBuf::from(name), text)));
    }
    for (path, text) in
        documents.iter().filter(|(path, _)| path.extension().is_some_and(|extension| extension == "md"))
    {
        for (at, _) in text.match_indices("](") {
            let target = text[at + 2..].split([')', '#']).next().unwrap_or_default();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            let target = root().join(path).parent().unwrap().join(target);
            assert!(target.exists(), "{}: no {}", path.display(), target.display());
        }
    }
}
