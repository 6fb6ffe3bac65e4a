//! The metrics page: Prometheus text and OpenMetrics, letter for letter as the Go client writes them.

use prometheus::proto::{Histogram, LabelPair, Metric, MetricFamily, MetricType};

use super::bounds::MetricBounds;

/// The form of a metrics page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text 0.0.4.
    Text,
    /// OpenMetrics 0.0.1, which some scrapers ask for by that number.
    OpenMetrics001,
    /// OpenMetrics 1.0.0.
    OpenMetrics100,
}

impl Format {
    /// The format a scraper prefers by its `Accept` header; text if it states none that is known.
    pub fn negotiate(accept: Option<&str>) -> Self {
        let mut best = (0.0, Self::Text);
        for range in accept.unwrap_or_default().split(',') {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default();
            let (mut quality, mut version) = (1.0, "");
            for parameter in parts {
                match parameter.split_once('=') {
                    Some(("q", value)) => quality = value.parse().unwrap_or(0.0),
                    Some(("version", value)) => version = value.trim_matches('"'),
                    _ => {}
                }
            }
            let format = match (media, version) {
                ("application/openmetrics-text", "1.0.0") => Self::OpenMetrics100,
                ("application/openmetrics-text", "" | "0.0.1") => Self::OpenMetrics001,
                ("text/plain", "" | "0.0.4") => Self::Text,
                _ => continue,
            };
            if quality > best.0 {
                best = (quality, format);
            }
        }
        best.1
    }

    /// Value of the `Content-Type` header.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8; escaping=underscores",
            Self::OpenMetrics001 => {
                "application/openmetrics-text; version=0.0.1; charset=utf-8; escaping=underscores"
            }
            Self::OpenMetrics100 => {
                "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=underscores"
            }
        }
    }

    /// Writes families in the order they come, which the registry sorts by name, and tells how many lines had no room
    /// within `bounds`. Families whose labels grow with clients or endpoints give way to those that do not, and of them
    /// the larger ones to the smaller ones.
    pub(super) fn encode(self, families: &[MetricFamily], bounds: MetricBounds) -> (String, u64) {
        let open = self != Self::Text;
        let mut left = MetricBounds { bytes: bounds.bytes.saturating_sub(EOF.len()), ..bounds };
        let mut order: Vec<usize> = (0..families.len()).collect();
        order.sort_by_key(|&index| (grows(&families[index]), size(&families[index])));
        let mut parts = vec![String::new(); families.len()];
        let mut left_out = 0;
        for index in order {
            let mut page = Page { text: String::new(), open, left, left_out: 0 };
            page.family(&families[index]);
            left.bytes = left.bytes.saturating_sub(page.text.len());
            left.series = page.left.series;
            left_out += page.left_out;
            parts[index] = page.text;
        }
        let mut text = parts.concat();
        if open {
            text.push_str(EOF);
        }
        (text, left_out)
    }
}

/// End of a page in OpenMetrics.
const EOF: &str = "# EOF\n";

/// Labels whose values come from clients or endpoints.
const GROWING: [&str; 8] = [
    "fairness_id",
    "model_name",
    "program_id",
    "priority",
    "endpoint_name",
    "pod_name",
    "model_server_endpoint",
    "model_server_pod",
];

fn grows(family: &MetricFamily) -> bool {
    let first = family.get_metric().first();
    first.is_some_and(|metric| metric.get_label().iter().any(|label| GROWING.contains(&label.name())))
}

/// Lines of a family.
fn size(family: &MetricFamily) -> usize {
    family.get_metric().iter().map(|metric| lines(family, metric)).sum()
}

fn lines(family: &MetricFamily, metric: &Metric) -> usize {
    match family.get_field_type() {
        // The last bucket, the sum and the count.
        MetricType::HISTOGRAM => metric.get_histogram().get_bucket().len() + 3,
        _ => 1,
    }
}

struct Page {
    text: String,
    open: bool,
    /// The rest of the bounds. The rest of the bytes is that before this part.
    left: MetricBounds,
    left_out: u64,
}

impl Page {
    fn family(&mut self, family: &MetricFamily) {
        let kind = match family.get_field_type() {
            MetricType::COUNTER => "counter",
            MetricType::GAUGE => "gauge",
            MetricType::HISTOGRAM => "histogram",
            // Nothing here makes other kinds.
            MetricType::SUMMARY | MetricType::UNTYPED => return,
        };
        let name = family.name();
        let (described, kind) = match (self.open, kind, name.strip_suffix("_total")) {
            (true, "counter", Some(stem)) => (stem, kind),
            (true, "counter", None) => (name, "unknown"),
            _ => (name, kind),
        };
        self.words(&["# HELP ", described, " "]);
        let quotes = self.open;
        self.escaped(family.help(), quotes);
        self.words(&["\n# TYPE ", described, " ", kind, "\n"]);
        for metric in family.get_metric() {
            let (lines, before) = (lines(family, metric), self.text.len());
            if lines > self.left.series || before > self.left.bytes {
                self.left_out += lines as u64;
                continue;
            }
            let labels = metric.get_label();
            match family.get_field_type() {
                MetricType::COUNTER => self.sample(name, "", labels, None, metric.get_counter().get_value()),
                MetricType::GAUGE => self.sample(name, "", labels, None, metric.get_gauge().get_value()),
                _ => self.histogram(name, labels, metric.get_histogram()),
            }
            if self.text.len() > self.left.bytes {
                self.text.truncate(before);
                self.left_out += lines as u64;
            } else {
                self.left.series -= lines;
            }
        }
    }

