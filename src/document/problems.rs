//! Everything that is wrong or suspicious about a document, gathered rather than thrown.

use std::fmt;
use std::sync::Arc;

/// How grave a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The document is refused.
    Error,
    /// It is accepted, though something in it has no effect, is old, or does something rarely meant.
    Warning,
    /// No fault; a value was filled in.
    Note,
}

impl Level {
    /// Lower-case name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

/// One finding: `epp.yaml:14: plugins[2].parameters.blockSize: got "16", expected a whole number`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// How grave.
    pub level: Level,
    /// Name of the document.
    pub source: Arc<str>,
    /// Line, from 1; 0 if the finding belongs to no line.
    pub line: u32,
    /// Path of the field, as `a.b[0]`; empty for the document as a whole.
    pub path: String,
    /// The fault, and the value that would be right.
    pub message: String,
    /// What to write to mend it; `None` where the message says it, or nobody can know.
    pub remedy: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        if !self.path.is_empty() {
            write!(f, ": {}", self.path)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// Findings about one document, in the order they were made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems {
    source: Arc<str>,
    found: Vec<Problem>,
}

/// More findings than this are of no use to anyone.
const MAX_FINDINGS: usize = 500;

impl Problems {
    /// No findings yet about the document called `source`.
    pub fn new(source: &str) -> Self {
        Self { source: source.into(), found: Vec::new() }
    }

    /// Adds an error.
    pub fn error(&mut self, line: u32, path: impl Into<String>, message: impl Into<String>) {
        self.push(Level::Error, line, path, message);
    }

    /// Adds a warning.
    pub fn warning(&mut self, line: u32, path: impl Into<String>, message: impl Into<String>) {
        self.push(Level::Warning, line, path, message);
    }

    /// Adds a note.
    pub fn note(&mut self, line: u32, path: impl Into<String>, message: impl Into<String>) {
        self.push(Level::Note, line, path, message);
    }

    /// Says what to write to mend the finding that was added last.
    pub fn mend(&mut self, remedy: impl Into<String>) {
        if let Some(last) = self.found.last_mut() {
            last.remedy = Some(remedy.into());
        }
    }

    fn push(&mut self, level: Level, line: u32, path: impl Into<String>, message: impl Into<String>) {
        // Errors always get in: without the first of them the document would pass.
        if self.found.len() >= MAX_FINDINGS && (level != Level::Error || self.has_errors()) {
            return;
        }
        let (path, message) = (path.into(), message.into());
        self.found.push(Problem {
            level,
            source: Arc::clone(&self.source),
            line,
            path,
            message,
            remedy: None,
        });
    }

    /// True if the document must be refused.
    pub fn has_errors(&self) -> bool {
        self.found.iter().any(|problem| problem.level == Level::Error)
    }

    /// True if there is nothing to say.
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// All findings.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.found.iter()
    }

    /// Findings of one level.
    pub fn of(&self, level: Level) -> impl Iterator<Item = &Problem> {
        self.found.iter().filter(move |problem| problem.level == level)
    }

    /// Leaves errors and warnings only.
    pub fn drop_notes(&mut self) {
        self.found.retain(|problem| problem.level != Level::Note);
    }

    /// Orders findings by line; those without a line come last.
    pub fn sort(&mut self) {
        self.found.sort_by_key(|problem| (problem.line == 0, problem.line));
    }
}

impl fmt::Display for Problems {
    /// One line a finding, warnings and notes marked as such.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.found.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            match problem.level {
                Level::Error => write!(f, "{problem}")?,
                level => write!(f, "{}: {problem}", level.name())?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_reads_file_line_path_message() {
        let mut problems = Problems::new("epp.yaml");
        problems.error(14, "plugins[2].parameters.blockSize", "got \"16\", expected a whole number");
        problems.warning(0, "", "nothing here");
        assert_eq!(
            problems.to_string(),
            "epp.yaml:14: plugins[2].parameters.blockSize: got \"16\", expected a whole number\n\
             warning: epp.yaml: nothing here"
        );
    }

    #[test]
    fn findings_are_bounded_but_an_error_is_never_lost() {
        let mut problems = Problems::new("x");
        for line in 0..2000 {
            problems.note(line, "", "n");
        }
        problems.error(1, "", "e");
        assert!(problems.has_errors());
        assert!(problems.iter().count() <= MAX_FINDINGS + 1);
    }
}
