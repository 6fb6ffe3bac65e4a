//! Which of the endpoints in the running a filter keeps.

/// One bit per position of a [`Call`](super::Call), set at first.
#[derive(Clone, Debug)]
pub struct Mask {
    words: Vec<u64>,
    len: usize,
}

impl Mask {
    /// `len` set bits.
    pub fn full(len: usize) -> Self {
        let mut mask = Self { words: Vec::new(), len: 0 };
        mask.reset(len);
        mask
    }

    /// Makes it `len` set bits again, keeping the memory.
    pub fn reset(&mut self, len: usize) {
        self.words.clear();
        self.words.resize(len.div_ceil(64), u64::MAX);
        if let Some(last) = self.words.last_mut()
            && !len.is_multiple_of(64)
        {
            *last = (1 << (len % 64)) - 1;
        }
        self.len = len;
    }

    /// Clears the bit at `index`; beyond the end it does nothing.
    pub fn clear(&mut self, index: usize) {
        if let Some(word) = self.words.get_mut(index / 64) {
            *word &= !(1 << (index % 64));
        }
    }

    /// True if the bit at `index` is set.
    pub fn contains(&self, index: usize) -> bool {
        self.words.get(index / 64).is_some_and(|word| word & (1 << (index % 64)) != 0)
    }

    /// Keeps only the positions for which `keep` holds; `items` runs in position order.
    pub fn retain<T>(&mut self, items: impl IntoIterator<Item = T>, mut keep: impl FnMut(T) -> bool) {
        for (index, item) in items.into_iter().enumerate() {
            if !keep(item) {
                self.clear(index);
            }
        }
    }

    /// Clears every bit that is not set in `other`, which is as long.
    pub fn intersect(&mut self, other: &Self) {
        for (word, other) in self.words.iter_mut().zip(&other.words) {
            *word &= other;
        }
    }

    /// Number of set bits.
    pub fn count(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Number of bits, set or not.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if it has no bits at all.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}