    fn histogram(&mut self, name: &str, labels: &[LabelPair], histogram: &Histogram) {
        let total = histogram.get_sample_count();
        let mut last = 0.0;
        for bucket in histogram.get_bucket() {
            last = bucket.upper_bound();
            self.series(name, "_bucket", labels, Some(last));
            self.count(bucket.cumulative_count());
        }
        if last != f64::INFINITY {
            self.series(name, "_bucket", labels, Some(f64::INFINITY));
            self.count(total);
        }
        self.sample(name, "_sum", labels, None, histogram.get_sample_sum());
        self.series(name, "_count", labels, None);
        self.count(total);
    }

    fn sample(&mut self, name: &str, suffix: &str, labels: &[LabelPair], le: Option<f64>, value: f64) {
        self.series(name, suffix, labels, le);
        self.number(value);
        self.text.push('\n');
    }

    /// A count: an integer in OpenMetrics, a float like any other in text.
    fn count(&mut self, count: u64) {
        if self.open {
            self.text.push_str(&count.to_string());
        } else {
            self.number(count as f64);
        }
        self.text.push('\n');
    }

    fn series(&mut self, name: &str, suffix: &str, labels: &[LabelPair], le: Option<f64>) {
        self.words(&[name, suffix]);
        let mut separator = '{';
        for label in labels {
            self.text.push(separator);
            self.words(&[label.name(), "=\""]);
            self.escaped(label.value(), true);
            self.text.push('"');
            separator = ',';
        }
        if let Some(bound) = le {
            self.text.push(separator);
            self.text.push_str("le=\"");
            self.number(bound);
            self.text.push('"');
            separator = ',';
        }
        self.text.push_str(if separator == ',' { "} " } else { " " });
    }

    fn number(&mut self, value: f64) {
        let start = self.text.len();
        write_float(&mut self.text, value);
        let written = &self.text[start..];
        if self.open && value.is_finite() && !written.contains(['e', '.']) {
            self.text.push_str(".0");
        }
    }

    fn words(&mut self, words: &[&str]) {
        for word in words {
            self.text.push_str(word);
        }
    }

    fn escaped(&mut self, text: &str, quotes: bool) {
        for character in text.chars() {
            match character {
                '\\' => self.text.push_str("\\\\"),
                '\n' => self.text.push_str("\\n"),
                '"' if quotes => self.text.push_str("\\\""),
                other => self.text.push(other),
            }
        }
    }
}

/// Writes a number as Go's `strconv` does with format `g` and the shortest exact digits: in scientific notation if the
/// exponent is below -4 or above 5, with at least two digits of exponent.
fn write_float(text: &mut String, value: f64) {
    if value.is_nan() {
        return text.push_str("NaN");
    }
    if value.is_infinite() {
        return text.push_str(if value > 0.0 { "+Inf" } else { "-Inf" });
    }
    if value == 0.0 {
        return text.push('0');
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..6).contains(&exponent) {
        text.push_str(&value.to_string());
        return;
    }
    text.push_str(digits);
    text.push_str(if exponent < 0 { "e-" } else { "e+" });
    let magnitude = exponent.unsigned_abs();
    if magnitude < 10 {
        text.push('0');
    }
    text.push_str(&magnitude.to_string());
}

#[cfg(test)]
mod tests {
    use prometheus::core::Collector;
    use prometheus::{CounterVec, HistogramOpts, HistogramVec, Opts};
    use proptest::prelude::*;

    use super::*;

    fn float(value: f64) -> String {
        let mut text = String::new();
        write_float(&mut text, value);
        text
    }

