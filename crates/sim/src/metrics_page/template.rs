//! The text of a page that never changes.
//!
//! Names, help texts, labels and creation times never change while a server runs, so they are formatted once. For each
//! page, only the numbers are put between the pieces of text.

use std::fmt::Write as _;

use super::cache_info;
use super::families::{
    ADMISSION_REJECTIONS, ENGINE_FAMILIES, EngineFamily, Kind, PROCESS_FAMILIES, Read, ReadHistogram,
};
use super::number;
use crate::engine::EngineValues;
use crate::engine::stats::Stats;

/// The facts on which the text of a page depends.
#[derive(Debug, Clone)]
pub(crate) struct PageShape {
    /// The first served name of the model.
    pub(crate) model_name: String,
    /// The number of engines behind the server.
    pub(crate) engines: usize,
    /// True if several server processes share one page. The page then has no process families and no creation times,
    /// and its families are sorted by kind.
    pub(crate) multiprocess: bool,
    /// The most LoRA adapters in a batch; `None` without LoRA.
    pub(crate) max_loras: Option<usize>,
    /// The tokens in a block.
    pub(crate) block_size: usize,
    /// The blocks of each engine.
    pub(crate) blocks: usize,
    /// The start of the server, in seconds since 1970.
    pub(crate) started_unix: f64,
}

/// A compiled page.
#[derive(Debug)]
pub(crate) struct Template {
    pub(super) shape: PageShape,
    pub(super) families: Vec<Family>,
}

/// One family and, for a single process, the creation times of its series.
#[derive(Debug)]
pub(super) struct Family {
    /// The beginning of the names of all its samples.
    pub(super) stem: &'static str,
    pub(super) header: String,
    pub(super) rows: Rows,
    pub(super) created_header: String,
    pub(super) created: Vec<Row>,
}

/// The samples of a family.
#[derive(Debug)]
pub(super) enum Rows {
    /// The rows are known in advance, except for their numbers.
    Fixed(Vec<Row>),
    /// The rows are the states of LoRA adapters.
    Loras,
    /// `http_requests_total`
    HttpRequests,
    /// `http_request_size_bytes` or `http_response_size_bytes`
    HttpSizes { request: bool },
    /// `http_request_duration_highr_seconds`
    HttpFine,
    /// `http_request_duration_seconds`
    HttpCoarse,
}

/// One sample.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) name: String,
    /// The name, the labels and the space before the number.
    pub(super) text: String,
    pub(super) cell: Cell,
}

/// The source of a number.
#[derive(Debug)]
pub(super) enum Cell {
    Constant(f64),
    Engine(usize, Read),
    /// The sum over all engines.
    Total(Read),
    Bucket(usize, ReadHistogram, usize),
    Sum(usize, ReadHistogram),
    Count(usize, ReadHistogram),
}

impl Cell {
    pub(super) fn value(&self, engines: &[EngineValues]) -> f64 {
        let of = |engine: usize| engines.get(engine);
        match self {
            Self::Constant(value) => *value,
            Self::Engine(engine, read) => of(*engine).map_or(0.0, read),
            Self::Total(read) => engines.iter().map(read).sum(),
            Self::Bucket(engine, read, bucket) => {
                of(*engine).map_or(0.0, |values| read(&values.stats).cumulative(*bucket) as f64)
            }
            Self::Sum(engine, read) => of(*engine).map_or(0.0, |values| read(&values.stats).sum()),
            Self::Count(engine, read) => of(*engine).map_or(0.0, |values| read(&values.stats).count() as f64),
        }
    }
}

impl Template {
    /// Formats all text that does not change.
    pub(crate) fn new(shape: PageShape) -> Self {
        let mut builder = Builder { created: shape.started_unix, families: Vec::new(), shape: &shape };
        if shape.multiprocess {
            builder.multiprocess();
        } else {
            builder.one_process();
        }
        let families = builder.families;
        Self { shape, families }
    }
}

