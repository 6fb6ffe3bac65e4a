//! One page, read in pieces.
//!
//! A page is lines. A comment line or a line of a series that nobody needs is passed over after its first bytes were
//! compared with the needed names; nothing is allocated for it. A line of a needed series is split into labels and a
//! value, and the value goes into the slot of its figure ([`FigureSlot`]). A slot sums over the parts of one server (its
//! engines, its ranks) and takes the highest of rows that repeat one part's figure. Only the beginning of a line that
//! reaches across two pieces is copied, into `carry`.

use std::collections::BTreeSet;

use memchr::{memchr, memchr_iter};
use xxhash_rust::xxh64::xxh64;

use super::row::{self, RawLabels, Row};
use super::slot::{FigureSlot, Identity, Stated};
use super::wanted::{Collector, Series, WantedSeries, slots};
use super::{Figure, Figures};
use crate::pool::{AttributeKey, LoraReading, Reading};

/// A longer line that reaches across two pieces is skipped.
const MAX_LINE: usize = 256 * 1024;

/// Number of parts of the server behind the waiting, running and KV figures.
pub type RowCounts = [u16; 3];

/// The figures of a page.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// The figures. `lora` is `None` when the labels equal those of the reader's previous page.
    pub reading: Reading,
    /// Needed figures that the page carried.
    pub found: Figures,
    /// Needed figures that it should have carried but did not. LoRA is never among them: that series comes with the
    /// first adapter.
    pub missing: Figures,
    /// Lines of needed series that do not keep to the format or whose value or labels make no sense.
    pub malformed: u32,
    /// Parts of the server behind the summed figures.
    pub rows: RowCounts,
}

/// Geometry that a cache info row states.
#[derive(Clone, Copy, Debug, Default)]
struct Geometry {
    block_size: Option<u32>,
    num_blocks: Option<u32>,
}

impl Stated for Geometry {
    /// Workers of one part have the same geometry.
    fn or_higher(self, _: Self) -> Self {
        self
    }
}

/// Best LoRA row so far.
#[derive(Debug, Default)]
struct LoraRow {
    value: Option<f64>,
    running: Vec<u8>,
    waiting: Vec<u8>,
    max_active: u64,
}

/// Reads pages, one after the other, keeping its buffers. It may serve many pages of one server; [`Self::finish`] ends
/// each.
#[derive(Debug, Default)]
pub struct PageReader {
    /// Beginning of a line whose end has not come yet.
    carry: Vec<u8>,
    /// The rest of the current line is of no interest.
    skipping: bool,
    slots: [FigureSlot<f64>; slots::COUNT],
    /// Figures that become attributes, by their index; as many as were ever needed.
    custom: Vec<FigureSlot<f64>>,
    geometry: FigureSlot<Geometry>,
    lora: LoraRow,
    /// Collector that took the line before, whose family may go on in the next line.
    open: Option<Collector>,
    malformed: u32,
    /// Digest of the LoRA labels handed out last.
    last_lora: Option<u64>,
}

impl PageReader {
    /// A reader for pages of one server.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next piece of the page.
    pub fn feed(&mut self, wanted: &WantedSeries, mut piece: &[u8]) {
        if self.skipping || !self.carry.is_empty() {
            let Some(end) = memchr(b'\n', piece) else { return self.keep(wanted, piece) };
            if !self.skipping {
                let mut line = std::mem::take(&mut self.carry);
                line.extend_from_slice(&piece[..end]);
                self.line(wanted, &line);
                line.clear();
                self.carry = line;
            }
            self.skipping = false;
            piece = &piece[end + 1..];
        }
        let mut start = 0;
        for end in memchr_iter(b'\n', piece) {
            self.line(wanted, &piece[start..end]);
            start = end + 1;
        }
        self.keep(wanted, &piece[start..]);
    }

    /// Ends the page. Of a `truncated` one the unfinished line is dropped, and so is the family that the cut may have
    /// split.
    pub fn finish(&mut self, wanted: &WantedSeries, truncated: bool) -> Page {
        let mut line = std::mem::take(&mut self.carry);
        if !truncated {
            self.line(wanted, &line);
        } else if let Some(open) = self.open.filter(|open| wanted.may_go_on(*open, &line)) {
            self.forget(open);
        }
        line.clear();
        self.carry = line;
        let page = self.page(wanted);
        self.reset();
        page
    }

    /// Forgets an unfinished page.
    pub fn reset(&mut self) {
        self.carry.clear();
        self.skipping = false;
        self.slots.iter_mut().chain(&mut self.custom).for_each(FigureSlot::clear);
        self.geometry.clear();
        self.lora.value = None;
        self.open = None;
        self.malformed = 0;
    }

    /// Hands out LoRA labels with the next page even if they are those of the page before, which its owner did not use.
    pub fn forget_lora(&mut self) {
        self.last_lora = None;
    }