    #[test]
    fn floats_are_written_as_go_writes_them() {
        let cases = [
            (0.0, "0"),
            (-0.0, "0"),
            (1.0, "1"),
            (0.1, "0.1"),
            (0.0001, "0.0001"),
            (0.00005, "5e-05"),
            (0.00205, "0.00205"),
            (524_288.0, "524288"),
            (999_999.5, "999999.5"),
            (1_000_000.0, "1e+06"),
            (1_048_576.0, "1.048576e+06"),
            (1_073_741_824.0, "1.073741824e+09"),
            (1e100, "1e+100"),
            (-1.5e-7, "-1.5e-07"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
        ];
        for (value, expected) in cases {
            assert_eq!(float(value), expected);
        }
    }

    proptest! {
        #[test]
        fn a_written_float_reads_back_as_the_same_number(bits in any::<u64>()) {
            let value = f64::from_bits(bits);
            prop_assume!(value.is_finite());
            let read: f64 = float(value).parse().unwrap();
            // The sign of zero is not written.
            prop_assert_eq!(read.to_bits(), if value == 0.0 { 0 } else { bits });
        }
    }

    #[test]
    fn the_accept_header_decides_by_quality_and_then_by_order() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;\
                          q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        let cases = [
            (None, Format::Text),
            (Some("*/*"), Format::Text),
            (Some("application/openmetrics-text"), Format::OpenMetrics001),
            (Some("application/openmetrics-text; version=0.0.1"), Format::OpenMetrics001),
            (Some("application/openmetrics-text; version=2.0.0"), Format::Text),
            (Some(prometheus), Format::OpenMetrics100),
            (Some("text/plain;q=0.9, application/openmetrics-text;q=0.1"), Format::Text),
            (Some("application/openmetrics-text;q=x"), Format::Text),
        ];
        for (accept, expected) in cases {
            assert_eq!(Format::negotiate(accept), expected, "{accept:?}");
        }
    }

    fn families() -> Vec<MetricFamily> {
        let counter =
            CounterVec::new(Opts::new("a_total", "line\nback\\slash \"quoted\""), &["z", "a"]).unwrap();
        counter.with_label_values(&["\"\\\n", "x"]).inc_by(1_000_000.0);
        let histogram =
            HistogramVec::new(HistogramOpts::new("b", "b").buckets(vec![0.5, 1e6]), &[] as &[&str]).unwrap();
        let child = histogram.with_label_values(&[] as &[&str]);
        child.observe(0.25);
        child.observe(2e6);
        counter.collect().into_iter().chain(histogram.collect()).collect()
    }

    #[test]
    fn a_page_beyond_its_bounds_leaves_out_what_grows_with_clients_first() {
        let tenants = CounterVec::new(Opts::new("a_total", "a"), &["fairness_id"]).unwrap();
        for index in 0..10 {
            tenants.with_label_values(&[format!("tenant-{index}")]).inc();
        }
        let fixed = CounterVec::new(Opts::new("b_total", "b"), &["reason"]).unwrap();
        fixed.with_label_values(&["one"]).inc();
        let families: Vec<_> = tenants.collect().into_iter().chain(fixed.collect()).collect();
        let bounds = MetricBounds { series: 4, bytes: 10_000, ..MetricBounds::default() };
        let (page, left_out) = Format::Text.encode(&families, bounds);
        assert_eq!((page.matches("a_total{").count(), page.matches("b_total{").count(), left_out), (3, 1, 7));
        let bounds = MetricBounds { series: 100, bytes: 250, ..MetricBounds::default() };
        let (page, left_out) = Format::OpenMetrics100.encode(&families, bounds);
        assert!(page.len() <= 250 && page.contains("b_total{") && page.ends_with(EOF), "{page}");
        assert_eq!(page.matches("a_total{").count() as u64 + left_out, 10);
    }

    #[test]
    fn text_has_sorted_labels_escapes_and_the_last_bucket() {
        let expected = concat!(
            "# HELP a_total line\\nback\\\\slash \"quoted\"\n",
            "# TYPE a_total counter\n",
            "a_total{a=\"x\",z=\"\\\"\\\\\\n\"} 1e+06\n",
            "# HELP b b\n",
            "# TYPE b histogram\n",
            "b_bucket{le=\"0.5\"} 1\n",
            "b_bucket{le=\"1e+06\"} 1\n",
            "b_bucket{le=\"+Inf\"} 2\n",
            "b_sum 2.00000025e+06\n",
            "b_count 2\n",
        );
        assert_eq!(Format::Text.encode(&families(), MetricBounds::default()).0, expected);
    }

    #[test]
    fn open_metrics_names_counters_without_total_and_ends_with_eof() {
        let expected = concat!(
            "# HELP a line\\nback\\\\slash \\\"quoted\\\"\n",
            "# TYPE a counter\n",
            "a_total{a=\"x\",z=\"\\\"\\\\\\n\"} 1e+06\n",
            "# HELP b b\n",
            "# TYPE b histogram\n",
            "b_bucket{le=\"0.5\"} 1\n",
            "b_bucket{le=\"1e+06\"} 1\n",
            "b_bucket{le=\"+Inf\"} 2\n",
            "b_sum 2.00000025e+06\n",
            "b_count 2\n",
            "# EOF\n",
        );
        assert_eq!(Format::OpenMetrics100.encode(&families(), MetricBounds::default()).0, expected);
    }
}