struct Builder<'a> {
    shape: &'a PageShape,
    families: Vec<Family>,
    created: f64,
}

impl Builder<'_> {
    fn one_process(&mut self) {
        for family in PROCESS_FAMILIES {
            let rows = family.rows.iter().map(|(labels, value)| {
                let value = if value.is_nan() { self.shape.started_unix.floor() } else { *value };
                row(family.name, labels, Cell::Constant(value))
            });
            let rows = Rows::Fixed(rows.collect());
            let kind = if family.counter { "counter" } else { "gauge" };
            self.push(family.name, family.help, kind, rows, Vec::new());
        }
        for family in ENGINE_FAMILIES {
            self.engine_family(family);
        }
        self.cache_config_info();
        self.loras();
        self.http_requests();
        self.http_sizes();
        self.http_durations();
    }

    fn multiprocess(&mut self) {
        let of_kind =
            |wanted: fn(&Kind) -> bool| ENGINE_FAMILIES.iter().filter(move |family| wanted(&family.kind));
        self.http_sizes();
        for family in of_kind(|kind| matches!(kind, Kind::Counter(_))) {
            self.engine_family(family);
        }
        self.http_requests();
        for family in of_kind(|kind| matches!(kind, Kind::Histogram(_))) {
            self.engine_family(family);
        }
        self.http_durations();
        for family in of_kind(|kind| matches!(kind, Kind::Gauge(_))) {
            self.engine_family(family);
        }
        self.loras();
        self.cache_config_info();
    }

    fn engine_family(&mut self, family: &EngineFamily) {
        match family.kind {
            Kind::Counter(rows) | Kind::Gauge(rows) => {
                let counter = matches!(family.kind, Kind::Counter(_));
                let mut samples = Vec::new();
                let mut label_sets = Vec::new();
                for (value, read) in rows {
                    if family.name == ADMISSION_REJECTIONS {
                        let labels = self.labels(None, &[(family.label, value)]);
                        samples.push(row(family.name, &labels, Cell::Total(*read)));
                        label_sets.push(labels);
                        continue;
                    }
                    for engine in 0..self.shape.engines {
                        let labels = self.labels(Some(engine), &[(family.label, value)]);
                        samples.push(row(family.name, &labels, Cell::Engine(engine, *read)));
                        label_sets.push(labels);
                    }
                }
                let kind = if counter { "counter" } else { "gauge" };
                let created = if counter { label_sets } else { Vec::new() };
                self.push(family.name, family.help, kind, Rows::Fixed(samples), created);
            }
            Kind::Histogram(read) => {
                let mut samples = Vec::new();
                let mut created = Vec::new();
                for engine in 0..self.shape.engines {
                    samples.extend(self.histogram_rows(family.name, engine, read));
                    created.push(self.labels(Some(engine), &[]));
                }
                self.push(family.name, family.help, "histogram", Rows::Fixed(samples), created);
            }
        }
    }

    fn histogram_rows(&self, name: &str, engine: usize, read: ReadHistogram) -> Vec<Row> {
        let bounds = read(&Stats::default()).bounds();
        let labels = self.labels(Some(engine), &[]);
        let buckets = (0..=bounds.len()).map(|index| {
            let bound = bounds.get(index).map_or_else(|| "+Inf".to_owned(), |bound| format!("{bound:?}"));
            let labels = self.labels(Some(engine), &[("le", &bound)]);
            row(&format!("{name}_bucket"), &labels, Cell::Bucket(engine, read, index))
        });
        let sum = row(&format!("{name}_sum"), &labels, Cell::Sum(engine, read));
        let count = row(&format!("{name}_count"), &labels, Cell::Count(engine, read));
        if self.shape.multiprocess {
            std::iter::once(sum).chain(buckets).chain([count]).collect()
        } else {
            buckets.chain([count, sum]).collect()
        }
    }

    fn cache_config_info(&mut self) {
        let name = "vllm:cache_config_info";
        let rows = (0..self.shape.engines).map(|engine| {
            let labels = cache_info::labels(engine, self.shape.block_size, self.shape.blocks);
            let pairs: Vec<(&str, &str)> =
                labels.iter().map(|(name, value)| (*name, value.as_str())).collect();
            row(name, &label_text(&pairs), Cell::Constant(1.0))
        });
        let rows = Rows::Fixed(rows.collect());
        self.push(name, "Information of the LLMEngine CacheConfig", "gauge", rows, Vec::new());
    }

    fn loras(&mut self) {
        if self.shape.max_loras.is_some() {
            let help = "Running stats on lora requests.";
            self.push("vllm:lora_requests_info", help, "gauge", Rows::Loras, Vec::new());
        }
    }

    fn http_requests(&mut self) {
        let help = "Total number of requests by method, status and handler.";
        self.push("http_requests_total", help, "counter", Rows::HttpRequests, Vec::new());
    }

    fn http_sizes(&mut self) {
        for (name, what, request) in [
            ("http_request_size_bytes", "incoming requests", true),
            ("http_response_size_bytes", "outgoing responses", false),
        ] {
            let help = format!(
                "Content length of {what} by handler. Only value of header is respected. Otherwise ignored. No percentile calculated. "
            );
            self.push(name, &help, "summary", Rows::HttpSizes { request }, Vec::new());
        }
    }

    fn http_durations(&mut self) {
        let fine = "Latency with many buckets but no API specific labels. Made for more accurate percentile calculations. ";
        self.push(
            "http_request_duration_highr_seconds",
            fine,
            "histogram",
            Rows::HttpFine,
            vec![String::new()],
        );
        let coarse = "Latency with only few buckets by handler. Made to be only used if aggregation by handler is important. ";
        self.push("http_request_duration_seconds", coarse, "histogram", Rows::HttpCoarse, Vec::new());
    }

    fn labels(&self, engine: Option<usize>, extra: &[(&str, &str)]) -> String {
        let engine = engine.map(|engine| engine.to_string());
        let mut pairs: Vec<(&str, &str)> = vec![("model_name", &self.shape.model_name)];
        pairs.extend(engine.as_deref().map(|engine| ("engine", engine)));
        pairs.extend(extra.iter().filter(|(name, _)| !name.is_empty()));
        pairs.sort_unstable_by_key(|(name, _)| *name);
        label_text(&pairs)
    }

    fn push(&mut self, name: &'static str, help: &str, kind: &str, rows: Rows, created: Vec<String>) {
        let stem = if kind == "counter" { name.strip_suffix("_total").unwrap_or(name) } else { name };
        let created_name = format!("{stem}_created");
        let created = if self.shape.multiprocess { Vec::new() } else { created };
        let created = created.iter().map(|labels| {
            // The series are created one after another, some microseconds apart.
            self.created += 2.1e-5;
            row(&created_name, labels, Cell::Constant(self.created))
        });
        self.families.push(Family {
            stem,
            header: header(name, help, kind),
            created: created.collect(),
            rows,
            created_header: header(&created_name, help, "gauge"),
        });
    }
}

fn header(name: &str, help: &str, kind: &str) -> String {
    format!("# HELP {name} {help}\n# TYPE {name} {kind}\n")
}

fn row(name: &str, labels: &str, cell: Cell) -> Row {
    let mut text = format!("{name}{labels} ");
    if let Cell::Constant(value) = cell {
        number::push(&mut text, value);
    }
    Row { name: name.to_owned(), text, cell }
}

/// The labels with braces and escaped values; an empty text without labels.
pub(super) fn label_text(pairs: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (name, value) in pairs {
        text.push(if text.is_empty() { '{' } else { ',' });
        let _ = write!(text, "{name}=\"");
        for character in value.chars() {
            match character {
                '\\' => text.push_str("\\\\"),
                '"' => text.push_str("\\\""),
                '\n' => text.push_str("\\n"),
                other => text.push(other),
            }
        }
        text.push('"');
    }
    if !text.is_empty() {
        text.push('}');
    }
    text
}
