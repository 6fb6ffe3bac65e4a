//! The series to look for, compiled once for each engine.

use std::fmt;

use crate::datalayer::{EngineSpecs, LabelRole, MetricSpec};
use crate::pool::AttributeKey;

/// One thing that a page can say about a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    /// Waiting requests.
    Waiting,
    /// Running requests.
    Running,
    /// KV-cache usage.
    KvUsage,
    /// LoRA adapters.
    Lora,
    /// Cache geometry in the labels of an info series.
    CacheInfo,
    /// Block size as a value.
    BlockSize,
    /// Number of blocks as a value.
    NumBlocks,
    /// All series that become attributes.
    Custom,
}

impl Figure {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Waiting,
        Self::Running,
        Self::KvUsage,
        Self::Lora,
        Self::CacheInfo,
        Self::BlockSize,
        Self::NumBlocks,
        Self::Custom,
    ];

    /// Name for logs and debug pages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::KvUsage => "kv_usage",
            Self::Lora => "lora",
            Self::CacheInfo => "cache_info",
            Self::BlockSize => "block_size",
            Self::NumBlocks => "num_blocks",
            Self::Custom => "custom",
        }
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// A set of figures.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Figures(u8);

impl Figures {
    /// No figure.
    pub const NONE: Self = Self(0);
    /// All.
    pub const ALL: Self = Self(0xff);

    /// These and one more.
    #[must_use]
    pub const fn with(self, figure: Figure) -> Self {
        Self(self.0 | figure.bit())
    }

    /// Members of either.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Members of the first that are not in the second.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// True if `figure` is a member.
    pub const fn has(self, figure: Figure) -> bool {
        self.0 & figure.bit() != 0
    }

    /// True if every member of `other` is one of these.
    pub const fn covers(self, other: Self) -> bool {
        other.0 & !self.0 == 0
    }

    /// True if there are none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The members, in declaration order.
    pub fn iter(self) -> impl Iterator<Item = Figure> {
        Figure::ALL.into_iter().filter(move |figure| self.has(*figure))
    }
}

impl FromIterator<Figure> for Figures {
    fn from_iter<I: IntoIterator<Item = Figure>>(figures: I) -> Self {
        figures.into_iter().fold(Self::NONE, Self::with)
    }
}

impl fmt::Debug for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(Figure::name)).finish()
    }
}

/// The place where a matching row is collected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Collector {
    /// One number per row, into the slot of this index.
    Value(usize),
    /// The first number, into the attribute of this index.
    Custom(usize),
    /// The row with the highest value, labels kept.
    Lora,
    /// Block size and count from labels.
    CacheInfo,
}

/// Slots of figures that are numbers.
pub(super) mod slots {
    pub(in super::super) const WAITING: usize = 0;
    pub(in super::super) const RUNNING: usize = 1;
    pub(in super::super) const KV_USAGE: usize = 2;
    pub(in super::super) const KV_USAGE_FORMER: usize = 3;
    pub(in super::super) const BLOCK_SIZE: usize = 4;
    pub(in super::super) const NUM_BLOCKS: usize = 5;
    /// Further queues in front of the waiting requests.
    pub(in super::super) const QUEUES: std::ops::Range<usize> = 6..9;
    pub(in super::super) const COUNT: usize = QUEUES.end;
}

/// Name and value of a label that must match.
pub(super) type Condition = (Box<[u8]>, Box<[u8]>);

