//! The source of the document.

use std::io::Read;
use std::path::PathBuf;

use crate::document::{MAX_DOCUMENT_BYTES, Problems};

/// The configuration that holds when none is given; it stands in the repository as a file.
const BUILT_IN: &str = include_str!("../../config/default.yaml");

/// Where the document comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ConfigSource {
    /// The built-in default.
    #[default]
    BuiltIn,
    /// A file, read once.
    File(PathBuf),
    /// Text on the command line.
    Text(String),
}

impl ConfigSource {
    /// From the values of `--config-file` and `--config-text`; an empty one counts as not given. Both at once is an
    /// error.
    pub fn from_flags(file: Option<PathBuf>, text: Option<String>) -> Result<Self, String> {
        let file = file.filter(|path| !path.as_os_str().is_empty());
        let text = text.filter(|text| !text.is_empty());
        match (file, text) {
            (Some(_), Some(_)) => Err("--config-file and --config-text exclude each other".to_owned()),
            (Some(path), None) => Ok(Self::File(path)),
            (None, Some(text)) => Ok(Self::Text(text)),
            (None, None) => Ok(Self::BuiltIn),
        }
    }

    /// The name of the document in findings.
    pub fn name(&self) -> String {
        match self {
            Self::BuiltIn => "built-in default".to_owned(),
            Self::File(path) => path.display().to_string(),
            Self::Text(_) => "--config-text".to_owned(),
        }
    }

    /// A digest of the text as it is now; an error if it cannot be read.
    pub fn digest(&self) -> std::io::Result<u64> {
        Ok(xxhash_rust::xxh64::xxh64(&self.bytes()?, 0))
    }

    fn bytes(&self) -> std::io::Result<Vec<u8>> {
        match self {
            Self::BuiltIn => Ok(BUILT_IN.as_bytes().to_vec()),
            Self::Text(text) => Ok(text.clone().into_bytes()),
            Self::File(path) => {
                let mut bytes = Vec::new();
                let limit = MAX_DOCUMENT_BYTES as u64 + 1;
                std::fs::File::open(path)?.take(limit).read_to_end(&mut bytes)?;
                Ok(bytes)
            }
        }
    }

    /// The text; `None` if it could not be read, which `problems` then says.
    pub(super) fn text(&self, problems: &mut Problems) -> Option<String> {
        let unreadable = |error| problems.error(0, "", format!("cannot be read: {error}"));
        let bytes = self.bytes().map_err(unreadable).ok()?;
        String::from_utf8(bytes)
            .map_err(|error| {
                let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
                let line = memchr::memchr_iter(b'\n', before).count() as u32 + 1;
                problems.error(line, "", "holds bytes that are not UTF-8");
            })
            .ok()
    }

    /// The first document of a text with several, as the reference reads it; `problems` says that there are more. Marks
    /// of documents stand in the first column, where no other text can begin with three hyphens.
    pub(super) fn first_document<'t>(text: &'t str, problems: &mut Problems) -> &'t str {
        let is_mark = |line: &str| line == "---" || line.starts_with("--- ");
        let holds = |line: &str| {
            let line = if is_mark(line) { line[3..].trim_start() } else { line };
            !line.is_empty() && !line.starts_with('#')
        };
        let (mut at, mut begun) = (0, false);
        for (line, number) in text.split_inclusive('\n').zip(1u32..) {
            if begun && is_mark(line.trim_end()) {
                if text[at..].lines().any(|line| holds(line.trim_end())) {
                    let message = "begins a second document, which is not read; leave it out";
                    problems.warning(number, "", message);
                }
                return &text[..at];
            }
            begun |= holds(line.trim_end());
            at += line.len();
        }
        text
    }

    /// The built-in default as text.
    pub(super) fn built_in() -> &'static str {
        BUILT_IN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_exclude_each_other_and_empty_ones_do_not_count() {
        let from = |file: &str, text: &str| ConfigSource::from_flags(Some(file.into()), Some(text.into()));
        assert!(from("a", "b").is_err());
        assert_eq!(from("a", ""), Ok(ConfigSource::File("a".into())));
        assert_eq!(from("", "b"), Ok(ConfigSource::Text("b".into())));
        assert_eq!(from("", ""), Ok(ConfigSource::BuiltIn));
    }

    #[test]
    fn of_several_documents_the_first_is_read_and_the_second_told() {
        for (text, first, told) in [
            ("a: 1\n", "a: 1\n", 0),
            ("---\na: 1\n---\n", "---\na: 1\n", 0),
            ("# c\n--- # d\na: 1\n---\n# e\n\n---\n", "# c\n--- # d\na: 1\n", 0),
            ("a: 1\r\n---\r\nb: 2\r\n", "a: 1\r\n", 2),
            ("a: |\n  ---\n  b\n---x: 1\n", "a: |\n  ---\n  b\n---x: 1\n", 0),
            ("a: 1\n--- {b: 2}", "a: 1\n", 2),
            ("", "", 0),
        ] {
            let mut problems = Problems::new("f");
            assert_eq!(ConfigSource::first_document(text, &mut problems), first, "{text}");
            let lines: Vec<u32> = problems.iter().map(|problem| problem.line).collect();
            let expected = if told == 0 { vec![] } else { vec![told] };
            assert_eq!(lines, expected, "{text}");
        }
    }

    #[test]
    fn bytes_that_are_not_utf8_are_told_with_their_line() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"a: 1\nb: \xff\n").unwrap();
        let mut problems = Problems::new("f");
        assert_eq!(ConfigSource::File(file.path().into()).text(&mut problems), None);
        assert_eq!(problems.iter().map(|problem| problem.line).collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn a_missing_file_is_a_problem_not_a_panic() {
        let mut problems = Problems::new("f");
        assert_eq!(ConfigSource::File("/nowhere/at/all".into()).text(&mut problems), None);
        assert!(problems.has_errors());
    }
}
