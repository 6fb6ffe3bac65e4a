//! Reads a few series of a metrics page.

/// The text of a metrics page, which is read line by line.
#[derive(Clone, Debug, Default)]
pub struct Page {
    text: String,
}

/// One sample of a page.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample<'p> {
    /// The name of the series.
    pub name: &'p str,
    labels: &'p str,
    /// The value of the sample.
    pub value: f64,
}

impl Sample<'_> {
    /// The value of a label, without its escapes.
    pub fn label(&self, wanted: &str) -> Option<String> {
        let mut rest = self.labels;
        loop {
            let (name, after) = rest.split_once("=\"")?;
            let name = name.trim_start_matches([',', ' ']).trim();
            let mut value = String::new();
            let mut characters = after.char_indices();
            let end = loop {
                match characters.next()? {
                    (at, '"') => break at,
                    (_, '\\') => match characters.next()?.1 {
                        'n' => value.push('\n'),
                        other => value.push(other),
                    },
                    (_, other) => value.push(other),
                }
            };
            if name == wanted {
                return Some(value);
            }
            rest = &after[end + 1..];
        }
    }
}

impl Page {
    /// Makes a page of this text. Lines that are not samples are skipped.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into() }
    }

    /// All samples of the page.
    pub fn samples(&self) -> impl Iterator<Item = Sample<'_>> {
        self.text.lines().filter(|line| !line.starts_with('#')).filter_map(sample)
    }

    /// The samples with this name.
    pub fn named<'p>(&'p self, name: &'p str) -> impl Iterator<Item = Sample<'p>> {
        self.samples().filter(move |sample| sample.name == name)
    }

    /// The sum of the samples with this name and this label; `None` if there are none.
    pub fn sum(&self, name: &str, label: Option<(&str, &str)>) -> Option<f64> {
        let fits = |sample: &Sample<'_>| {
            label.is_none_or(|(name, value)| sample.label(name).as_deref() == Some(value))
        };
        self.named(name).filter(fits).map(|sample| sample.value).reduce(|sum, value| sum + value)
    }

    /// Returns true if the page has this series, or a histogram with this name.
    pub fn has(&self, name: &str) -> bool {
        self.samples().any(|sample| {
            sample.name == name
                || sample
                    .name
                    .strip_prefix(name)
                    .is_some_and(|end| matches!(end, "_count" | "_sum" | "_bucket"))
        })
    }
}

fn sample(line: &str) -> Option<Sample<'_>> {
    let line = line.trim();
    let (name, labels, value) = if let Some((name, rest)) = line.split_once('{') {
        let (labels, value) = rest.rsplit_once('}')?;
        (name, labels, value)
    } else {
        let (name, value) = line.split_once(' ')?;
        (name, "", value)
    };
    let value = value.split_whitespace().next()?.parse().ok()?;
    Some(Sample { name: name.trim(), labels, value })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn samples_are_found_by_name_and_label() {
        let page = Page::new(
            "# HELP a b\na{x=\"1\",y=\"q\\\"}\\n\"} 2 17\na{x=\"2\"} 3.5\nb 1\nh_bucket{le=\"+Inf\"} 4\nrubbish\n",
        );
        assert_eq!(page.sum("a", None), Some(5.5));
        assert_eq!(page.sum("a", Some(("x", "2"))), Some(3.5));
        assert_eq!(page.sum("a", Some(("z", "2"))), None);
        assert_eq!(page.named("a").next().and_then(|sample| sample.label("y")), Some("q\"}\n".to_owned()));
        assert!(page.has("h") && page.has("b") && !page.has("c"));
    }

    proptest! {
        #[test]
        fn any_text_can_be_read(text in any::<String>(), label in "[a-z]{1,3}") {
            let page = Page::new(text);
            for sample in page.samples() {
                let _ = sample.label(&label);
            }
        }
    }
}
