//! Bytes that arrive in pieces and are needed in one, held in no more memory than is counted.

use bytes::Bytes;
use memmap2::MmapMut;

use super::Share;

/// Largest segment in bytes; more is held in several.
const SEGMENT: usize = 1 << 20;
/// Bytes of a body that lie on the heap are at most this part of what all bodies may take, for the allocator keeps what
/// is freed for a while. What lies beyond has memory of its own.
const HEAP_PART: u64 = 1024;
/// The same for the smallest of bounds.
const LEAST_ON_HEAP: usize = 64 << 10;
/// Smallest segment in bytes, unless fewer are to come; also the step in which segments are counted.
const SMALLEST: usize = 16 << 10;

/// Memory that is filled from the front.
#[derive(Debug)]
enum Segment {
    Heap(Vec<u8>),
    /// Memory of its own from the system, which is resident only where it was written to, and gone at once when it is
    /// dropped: allocators keep what is freed for up to a second.
    Mapped(Mapped),
}

#[derive(Debug)]
struct Mapped {
    map: MmapMut,
    length: usize,
}

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        self.map.get(..self.length).unwrap_or_default()
    }
}

impl Segment {
    /// A segment of its own memory, or of the heap's where the system gives none.
    fn mapped(size: usize) -> Self {
        match MmapMut::map_anon(size) {
            Ok(map) => {
                // A huge page would be resident whole for one byte written. Where there are none, the call fails and
                // nothing is lost.
                #[cfg(target_os = "linux")]
                let _: std::io::Result<()> = map.advise(memmap2::Advice::NoHugePage);
                Self::Mapped(Mapped { map, length: 0 })
            }
            Err(_) => Self::Heap(Vec::with_capacity(size)),
        }
    }

    fn room(&self) -> usize {
        match self {
            Self::Heap(bytes) => bytes.capacity() - bytes.len(),
            Self::Mapped(mapped) => mapped.map.len() - mapped.length,
        }
    }

    /// Adds bytes, as many as there is room for at most.
    fn extend(&mut self, bytes: &[u8]) {
        match self {
            Self::Heap(heap) => heap.extend_from_slice(bytes),
            Self::Mapped(mapped) => {
                if let Some(place) = mapped.map.get_mut(mapped.length..mapped.length + bytes.len()) {
                    place.copy_from_slice(bytes);
                    mapped.length += bytes.len();
                }
            }
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Heap(bytes) => bytes,
            Self::Mapped(mapped) => mapped.as_ref(),
        }
    }

    fn freeze(self) -> Bytes {
        match self {
            Self::Heap(bytes) => bytes.into(),
            Self::Mapped(mapped) => Bytes::from_owner(mapped),
        }
    }
}

/// Pieces that become one. Segments count against the share as they are filled: memory that was never written to is not
/// resident.
///
/// A buffer that grows by doubling holds up to twice its bytes, and three times while it moves. Segments are filled one
/// after the other, and when they are joined each is freed as soon as it was copied.
#[derive(Debug)]
pub struct Segments {
    share: Share,
    /// The first piece, kept as it came: most bodies are one piece.
    first: Bytes,
    filled: Vec<Segment>,
    length: usize,
    /// Sum of the capacities of `filled`.
    allocated: usize,
    /// Bytes of them that hold something.
    written: usize,
    /// Bytes of them that count.
    charged: usize,
    /// Bytes that are said to come in all; 0 if nothing was said.
    expected: usize,
    /// True if the owner of the segments has counted their memory.
    counted: bool,
    /// Bytes that lie on the heap, at most.
    on_heap: usize,
}

/// The budget has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom;

impl Segments {
    /// No bytes yet.
    pub fn new(share: Share) -> Self {
        let on_heap = match share.limit() {
            0 => SEGMENT,
            limit => usize::try_from(limit / HEAP_PART).unwrap_or(SEGMENT).clamp(LEAST_ON_HEAP, SEGMENT),
        };
        Self {
            on_heap,
            share,
            first: Bytes::new(),
            filled: Vec::new(),
            length: 0,
            allocated: 0,
            written: 0,
            charged: 0,
            expected: 0,
            counted: false,
        }
    }

    /// Tells how many bytes will come in all. Fewer or more may come.
    pub fn expect(&mut self, length: u64) {
        self.expected = usize::try_from(length).unwrap_or(usize::MAX);
    }

