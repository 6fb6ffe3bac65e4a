//! No two files import each other, directly or through others.
//!
//! A file has an edge to another one of its crate
//! - if it imports a name that the other one defines, wherever it takes the name from: a re-export is followed to the
//!   file that defines the name;
//! - if its code names a path that leads to such a name, as in `flow::Outcome` or `super::Pool`.
//!
//! So a file that uses what its `mod.rs` defines has an edge to that `mod.rs`, and a `mod.rs` whose own code uses a
//! name of a file below it has an edge to that file. Declaring a file (`mod a;`) is no edge, and neither is a public
//! import in a `mod.rs` or `lib.rs` of what lies below it: that only shows the name. Code for tests makes no edges.
//! Methods make none either, for they are found by the type and not by a path.

use std::collections::{BTreeMap, BTreeSet};

use super::modules::{Import, Modules, modules};

/// For each file, the files that it uses, each with a name that it takes from there.
type Edges = BTreeMap<String, BTreeMap<String, String>>;

/// Where a path leads.
enum Place {
    Module(Vec<String>),
    /// The module that defines the name.
    Name(Vec<String>),
}

/// Deeper chains of re-exports are not followed; a chain that leads back to itself ends here.
const LONGEST_CHAIN: usize = 16;

fn resolve(modules: &Modules, scope: &[String], path: &[String], chain: usize) -> Option<Place> {
    if chain > LONGEST_CHAIN {
        return None;
    }
    let (first, rest) = path.split_first()?;
    let start = match first.as_str() {
        "crate" => Vec::new(),
        "self" => scope.to_vec(),
        "super" => scope[..scope.len().checked_sub(1)?].to_vec(),
        _ => return within(modules, scope, path, chain),
    };
    if rest.is_empty() {
        return Some(Place::Module(start));
    }
    if rest[0] == "super" {
        return resolve(modules, &start, rest, chain);
    }
    within(modules, &start, rest, chain)
}

/// Follows a path from a module downwards.
fn within(modules: &Modules, scope: &[String], path: &[String], chain: usize) -> Option<Place> {
    let Some((first, rest)) = path.split_first() else { return Some(Place::Module(scope.to_vec())) };
    let module = modules.get(scope)?;
    if module.defined.contains(first) && (rest.is_empty() || !module.children.contains(first)) {
        return Some(Place::Name(scope.to_vec()));
    }
    // A module and a name may be spelt alike: a path that ends here means the name.
    let named = module.imports.iter().filter(|import| import.name == *first);
    for import in named.filter(|import| import.path != [first.clone()]) {
        match resolve(modules, scope, &import.path, chain + 1) {
            Some(Place::Name(place)) if rest.is_empty() || !module.children.contains(first) => {
                return Some(Place::Name(place));
            }
            Some(Place::Module(place)) => return within(modules, &place, rest, chain + 1),
            _ => {}
        }
    }
    if module.children.contains(first) {
        return within(modules, &[scope, std::slice::from_ref(first)].concat(), rest, chain);
    }
    let everything = module.imports.iter().filter(|import| import.name == "*");
    everything.filter_map(|import| resolve(modules, scope, &import.path, chain + 1)).find_map(|place| {
        match place {
            Place::Module(place) if place != scope => within(modules, &place, path, chain + 1),
            _ => None,
        }
    })
}

/// The file that defines the name that a path leads to.
fn definer(modules: &Modules, scope: &[String], path: &[String]) -> Option<String> {
    match resolve(modules, scope, path, 0)? {
        Place::Name(module) => Some(modules[&module].file.clone()),
        Place::Module(_) => None,
    }
}

/// True for a public import in a module of something that lies below that module.
fn only_shows(modules: &Modules, scope: &[String], import: &Import) -> bool {
    let below = |place: &[String]| place.len() > scope.len() && place.starts_with(scope);
    import.is_public
        && match resolve(modules, scope, &import.path, 0) {
            Some(Place::Name(place) | Place::Module(place)) => below(&place),
            None => false,
        }
}

fn edges(modules: &Modules) -> Edges {
    let mut edges = Edges::new();
    for (scope, module) in modules {
        let imported = module.imports.iter().filter(|import| !only_shows(modules, scope, import));
        for path in imported.map(|import| &import.path).chain(&module.paths) {
            if let Some(file) = definer(modules, scope, path).filter(|file| *file != module.file) {
                edges.entry(module.file.clone()).or_default().entry(file).or_insert_with(|| path.join("::"));
            }
        }
    }
    edges
}

