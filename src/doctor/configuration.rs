//! What is wrong with a configuration or a command line, whether a picker runs with it or not.

use serde_json::Value;

use super::{Family, Finding, Rule, texts};

const FAMILY: Family = Family::Configuration;

const FAULTY: Rule = Rule::error(
    "configuration-faulty",
    FAMILY,
    "The configuration has an error.",
    "A picker with it does not start, and a reload is refused.",
);
const WARNING: Rule = Rule::warning(
    "configuration-warning",
    FAMILY,
    "Something in the configuration has no effect, is deprecated, or does what is rarely meant.",
    "The picker does not do what the line seems to say, or a later version will not accept it.",
);
const FLAG: Rule = Rule::warning(
    "flag-warning",
    FAMILY,
    "A flag of the command line is deprecated, has no effect, or contradicts another one.",
    "What it asks for does not happen, or a later version will not accept it.",
);

/// The rules of this file.
pub const RULES: &[&Rule] = &[&FAULTY, &WARNING, &FLAG];

/// One problem of a configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remark {
    /// The document is refused because of this problem.
    pub refused: bool,
    /// The document, the line and the path of the problem.
    pub place: String,
    /// The problem, as a text for people.
    pub message: String,
    /// The line that solves the problem, if it is known.
    pub mend: Option<String>,
}

/// Returns a finding for each remark about a configuration.
pub fn findings(remarks: &[Remark]) -> Vec<Finding> {
    remarks
        .iter()
        .map(|remark| {
            let rule = if remark.refused { &FAULTY } else { &WARNING };
            let renames = remark.mend.clone().unwrap_or_else(|| {
                "the line as the problem says; `pointsman migrate --config-file FILE` writes deprecated ones anew".into()
            });
            rule.found(remark.place.clone(), remark.message.clone(), renames)
        })
        .collect()
}

/// Returns a finding for each warning that the program gives of a command line.
pub fn flags(subject: &str, warnings: &[String]) -> Vec<Finding> {
    warnings
        .iter()
        .map(|warning| {
            let today = warning
                .split_once(" is spelled ")
                .map(|(_, new)| new.split([' ', ';']).next().unwrap_or(new));
            let instead = warning.split_once("deprecated; use ").map(|(_, new)| new);
            let mend = match today.or(instead) {
                Some(new) => format!("`{new}` in its place"),
                None => "the command line without it, or with a value that fits".to_owned(),
            };
            FLAG.found(subject, warning.clone(), mend)
        })
        .collect()
}

/// Returns the findings that a running picker reports of its own configuration and command line, in `warnings` of
/// `/debug/config`.
pub fn running(url: &str, config: &Value) -> Vec<Finding> {
    let warnings = |kind: &str| texts(&config["warnings"][kind]).into_iter().map(str::to_owned);
    let remarks: Vec<Remark> = warnings("configuration")
        .map(|message| Remark { place: url.to_owned(), message, ..Remark::default() })
        .collect();
    let mut found = findings(&remarks);
    found.extend(flags(url, &warnings("command_line").collect::<Vec<_>>()));
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn deprecated_flags_are_told_with_their_new_names() {
        let warnings = [
            "flag --poolName is spelled --pool-name today; pools of…".to_owned(),
            "flag --lora-info-metric is deprecated; use loraSpec of x".to_owned(),
            "flag --epp-mode has no effect: y".to_owned(),
        ];
        let found = flags("p", &warnings);
        assert_eq!(found[0].mend, "`--pool-name` in its place");
        assert_eq!(found[1].mend, "`loraSpec of x` in its place");
        assert!(found.iter().all(|finding| finding.rule.name == "flag-warning"), "{found:?}");
    }

    #[test]
    fn a_running_picker_tells_its_warnings() {
        let config = json!({"warnings": {"configuration": ["f:1: old"], "command_line": ["flag --x"]}});
        let names: Vec<&str> = running("u", &config).iter().map(|finding| finding.rule.name).collect();
        assert_eq!(names, ["configuration-warning", "flag-warning"]);
        assert!(running("u", &json!({})).is_empty());
        let refused = Remark { refused: true, ..Remark::default() };
        assert_eq!(findings(&[refused])[0].rule.name, "configuration-faulty");
    }
}
