//! Writes `docs/doctor.md` from the rules.

use std::fmt::Write as _;

use super::{Family, RULES, Rule};
use crate::generated::{keep, wrapped};

const INTRODUCTION: &str = include_str!("rules_doc.md");

fn page() -> String {
    let mut out = INTRODUCTION.to_owned();
    for family in Family::ALL {
        let rules: Vec<&Rule> =
            RULES.iter().copied().flatten().copied().filter(|rule| rule.family == family).collect();
        let title = family.name();
        let title = title[..1].to_uppercase() + &title[1..];
        write!(out, "\n### {title}\n").unwrap();
        for rule in rules {
            let text = format!("* `{}` ({}): {} {}", rule.name, rule.severity.name(), rule.finds, rule.why);
            write!(out, "\n{}", wrapped(&text, "  ")).unwrap();
        }
        out.push('\n');
    }
    out
}

#[test]
fn the_page_of_findings_is_made_from_the_rules() {
    keep("docs/doctor.md", &page());
}