/// Files that can be reached from `file`.
fn reached<'a>(edges: &'a Edges, file: &'a str) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    let mut open = vec![file];
    while let Some(file) = open.pop() {
        for next in edges.get(file).into_iter().flat_map(BTreeMap::keys) {
            if found.insert(next.as_str()) {
                open.push(next);
            }
        }
    }
    found
}

/// The circles, each as the edges between its files.
fn circles(edges: &Edges) -> Vec<Vec<String>> {
    let reached: BTreeMap<&str, BTreeSet<&str>> =
        edges.keys().map(|file| (file.as_str(), reached(edges, file))).collect();
    let reaches = |from: &str, to: &str| reached.get(from).is_some_and(|found| found.contains(to));
    let mut told = BTreeSet::new();
    let mut found = Vec::new();
    for file in edges.keys().filter(|file| reaches(file, file)) {
        let circle: Vec<&str> = edges
            .keys()
            .map(String::as_str)
            .filter(|other| reaches(file, other) && reaches(other, file))
            .collect();
        if told.insert(circle[0].to_owned()) {
            let between = circle.iter().flat_map(|from| {
                let uses = edges[*from].iter().filter(|(to, _)| circle.contains(&to.as_str()));
                uses.map(move |(to, name)| format!("{from} uses {to} ({name})"))
            });
            found.push(between.collect());
        }
    }
    found
}

fn circles_of_crate(folder: &str) -> Vec<Vec<String>> {
    let files =
        super::rust_files(folder).map(|(path, text)| (path.to_str().unwrap().to_owned(), text)).collect();
    circles(&edges(&modules(&files, &format!("{folder}/lib.rs"))))
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let found: Vec<String> = ["src", "crates/core/src", "crates/sim/src", "crates/tokens/src"]
        .into_iter()
        .flat_map(circles_of_crate)
        .map(|circle| circle.join("\n"))
        .collect();
    assert!(found.is_empty(), "{} circles:\n{}", found.len(), found.join("\n\n"));
}

/// The circles of a crate of these files.
fn circles_of(files: &[(&str, &str)]) -> Vec<Vec<String>> {
    let files = files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
    circles(&edges(&modules(&files, "src/lib.rs")))
}

#[test]
fn two_files_that_import_each_other_are_a_circle() {
    let found = circles_of(&[
        ("src/lib.rs", "mod a;\nmod b;"),
        ("src/a.rs", "use crate::b::B;\npub struct A(B);"),
        ("src/b.rs", "pub struct B;\nfn of(a: &super::a::A) {}"),
    ]);
    assert_eq!(found, [["src/a.rs uses src/b.rs (crate::b::B)", "src/b.rs uses src/a.rs (super::a::A)"]]);
}

#[test]
fn a_circle_is_seen_through_re_exports_groups_modules_and_other_names() {
    let found = circles_of(&[
        ("src/lib.rs", "mod a; mod folder; mod c;"),
        ("src/a.rs", "use crate::{folder::{self, Else as Other}, c};\nfn a() -> folder::B { c::C }"),
        ("src/folder/mod.rs", "mod b;\npub use b::{B, Else};"),
        ("src/folder/b.rs", "use crate::c::*;\npub struct B; pub enum Else { C(C) }"),
        ("src/c.rs", "pub struct C;\nimpl C { fn new() { crate::a::a() } }"),
    ]);
    assert_eq!(found.len(), 1, "{found:?}");
    let files: BTreeSet<&str> = found[0].iter().filter_map(|edge| edge.split(' ').next()).collect();
    assert_eq!(files, BTreeSet::from(["src/a.rs", "src/c.rs", "src/folder/b.rs"]));
}

#[test]
fn a_module_that_shows_its_files_and_defines_what_they_use_is_no_circle() {
    let found = circles_of(&[
        ("src/lib.rs", "mod folder;\n#[cfg(test)]\nmod tests { use crate::folder::A; }"),
        ("src/folder/mod.rs", "mod a;\nmod b;\npub use a::A;\npub(crate) use b::B;\npub struct Shared;"),
        ("src/folder/a.rs", "use super::{B, Shared};\npub struct A(B, Shared); // super::b\n"),
        ("src/folder/b.rs", "use super::Shared;\n/// `crate::A`\npub struct B;\n#[cfg(test)]\nuse super::A;"),
    ]);
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn a_module_whose_code_uses_a_file_below_that_uses_it_is_a_circle() {
    let found = circles_of(&[
        ("src/lib.rs", "mod folder;"),
        ("src/folder/mod.rs", "mod a;\npub use a::A;\npub struct Shared;\nfn all() -> A { A }"),
        ("src/folder/a.rs", "use super::Shared;\npub struct A(Shared);"),
    ]);
    assert_eq!(found.len(), 1, "{found:?}");
}