    fn keep(&mut self, wanted: &WantedSeries, piece: &[u8]) {
        if self.skipping || piece.is_empty() {
            return;
        }
        self.carry.extend_from_slice(piece);
        let may_match = self.carry[0] == b'{' || wanted.may_become_match(&self.carry);
        if self.carry.len() > MAX_LINE || !may_match {
            self.carry.clear();
            self.skipping = true;
            self.open = None;
        }
    }

    #[inline]
    fn line(&mut self, wanted: &WantedSeries, line: &[u8]) {
        if wanted.may_match(line) {
            return self.candidate(wanted, line);
        }
        match line.first() {
            Some(b'{') => self.quoted(wanted, line),
            // Blanks may stand before a name, though no server puts them there.
            Some(first) if first.is_ascii_whitespace() => {
                let line = line.trim_ascii();
                if wanted.may_match(line) {
                    self.candidate(wanted, line);
                }
            }
            _ => self.open = None,
        }
    }

    /// A row whose name stands in quotes among the labels, as names may that need it.
    #[inline(never)]
    fn quoted(&mut self, wanted: &WantedSeries, line: &[u8]) {
        match row::with_plain_name(line) {
            Some(line) if wanted.may_match(&line) => self.candidate(wanted, &line),
            _ => self.open = None,
        }
    }

    #[inline(never)]
    fn candidate(&mut self, wanted: &WantedSeries, line: &[u8]) {
        self.open = None;
        let mut row: Option<Option<Row<'_>>> = None;
        for series in &wanted.series {
            let Some(after_name) = line.strip_prefix(&*series.name) else { continue };
            if !matches!(after_name.first(), Some(b'{' | b' ' | b'\t')) {
                continue;
            }
            match row.get_or_insert_with(|| row::parse(after_name)) {
                None => {
                    self.malformed += 1;
                    return;
                }
                Some(row) if series.matches(&row.labels) => self.take(wanted, series, row),
                Some(_) => {}
            }
        }
    }

    fn take(&mut self, wanted: &WantedSeries, series: &Series, row: &Row<'_>) {
        self.open = Some(series.collector);
        match series.collector {
            Collector::Value(_) | Collector::Custom(_) if !row.value.is_finite() => self.malformed += 1,
            Collector::Value(slot) => {
                let identity = Identity::of(&row.labels, &series.roles);
                self.slots[slot].offer(identity, row.timestamp, row.value);
            }
            Collector::Custom(index) => {
                let identity = Identity::of(&row.labels, &series.roles);
                let needed = wanted.custom.len().max(self.custom.len());
                self.custom.resize_with(needed, FigureSlot::default);
                if let Some(slot) = self.custom.get_mut(index) {
                    slot.offer(identity, row.timestamp, row.value);
                }
            }
            Collector::CacheInfo => {
                // Parts differ in their block counts, which are labels here, so the other labels cannot tell rows
                // apart.
                let identity = Identity::of_part(&row.labels, &series.roles);
                let geometry = Geometry {
                    block_size: self.number_label(&row.labels, &wanted.block_size_label),
                    num_blocks: self.number_label(&row.labels, &wanted.num_blocks_label),
                };
                self.geometry.offer(identity, row.timestamp, geometry);
            }
            Collector::Lora => {
                if self.lora.is_beaten_by(row.value) && !self.lora.take(row) {
                    self.malformed += 1;
                }
            }
        }
    }

    /// A positive decimal label. An absent or empty one, `None`, and zero say nothing; any other text is an error.
    fn number_label(&mut self, labels: &RawLabels<'_>, name: &[u8]) -> Option<u32> {
        let raw = row::raw_label(labels, name)?.trim_ascii();
        if raw.is_empty() || raw == b"None" {
            return None;
        }
        let number = std::str::from_utf8(raw).ok().and_then(|text| text.parse::<u32>().ok());
        if number.is_none() {
            self.malformed += 1;
        }
        number.filter(|number| *number > 0)
    }

    /// Forgets what `collector` holds.
    fn forget(&mut self, collector: Collector) {
        match collector {
            Collector::Value(slot) => self.slots[slot].clear(),
            Collector::Custom(index) => {
                self.custom.iter_mut().skip(index).take(1).for_each(FigureSlot::clear);
            }
            Collector::CacheInfo => self.geometry.clear(),
            Collector::Lora => self.lora.value = None,
        }
    }

    /// The attributes that the page carried. Of several rows of one attribute the first counts.
    fn attributes(&self, wanted: &WantedSeries) -> Vec<(AttributeKey, f64)> {
        let both = wanted.custom.iter().zip(&self.custom);
        both.filter_map(|(key, slot)| Some((key.clone(), slot.values().next()?))).collect()
    }

