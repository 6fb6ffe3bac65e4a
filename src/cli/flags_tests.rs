//! The flags in the code and in `docs/configuration.md` say the same.

use std::collections::{BTreeMap, BTreeSet};

use clap::{Arg, Args, Command};

use super::ServeFlags;
use super::check::CheckArgs;
use super::demo::DemoArgs;
use super::older_flags::OlderFlag;

const PAGE: &str = include_str!("../../docs/configuration.md");

/// Words in the page's column of defaults for flags without a default.
const ABSENT: [&str; 5] = ["empty", "none", "unset", "all addresses", "all that are safe"];

fn serve() -> Command {
    ServeFlags::augment_args(Command::new("pointsman"))
}

/// Flags of `command` without dashes.
fn names(command: &Command) -> BTreeSet<String> {
    command.get_arguments().filter_map(Arg::get_long).map(str::to_owned).collect()
}

/// Rows of the page's tables of flags: the flag, and the column of its default.
fn rows() -> BTreeMap<String, String> {
    let section = PAGE.split_once("\n## Flags of serve\n").expect("the page has a section of flags").1;
    let section = section.split("\n### Accepted without effect\n").next().unwrap();
    let mut rows = BTreeMap::new();
    for line in section.lines().filter(|line| line.starts_with("| `--")) {
        let mut cells = line.split(" | ");
        let flag = cells.next().unwrap().trim_start_matches("| `--").split('`').next().unwrap();
        let default = cells.next().unwrap().replace('`', "");
        assert!(rows.insert(flag.to_owned(), default).is_none(), "--{flag} has two rows");
    }
    rows
}

#[test]
fn every_flag_of_serve_has_one_row_in_the_page_and_every_row_is_a_flag() {
    let command = serve();
    let shown: BTreeSet<String> = command
        .get_arguments()
        .filter(|argument| !argument.is_hide_set())
        .filter_map(Arg::get_long)
        .map(str::to_owned)
        .collect();
    assert!(shown.len() > 50, "{shown:?}");
    assert_eq!(rows().into_keys().collect::<BTreeSet<_>>(), shown);
    for hidden in command.get_arguments().filter(|argument| argument.is_hide_set()) {
        let name = hidden.get_long().unwrap();
        assert!(PAGE.contains(&format!("`--{name}`")), "the page does not name --{name}");
    }
}

#[test]
fn every_default_in_the_page_is_the_default_of_the_flag() {
    let command = serve();
    let rows = rows();
    for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
        let name = argument.get_long().unwrap();
        let written = &rows[name];
        let default = argument.get_default_values().first().map(|value| value.to_string_lossy());
        match default.filter(|default| !default.is_empty()) {
            // A word behind a colon may say what the value means.
            Some(default) => assert!(
                written.split(':').next() == Some(&*default),
                "--{name}: the page says \"{written}\", the flag \"{default}\""
            ),
            None => assert!(
                ABSENT.iter().any(|word| written.starts_with(word)),
                "--{name}: the page says \"{written}\", the flag has no default"
            ),
        }
    }
}

#[test]
fn every_flag_that_the_page_names_exists() {
    let commands = [
        serve(),
        CheckArgs::augment_args(Command::new("check")),
        DemoArgs::augment_args(Command::new("demo")),
        pointsman_sim::SimArgs::augment_args(Command::new("sim")),
    ];
    let known: BTreeSet<String> = commands.iter().flat_map(names).collect();
    let mut found = 0;
    // The sidecar's flags are compared where they are read.
    let (before, after) = PAGE.split_once("\n## Flags of sidecar\n").unwrap();
    let page = format!("{before}{}", &after[after.find("\n## ").unwrap()..]);
    for (at, _) in page.match_indices("--") {
        let before = page[..at].chars().next_back();
        let rest = &page[at + 2..];
        let name: String = rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
        let is_flag = name.starts_with(|c: char| c.is_ascii_lowercase())
            && before.is_none_or(|c| !c.is_ascii_alphanumeric() && c != '-');
        // A group of flags ends in a dash; `--flag` stands for any.
        let is_group = name.ends_with('-');
        if !is_flag {
            continue;
        }
        found += 1;
        let of_group = |flag: &String| is_group && flag.starts_with(&name);
        let older = OlderFlag::named(&name).is_some() || is_group;
        // Today's name in camel case, as older command lines have it.
        let camel = name.contains(|c: char| c.is_ascii_uppercase());
        assert!(
            known.contains(&name)
                || known.iter().any(of_group)
                || older
                || camel
                || ["help", "version", "flag"].contains(&&*name),
            "the page names --{name}, which does not exist"
        );
    }
    assert!(found > 100, "{found} flags were looked at");
}

#[test]
fn every_flag_of_check_is_named_in_its_section() {
    let section = PAGE.split_once("\n## check\n").unwrap().1.split("\n## ").next().unwrap();
    for name in names(&CheckArgs::augment_args(Command::new("check"))) {
        assert!(section.contains(&format!("--{name}")), "the section on check does not name --{name}");
    }
}
