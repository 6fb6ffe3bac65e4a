//! Makes a page from a template and the present values.

use std::sync::Arc;

use super::http_stats::HttpStats;
use super::number;
use super::template::{Cell, Family, Row, Rows, Template, label_text};
use crate::engine::EngineValues;
use crate::engine::stats::Histogram;

/// All numbers of a page at one time.
#[derive(Debug, Clone)]
pub(crate) struct PageValues {
    /// The values of each engine.
    pub(crate) engines: Vec<EngineValues>,
    /// The counters of the HTTP layer.
    pub(crate) http: Arc<HttpStats>,
}

/// The whole page.
pub(crate) fn whole(template: &Template, values: &PageValues) -> String {
    let mut out = String::with_capacity(64 * 1024);
    let mut writer = Writer { out: &mut out, template, values, names: None };
    for family in &template.families {
        writer.family(family);
    }
    out
}

/// The page for `name[]=` queries: the samples whose name is exactly one of `names`, with the header of their family. A
/// registry that several processes share answers with an empty page, because it does not know the names in advance.
pub(crate) fn filtered(template: &Template, values: &PageValues, names: &[String]) -> String {
    let mut out = String::new();
    if template.shape.multiprocess {
        return out;
    }
    let mut writer = Writer { out: &mut out, template, values, names: Some(names) };
    for family in &template.families {
        if names.iter().any(|name| name.starts_with(family.stem)) {
            writer.family(family);
        }
    }
    out
}

struct Writer<'o, 'a> {
    out: &'o mut String,
    template: &'a Template,
    values: &'a PageValues,
    names: Option<&'a [String]>,
}

impl Writer<'_, '_> {
    fn family(&mut self, family: &Family) {
        let before = self.out.len();
        self.out.push_str(&family.header);
        let empty = self.out.len();
        match &family.rows {
            Rows::Fixed(rows) => rows.iter().for_each(|row| self.row(row)),
            Rows::Loras => self.loras(family.stem),
            Rows::HttpRequests => self.http_requests(),
            Rows::HttpSizes { request } => self.http_sizes(family.stem, *request),
            Rows::HttpFine => {
                let values = self.values;
                self.histogram(family.stem, &[], &values.http.fine);
            }
            Rows::HttpCoarse => self.http_coarse(family.stem),
        }
        let before_created = self.out.len();
        self.out.push_str(&family.created_header);
        let without_created = self.out.len();
        family.created.iter().for_each(|row| self.row(row));
        self.dynamic_created(family);
        if self.out.len() == without_created {
            self.out.truncate(before_created);
        }
        if self.out.len() == empty && self.names.is_some() {
            self.out.truncate(before);
        }
    }

    fn wants(&self, name: &str) -> bool {
        self.names.is_none_or(|names| names.iter().any(|wanted| wanted == name))
    }

    fn row(&mut self, row: &Row) {
        if !self.wants(&row.name) {
            return;
        }
        self.out.push_str(&row.text);
        if !matches!(row.cell, Cell::Constant(_)) {
            number::push(self.out, row.cell.value(&self.values.engines));
        }
        self.out.push('\n');
    }

    fn sample(&mut self, stem: &str, suffix: &str, labels: &[(&str, &str)], value: f64) {
        let name = format!("{stem}{suffix}");
        if !self.wants(&name) {
            return;
        }
        self.out.push_str(&name);
        self.out.push_str(&label_text(labels));
        self.out.push(' ');
        number::push(self.out, value);
        self.out.push('\n');
    }

    fn loras(&mut self, stem: &str) {
        let template = self.template;
        let shape = &template.shape;
        let max = shape.max_loras.unwrap_or_default().to_string();
        let values = self.values;
        for row in values.engines.iter().flat_map(|engine| &engine.adapter_rows) {
            let labels = [
                ("max_lora", max.as_str()),
                ("running_lora_adapters", &row.running),
                ("waiting_lora_adapters", &row.waiting),
            ];
            self.sample(stem, "", &labels, shape.started_unix + row.at.as_secs_f64());
        }
    }

    fn http_requests(&mut self) {
        let values = self.values;
        let http = &values.http;
        for ((handler, method, status), count) in &http.requests {
            let labels = [("handler", *handler), ("method", *method), ("status", *status)];
            self.sample("http_requests", "_total", &labels, *count as f64);
        }
    }

    fn http_sizes(&mut self, stem: &str, request: bool) {
        let values = self.values;
        let http = &values.http;
        for (handler, summary) in if request { &http.request_sizes } else { &http.response_sizes } {
            self.sample(stem, "_count", &[("handler", handler)], summary.count as f64);
            self.sample(stem, "_sum", &[("handler", handler)], summary.sum as f64);
        }
    }

    fn http_coarse(&mut self, stem: &str) {
        let values = self.values;
        let http = &values.http;
        for ((handler, method), histogram) in &http.coarse {
            self.histogram(stem, &[("handler", *handler), ("method", *method)], histogram);
        }
    }

    fn histogram(&mut self, stem: &str, labels: &[(&str, &str)], histogram: &Histogram) {
        let multiprocess = self.template.shape.multiprocess;
        if multiprocess {
            self.sample(stem, "_sum", labels, histogram.sum());
        }
        let bounds = histogram.bounds();
        for index in 0..=bounds.len() {
            let bound = bounds.get(index).map_or_else(|| "+Inf".to_owned(), |bound| format!("{bound:?}"));
            let mut with_bound = labels.to_vec();
            with_bound.push(("le", &bound));
            with_bound.sort_unstable_by_key(|(name, _)| *name);
            self.sample(stem, "_bucket", &with_bound, histogram.cumulative(index) as f64);
        }
        self.sample(stem, "_count", labels, histogram.count() as f64);
        if !multiprocess {
            self.sample(stem, "_sum", labels, histogram.sum());
        }
    }

    /// The creation times of series that appear with the requests.
    fn dynamic_created(&mut self, family: &Family) {
        let template = self.template;
        let shape = &template.shape;
        if shape.multiprocess {
            return;
        }
        let values = self.values;
        let http = &values.http;
        let at = shape.started_unix + 1.5;
        match &family.rows {
            Rows::HttpRequests => {
                for ((handler, method, status), _) in &http.requests {
                    let labels = [("handler", *handler), ("method", *method), ("status", *status)];
                    self.sample("http_requests", "_created", &labels, at);
                }
            }
            Rows::HttpSizes { .. } => {
                for (handler, _) in &http.request_sizes {
                    self.sample(family.stem, "_created", &[("handler", handler)], at);
                }
            }
            Rows::HttpCoarse => {
                for ((handler, method), _) in &http.coarse {
                    self.sample(family.stem, "_created", &[("handler", *handler), ("method", *method)], at);
                }
            }
            Rows::Fixed(_) | Rows::Loras | Rows::HttpFine => {}
        }
    }
}
