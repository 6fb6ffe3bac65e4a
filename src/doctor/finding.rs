//! A finding of doctor, and the rule that made it.

use serde_json::{Value, json};

/// How serious a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Requests are served, but less well than possible, or something will break later.
    Warning,
    /// Requests fail, or something that was configured does not work.
    Error,
}

impl Severity {
    /// The name in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }

    /// The exit code of a command whose most serious finding has this severity.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Warning => 1,
            Self::Error => 2,
        }
    }
}

/// The part of an installation that a rule examines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// The running picker.
    Picker,
    /// The configuration and the command line of a picker.
    Configuration,
    /// The model servers.
    Engines,
    /// The replicas of a picker, compared with each other.
    Replicas,
    /// The Kubernetes cluster.
    Cluster,
    /// The Envoy that asks the picker.
    Envoy,
    /// The dashboards and the alerts.
    Monitoring,
}

impl Family {
    /// All families, in the order of reports.
    pub const ALL: [Self; 7] = [
        Self::Picker,
        Self::Configuration,
        Self::Engines,
        Self::Replicas,
        Self::Cluster,
        Self::Envoy,
        Self::Monitoring,
    ];

    /// The name in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Picker => "picker",
            Self::Configuration => "configuration",
            Self::Engines => "engines",
            Self::Replicas => "replicas",
            Self::Cluster => "cluster",
            Self::Envoy => "envoy",
            Self::Monitoring => "monitoring",
        }
    }
}

/// A rule: the problem that it finds, and why the problem matters.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    /// The name, in lower case with dashes.
    pub name: &'static str,
    /// The part of an installation that the rule examines.
    pub family: Family,
    /// The severity of its findings.
    pub severity: Severity,
    /// The problem that it finds, as a sentence.
    pub finds: &'static str,
    /// Why the problem matters, as a sentence.
    pub why: &'static str,
}

impl Rule {
    /// Makes a rule whose findings are errors.
    pub(crate) const fn error(
        name: &'static str,
        family: Family,
        finds: &'static str,
        why: &'static str,
    ) -> Self {
        Self { name, family, severity: Severity::Error, finds, why }
    }

    /// Makes a rule whose findings are warnings.
    pub(crate) const fn warning(
        name: &'static str,
        family: Family,
        finds: &'static str,
        why: &'static str,
    ) -> Self {
        Self { name, family, severity: Severity::Warning, finds, why }
    }

    /// Makes a finding of this rule. `subject` names the object that has the problem, `problem` says what is wrong with
    /// it, and `mend` is the line that solves it.
    pub fn found(
        &'static self,
        subject: impl Into<String>,
        problem: impl Into<String>,
        mend: impl Into<String>,
    ) -> Finding {
        Finding { rule: self, subject: subject.into(), problem: problem.into(), mend: mend.into() }
    }
}

/// The texts of a list in a document. Empty if `list` is not a list.
pub fn texts(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// The first five names, and the number of the others.
pub fn few<'n>(names: impl IntoIterator<Item = &'n str>) -> String {
    const SHOWN: usize = 5;
    let names: Vec<&str> = names.into_iter().collect();
    let shown = names.iter().take(SHOWN).copied().collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN { format!("{shown} and {} more", names.len() - SHOWN) } else { shown }
}

/// A problem of an installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The rule that found the problem.
    pub rule: &'static Rule,
    /// The object that has the problem, such as an address or a name.
    pub subject: String,
    /// What is wrong.
    pub problem: String,
    /// The line that solves the problem.
    pub mend: String,
}

impl Finding {
    /// The finding as JSON: `{rule, family, severity, subject, problem, why, mend}`.
    pub fn to_json(&self) -> Value {
        json!({
            "rule": self.rule.name,
            "family": self.rule.family.name(),
            "severity": self.rule.severity.name(),
            "subject": self.subject,
            "problem": self.problem,
            "why": self.rule.why,
            "mend": self.mend,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_names_are_shown_and_the_others_counted() {
        let names: Vec<String> = (0..7).map(|it| it.to_string()).collect();
        assert_eq!(few(names.iter().map(String::as_str)), "0, 1, 2, 3, 4 and 2 more");
        assert_eq!(few(["a", "b"]), "a, b");
        assert_eq!(texts(&json!(["a", 1, "b"])), ["a", "b"]);
        assert_eq!(texts(&json!(null)), [""; 0]);
    }
}