    /// From now on nothing is counted: the holder has counted all that will come.
    pub fn counted(&mut self) {
        self.counted = true;
    }

    /// Bytes so far.
    pub fn length(&self) -> usize {
        self.length
    }

    /// The share that they are counted in.
    pub fn share(&mut self) -> &mut Share {
        &mut self.share
    }

    /// Adds a piece; the first one is kept as it is.
    pub fn push(&mut self, piece: Bytes) -> Result<(), NoRoom> {
        if self.length == 0 {
            if !self.share.grow(piece.len() as u64) {
                return Err(NoRoom);
            }
            self.length = piece.len();
            self.first = piece;
            return Ok(());
        }
        if !self.first.is_empty() {
            let first = std::mem::take(&mut self.first);
            self.share.shrink(first.len() as u64);
            self.append(&first, piece.len())?;
        }
        self.length += piece.len();
        self.append(&piece, 0)
    }

    /// Adds a copy of these bytes.
    pub fn push_copy(&mut self, bytes: &[u8]) -> Result<(), NoRoom> {
        self.length += bytes.len();
        self.append(bytes, 0)
    }

    /// Counts `more` bytes of segments, in steps.
    fn charge(&mut self, more: usize) -> Result<(), NoRoom> {
        self.written += more;
        if self.written <= self.charged {
            return Ok(());
        }
        let step =
            self.written.next_multiple_of(SMALLEST).min(self.allocated.max(self.written)) - self.charged;
        if !self.counted && !self.share.grow(step as u64) {
            return Err(NoRoom);
        }
        self.charged += step;
        Ok(())
    }

    /// Copies `bytes` behind what is there; `ahead` more are about to follow.
    fn append(&mut self, mut bytes: &[u8], ahead: usize) -> Result<(), NoRoom> {
        while !bytes.is_empty() {
            let room = self.filled.last().map_or(0, Segment::room);
            if room == 0 {
                self.allocate(bytes.len() + ahead);
                continue;
            }
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.charge(now.len())?;
            if let Some(segment) = self.filled.last_mut() {
                segment.extend(now);
            }
            bytes = later;
        }
        Ok(())
    }

    /// Adds a segment, with `needed` bytes about to come.
    fn allocate(&mut self, needed: usize) {
        if self.allocated < self.on_heap {
            let size = self.next_size(needed);
            self.filled.push(Segment::Heap(Vec::with_capacity(size)));
            self.allocated += size;
            return;
        }
        // A large body. If its length is known, what came moves once, to a place where all of it fits.
        if self.expected > self.allocated && self.filled.len() == 1 {
            let mut whole = Segment::mapped(self.expected);
            self.filled.drain(..).for_each(|segment| whole.extend(segment.bytes()));
            self.filled.push(whole);
            self.allocated = self.expected;
            return;
        }
        self.filled.push(Segment::mapped(SEGMENT));
        self.allocated += SEGMENT;
    }

    /// Size of the next segment: what is still expected, else as much again as there is; at least what is needed now.
    fn next_size(&self, needed: usize) -> usize {
        let rest = self.expected.saturating_sub(self.allocated);
        let wanted = if rest > 0 { rest } else { self.allocated.max(SMALLEST) };
        wanted.max(needed).min(self.on_heap)
    }

