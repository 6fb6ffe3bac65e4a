//! A finding, and the rule that made it.

use serde_json::{Value, json};

/// How grave a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Requests go on, less well than they could, or something will break later.
    Warning,
    /// Requests fail, or something that was asked for does not work.
    Error,
}

impl Severity {
    /// Lower-case name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }

    /// Exit code of a command whose gravest finding this is.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Warning => 1,
            Self::Error => 2,
        }
    }
}

/// What a rule looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// The running picker.
    Picker,
    /// Its configuration and command line.
    Configuration,
    /// The model servers.
    Engines,
    /// Several replicas of the picker.
    Replicas,
    /// The cluster.
    Cluster,
    /// Envoy.
    Envoy,
    /// Dashboards and alerts.
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

    /// Lower-case name.
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

/// A rule: what it finds, and why that matters.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    /// Name, in lower case with dashes.
    pub name: &'static str,
    /// What it looks at.
    pub family: Family,
    /// How grave its findings are.
    pub severity: Severity,
    /// What it finds, as a sentence.
    pub finds: &'static str,
    /// Why that matters, as a sentence.
    pub why: &'static str,
}

impl Rule {
    /// A rule whose findings are errors.
    pub(crate) const fn error(
        name: &'static str,
        family: Family,
        finds: &'static str,
        why: &'static str,
    ) -> Self {
        Self { name, family, severity: Severity::Error, finds, why }
    }

    /// A rule whose findings are warnings.
    pub(crate) const fn warning(
        name: &'static str,
        family: Family,
        finds: &'static str,
        why: &'static str,
    ) -> Self {
        Self { name, family, severity: Severity::Warning, finds, why }
    }

    /// A finding of this rule. `subject` is what it was found at, `problem` what is wrong, and `mend` the line that
    /// mends it.
    pub fn found(
        &'static self,
        subject: impl Into<String>,
        problem: impl Into<String>,
        mend: impl Into<String>,
    ) -> Finding {
        Finding { rule: self, subject: subject.into(), problem: problem.into(), mend: mend.into() }
    }
}

/// The texts of a list in a document; none where it is no list.
pub fn texts(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// The first five names, and how many more there are.
pub fn few<'n>(names: impl IntoIterator<Item = &'n str>) -> String {
    const SHOWN: usize = 5;
    let names: Vec<&str> = names.into_iter().collect();
    let shown = names.iter().take(SHOWN).copied().collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN { format!("{shown} and {} more", names.len() - SHOWN) } else { shown }
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The rule that found it.
    pub rule: &'static Rule,
    /// What it was found at: an address, the name of an object.
    pub subject: String,
    /// What is wrong.
    pub problem: String,
    /// The line that mends it.
    pub mend: String,
}

impl Finding {
    /// As JSON: `{rule, family, severity, subject, problem, why, mend}`.
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