    fn page(&mut self, wanted: &WantedSeries) -> Page {
        let current = &self.slots[slots::KV_USAGE];
        let usage = if current.len() > 0 { current } else { &self.slots[slots::KV_USAGE_FORMER] };
        let (waiting, running) = (&self.slots[slots::WAITING], &self.slots[slots::RUNNING]);
        let queues = self.slots.get(slots::QUEUES).unwrap_or_default();
        let queued = queues.iter().filter_map(FigureSlot::total).sum::<u64>();
        let (size, blocks) = (&self.slots[slots::BLOCK_SIZE], &self.slots[slots::NUM_BLOCKS]);
        let positive = |value: u64| u32::try_from(value).ok().filter(|value| *value > 0);
        // Where both forms are configured the value counts, as in the reference.
        let first_size = size.values().next().and_then(|value| positive(value as u64));
        let labelled_blocks = self.geometry.values().filter_map(|geometry| geometry.num_blocks);
        let labelled_blocks = labelled_blocks.map(u64::from).sum::<u64>();
        let reading = Reading {
            waiting: waiting.total().map(|waiting| waiting.saturating_add(queued)),
            running: running.total(),
            kv_usage: usage.mean_fraction(),
            block_size: first_size
                .or_else(|| self.geometry.values().find_map(|geometry| geometry.block_size)),
            num_blocks: blocks.total().and_then(positive).or_else(|| positive(labelled_blocks)),
            lora: None,
            attributes: self.attributes(wanted),
        };
        // Attributes were found if all of those were that there should be.
        let required = wanted.custom.get(..wanted.required).unwrap_or_default();
        let has = |key: &AttributeKey| reading.attributes.iter().any(|(found, _)| found == key);
        let custom = usize::from(!required.is_empty() && required.iter().all(has));
        let present = [
            (Figure::Waiting, waiting.len()),
            (Figure::Running, running.len()),
            (Figure::KvUsage, usage.len()),
            (Figure::Lora, usize::from(self.lora.value.is_some())),
            (Figure::CacheInfo, self.geometry.len()),
            (Figure::BlockSize, size.len()),
            (Figure::NumBlocks, blocks.len()),
            (Figure::Custom, custom),
        ];
        let found: Figures =
            present.into_iter().filter(|(_, rows)| *rows > 0).map(|(figure, _)| figure).collect();
        let mut page = Page {
            reading,
            found,
            missing: wanted.figures().without(found).without(Figures::NONE.with(Figure::Lora)),
            malformed: self.malformed,
            rows: [waiting.len() as u16, running.len() as u16, usage.len() as u16],
        };
        if self.lora.value.is_some() {
            let digest = self.lora.digest();
            // A page with nothing else must still hand out something, or it would look empty.
            if self.last_lora != Some(digest) || page.reading.is_empty() {
                page.reading.lora = Some(self.lora.reading());
                self.last_lora = Some(digest);
            }
        }
        page
    }
}

impl LoraRow {
    /// Highest value wins, the first of equals stays. NaN and values up to -1 are no times.
    fn is_beaten_by(&self, value: f64) -> bool {
        value > self.value.unwrap_or(-1.0)
    }

    /// Takes over a row; false if its limit is no number. The limit is then the last one that was a number.
    fn take(&mut self, row: &Row<'_>) -> bool {
        let label = |name: &[u8]| row::unescape(row::raw_label(&row.labels, name).unwrap_or_default());
        self.value = Some(row.value);
        self.running.clear();
        self.running.extend_from_slice(&label(b"running_lora_adapters"));
        self.waiting.clear();
        self.waiting.extend_from_slice(&label(b"waiting_lora_adapters"));
        let limit = label(b"max_lora");
        let limit = limit.trim_ascii();
        let number = std::str::from_utf8(limit).ok().and_then(|text| text.parse().ok());
        if let Some(number) = number {
            self.max_active = number;
        }
        limit.is_empty() || number.is_some()
    }

    fn digest(&self) -> u64 {
        xxh64(&self.waiting, xxh64(&self.running, self.max_active))
    }

    fn reading(&self) -> LoraReading {
        LoraReading {
            active: adapters(&self.running),
            waiting: adapters(&self.waiting),
            max_active: self.max_active,
        }
    }
}

/// Names between commas, without blanks around them and without empty ones.
fn adapters(list: &[u8]) -> BTreeSet<String> {
    let names = list.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    names.filter(|name| !name.is_empty()).map(|name| String::from_utf8_lossy(name).into_owned()).collect()
}

impl Series {
    fn matches(&self, labels: &RawLabels<'_>) -> bool {
        self.labels.iter().all(|(name, value)| {
            // As in PromQL, an absent label equals the empty value.
            let found = row::raw_label(labels, name).unwrap_or_default();
            *row::unescape(found) == **value
        })
    }
}