    /// All bytes in one piece. They go on counting until the share is taken, shrunk or dropped.
    pub fn take(&mut self) -> Bytes {
        let length = std::mem::take(&mut self.length);
        self.allocated = 0;
        self.written = 0;
        let charged = std::mem::take(&mut self.charged);
        let mut filled = std::mem::take(&mut self.filled);
        if filled.len() <= 1 {
            return filled.pop().map_or_else(|| std::mem::take(&mut self.first), Segment::freeze);
        }
        // Untouched memory is not resident: the whole grows as the segments go.
        let mut whole = Segment::mapped(length);
        for segment in filled {
            whole.extend(segment.bytes());
        }
        self.share.shrink(charged.saturating_sub(length) as u64);
        whole.freeze()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::super::BodyBudget;
    use super::*;

    fn segments(limit: u64) -> (Arc<BodyBudget>, Segments) {
        let budget = Arc::new(BodyBudget::new(limit));
        (Arc::clone(&budget), Segments::new(Share::new(budget)))
    }

    #[test]
    fn a_large_body_counts_hardly_more_than_its_length() {
        let (budget, mut segments) = segments(0);
        let piece = Bytes::from(vec![7; 60_000]);
        let mut peak = 0;
        for _ in 0..350 {
            segments.push(piece.clone()).unwrap();
            peak = peak.max(budget.used());
        }
        let length = 350 * 60_000;
        assert!(peak <= length + SMALLEST as u64, "{peak}");
        assert_eq!(segments.take().len() as u64, length);
        assert_eq!(budget.used(), length, "once joined, exactly the body counts");
    }

    #[test]
    fn a_body_of_known_length_is_gathered_in_one_allocation_of_that_length() {
        let (budget, mut segments) = segments(0);
        segments.expect(100_000);
        for _ in 0..10 {
            segments.push(Bytes::from(vec![1; 10_000])).unwrap();
        }
        assert_eq!((segments.filled.len(), budget.used()), (1, 100_000));
    }

    #[test]
    fn a_large_body_of_known_length_lies_in_one_piece_from_its_second_mebibyte_on() {
        let (budget, mut segments) = segments(0);
        let pieces: Vec<u8> = (0..3_000_000_u32).map(|number| number.to_le_bytes()[0]).collect();
        segments.expect(3_000_000);
        for piece in pieces.chunks(70_000) {
            segments.push(Bytes::copy_from_slice(piece)).unwrap();
        }
        assert_eq!((segments.filled.len(), budget.used()), (1, 3_000_000));
        assert_eq!(segments.take(), pieces);
    }

    #[test]
    fn the_heap_holds_a_small_part_of_a_bound_on_all_bodies() {
        for (limit, heap) in [
            (0, 1 << 20),
            (1 << 30, 1 << 20),
            (512 << 20, 512 << 10),
            (100 << 20, 100 << 10),
            (1 << 20, 64 << 10),
        ] {
            let (_, segments) = segments(limit);
            assert_eq!(segments.on_heap, heap, "{limit}");
        }
        let (_, mut segments) = segments(100 << 20);
        for _ in 0..20 {
            segments.push(Bytes::from(vec![1; 50_000])).unwrap();
        }
        let heap: usize = segments
            .filled
            .iter()
            .map(|segment| match segment {
                Segment::Heap(bytes) => bytes.capacity(),
                Segment::Mapped(_) => 0,
            })
            .sum();
        assert!(heap <= 200 << 10, "{heap}");
    }

    #[test]
    fn a_body_may_be_longer_or_shorter_than_it_promised() {
        for promised in [1, 1_500_000, 2_000_000, 9_000_000] {
            let (_, mut segments) = segments(0);
            segments.expect(promised);
            for _ in 0..40 {
                segments.push(Bytes::from(vec![9; 70_000])).unwrap();
            }
            assert!(segments.take() == vec![9; 2_800_000], "{promised}");
        }
    }

    #[test]
    fn a_promised_length_counts_only_as_it_comes_and_is_allocated_a_segment_ahead_at_most() {
        let (budget, mut segments) = segments(0);
        segments.expect(u64::MAX);
        segments.push(Bytes::from_static(b"a")).unwrap();
        segments.push(Bytes::from_static(b"b")).unwrap();
        assert!(budget.used() <= SMALLEST as u64, "{}", budget.used());
        assert!(segments.allocated <= SEGMENT);
    }

    proptest! {
        #[test]
        fn the_whole_is_the_pieces_in_order_and_the_count_covers_what_is_held(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40_000), 0..12),
            expected in 0..500_000_u64,
        ) {
            let (budget, mut segments) = segments(0);
            segments.expect(expected);
            for piece in &pieces {
                segments.push(Bytes::from(piece.clone())).unwrap();
                let held = segments.first.len() + segments.filled.iter().map(|segment| segment.bytes().len()).sum::<usize>();
                prop_assert!(budget.used() >= held as u64);
                prop_assert!(budget.used() <= (held + SMALLEST) as u64);
            }
            prop_assert_eq!(segments.take(), pieces.concat());
            drop(segments);
            prop_assert_eq!(budget.used(), 0);
        }

        #[test]
        fn no_piece_passes_the_bound(
            pieces in prop::collection::vec(1..30_000_usize, 0..12),
            limit in 1..100_000_u64,
        ) {
            let (budget, mut segments) = segments(limit);
            for piece in pieces {
                if segments.push(Bytes::from(vec![0; piece])).is_err() {
                    break;
                }
                prop_assert!(budget.used() <= limit);
            }
        }
    }
}
