//! A program that brings a plugin type of its own, as `docs/own-plugins.md` shows it.

use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn page() -> String {
    std::fs::read_to_string(root().join("docs/own-plugins.md")).unwrap()
}

/// The example's program, built if it is not there yet.
fn program() -> PathBuf {
    let folder = Path::new(env!("CARGO_BIN_EXE_pointsman")).parent().unwrap();
    let program = folder.join("examples/own_scorer");
    if !program.exists() {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
        let status = Command::new(cargo)
            .args(["build", "--locked", "--quiet", "--example", "own_scorer"])
            .current_dir(root())
            .status();
        assert!(status.unwrap().success());
    }
    program
}

#[test]
fn the_page_shows_the_program_that_the_tests_build() {
    let example = std::fs::read_to_string(root().join("examples/own_scorer.rs")).unwrap();
    assert!(page().contains(&format!("```rust\n{example}```")), "docs/own-plugins.md shows another program");
}

#[test]
fn a_program_with_a_scorer_of_its_own_takes_its_type_and_all_built_in_ones() {
    let page = page();
    let yaml = page.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    let check = |text: &str| {
        let output = Command::new(program()).args(["check", "--config-text", text]).output().unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    };
    let (good, said) = check(yaml);
    assert!(good && said.contains("type: zone-scorer"), "{said}");
    let (good, said) = check(&yaml.replace("zone: eu", "zoned: eu"));
    assert!(!good && said.contains("zoned"), "{said}");
    let output =
        Command::new(env!("CARGO_BIN_EXE_pointsman")).args(["check", "--config-text", yaml]).output();
    assert!(!output.unwrap().status.success(), "the program without it does not know the type");
}