/// One series to look for.
#[derive(Clone, Debug)]
pub(super) struct Series {
    pub(super) name: Box<[u8]>,
    pub(super) labels: Box<[Condition]>,
    /// Labels that say whether two rows are parts of one figure; all others repeat it.
    pub(super) roles: Box<[(&'static [u8], LabelRole)]>,
    pub(super) collector: Collector,
}

/// The needed series of one engine, ready for [`super::PageReader`].
#[derive(Clone, Debug)]
pub struct WantedSeries {
    pub(super) series: Box<[Series]>,
    pub(super) block_size_label: Box<[u8]>,
    pub(super) num_blocks_label: Box<[u8]>,
    /// Attributes by the index of their collectors.
    pub(super) custom: Box<[AttributeKey]>,
    /// How many of them, from the first on, a page should carry.
    pub(super) required: usize,
    figures: Figures,
    /// Bytes that all names begin with, at most eight, as a little-endian number, and the mask that selects them.
    head: u64,
    head_mask: u64,
    head_len: usize,
    /// Bytes that may follow those.
    next: [bool; 256],
    shortest: usize,
}

impl WantedSeries {
    /// Series of `specs` that carry one of `needs`.
    pub fn new(specs: &EngineSpecs, needs: Figures) -> Self {
        let mut series = Vec::new();
        let mut figures = Figures::NONE;
        let mut want = |figure: Figure, spec: &Option<MetricSpec>, collector: Collector| {
            if let Some(spec) = spec.as_ref().filter(|_| needs.has(figure)) {
                figures = figures.with(figure);
                series.push(Series::new(spec, &spec.name, collector));
                if let (Some(former), Collector::Value(slots::KV_USAGE)) = (spec.former_name(), collector) {
                    series.push(Series::new(spec, former, Collector::Value(slots::KV_USAGE_FORMER)));
                }
                if collector == Collector::Value(slots::WAITING) {
                    for (names, slot) in spec.queues().iter().zip(slots::QUEUES) {
                        let queues = names.iter();
                        series.extend(queues.map(|name| Series::new(spec, name, Collector::Value(slot))));
                    }
                }
            }
        };
        want(Figure::Waiting, &specs.waiting, Collector::Value(slots::WAITING));
        want(Figure::Running, &specs.running, Collector::Value(slots::RUNNING));
        want(Figure::KvUsage, &specs.kv_usage, Collector::Value(slots::KV_USAGE));
        want(Figure::Lora, &specs.lora, Collector::Lora);
        want(Figure::CacheInfo, &specs.cache_info, Collector::CacheInfo);
        want(Figure::BlockSize, &specs.block_size, Collector::Value(slots::BLOCK_SIZE));
        want(Figure::NumBlocks, &specs.num_blocks, Collector::Value(slots::NUM_BLOCKS));
        let (custom, optional) = if needs.has(Figure::Custom) {
            (specs.custom.as_slice(), specs.optional.as_slice())
        } else {
            (&[][..], &[][..])
        };
        if !custom.is_empty() {
            figures = figures.with(Figure::Custom);
        }
        let attributes = || custom.iter().chain(optional);
        for (index, (_, spec)) in attributes().enumerate() {
            series.push(Series::new(spec, &spec.name, Collector::Custom(index)));
        }
        let (head_len, shortest) = common_head(&series);
        let mut head = [0; 8];
        let mut mask = [0; 8];
        let mut next = [false; 256];
        if let Some(first) = series.first() {
            head[..head_len].copy_from_slice(&first.name[..head_len]);
            mask[..head_len].fill(0xff);
        }
        for series in &series {
            match series.name.get(head_len) {
                Some(&byte) => next[usize::from(byte)] = true,
                None => [b' ', b'\t', b'{'].into_iter().for_each(|byte| next[usize::from(byte)] = true),
            }
        }
        Self {
            series: series.into(),
            block_size_label: specs.block_size_label.as_bytes().into(),
            num_blocks_label: specs.num_blocks_label.as_bytes().into(),
            custom: attributes().map(|(key, _)| key.clone()).collect(),
            required: custom.len(),
            figures,
            head: u64::from_le_bytes(head),
            head_mask: u64::from_le_bytes(mask),
            head_len,
            next,
            shortest,
        }
    }

    /// Figures that some series is looked for.
    pub fn figures(&self) -> Figures {
        self.figures
    }

    /// Metric names to ask a filtering server for, each once.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let fresh = |at: usize| !self.series[..at].iter().any(|earlier| earlier.name == self.series[at].name);
        let names = self.series.iter().enumerate().filter(move |(at, _)| fresh(*at));
        names.filter_map(|(_, series)| std::str::from_utf8(&series.name).ok())
    }

    /// False if no needed row can begin like `line`. Cheap, and wrong only in the other direction.
    #[inline]
    pub(super) fn may_match(&self, line: &[u8]) -> bool {
        // A row is longer than its name: at least a blank and a digit follow.
        if line.len() < self.shortest + 2 {
            return false;
        }
        if let Some(first) = line.first_chunk::<8>() {
            if u64::from_le_bytes(*first) & self.head_mask != self.head {
                return false;
            }
        } else if line[..self.head_len] != self.head.to_le_bytes()[..self.head_len] {
            return false;
        }
        self.next[usize::from(line[self.head_len])]
    }

    /// False if no continuation of `start` can be a needed row.
    pub(super) fn may_become_match(&self, start: &[u8]) -> bool {
        start.len() < self.shortest + 2 || start[0].is_ascii_whitespace() || self.may_match(start)
    }
}

impl WantedSeries {
    /// False if a line that begins like `start` cannot be a row for `collector`.
    pub(super) fn may_go_on(&self, collector: Collector, start: &[u8]) -> bool {
        let start = start.trim_ascii_start();
        let mut series = self.series.iter().filter(|series| series.collector == collector);
        series.any(|series| start.starts_with(&series.name) || series.name.starts_with(start))
    }
}

impl Series {
    fn new(spec: &MetricSpec, name: &str, collector: Collector) -> Self {
        let label = |(name, value): &(String, String)| (name.as_bytes().into(), value.as_bytes().into());
        Self {
            name: name.as_bytes().into(),
            labels: spec.labels.iter().map(label).collect(),
            roles: spec.label_roles().map(|(name, role)| (name.as_bytes(), role)).collect(),
            collector,
        }
    }
}

/// Length of the beginning that all names share (at most 8), and length of the shortest name.
fn common_head(series: &[Series]) -> (usize, usize) {
    let shortest = series.iter().map(|series| series.name.len()).min().unwrap_or(0);
    let Some(first) = series.first() else { return (0, 0) };
    let same = |len: &usize| series.iter().all(|series| series.name[..*len] == first.name[..*len]);
    ((0..=shortest.min(8)).rev().find(same).unwrap_or(0), shortest)
}
