//! Asking a server for less: which form of the page to request from one endpoint. Pure.
//!
//! Python servers build every series for every scrape, and many accept `name[]=` filters, but not at the same path and
//! not in every mode. So the full page comes first; then each filtered form is tried once, and the smallest answer that
//! carries every figure of the full page is adopted. When an adopted form lacks a figure, the full page is asked for in
//! the same round. From time to time the full page is read anyway, to see figures that the filtered form may hide, and
//! refused forms are tried again.

use std::time::{Duration, Instant};

use super::exposition::{Figures, Page, RowCounts};

/// A form of the metrics page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Variant {
    /// The path as configured.
    Full,
    /// The path with `name[]=` filters.
    Filtered,
    /// The path with a trailing slash and filters: where a mounted metrics app listens behind an instrumented route.
    FilteredSlash,
}

impl Variant {
    /// Filtered forms, in the order they are tried.
    const FILTERED: [Self; 2] = [Self::Filtered, Self::FilteredSlash];

    /// All forms.
    pub const ALL: [Self; 3] = [Self::Full, Self::Filtered, Self::FilteredSlash];

    /// Name for logs and debug pages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Filtered => "filtered",
            Self::FilteredSlash => "filtered-slash",
        }
    }
}

/// The facts about an answer that adoption needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Figures that it carried.
    pub found: Figures,
    /// Replica rows behind them.
    pub rows: RowCounts,
    /// Size of the body, in bytes.
    pub bytes: usize,
}

impl Answer {
    /// Of a page whose body had `bytes` bytes.
    pub fn new(page: &Page, bytes: usize) -> Self {
        Self { found: page.found, rows: page.rows, bytes }
    }

    /// True if it carries all that `full` carries.
    fn covers(&self, full: &Self) -> bool {
        self.found.covers(full.found) && self.rows.iter().zip(full.rows).all(|(mine, theirs)| *mine >= theirs)
    }
}

/// The next step after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerVerdict {
    /// The answer counts; the round is over.
    Accept,
    /// The answer does not count; ask for the full page now.
    AskFull,
}

/// A change worth telling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// This form is used from now on.
    Adopted(Variant),
    /// No filtered form will do; the full page is used.
    Refused,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The full page is used; forms may be tried from this moment on.
    Full { try_at: Option<Instant> },
    /// Forms are being tried; `next` indexes [`Variant::FILTERED`].
    Trying { next: usize, best: Option<(Variant, usize)> },
    /// A form is used; the full page is due at this moment.
    Adopted { variant: Variant, full_at: Instant },
}

/// Chooses the form of page to ask one endpoint for, for one incarnation.
#[derive(Debug)]
pub struct Adoption {
    state: State,
    enabled: bool,
    /// The figures that the server's whole page is known to carry.
    full: Answer,
    retry: Duration,
    /// Moves the periodic full pages of endpoints apart.
    seed: u64,
}

impl Adoption {
    /// Time between full pages while a form is adopted, give or take a quarter.
    pub const FULL_EVERY: Duration = Duration::from_secs(30);
    /// Pause before refused forms are tried again; doubles up to [`Self::LONGEST_RETRY`].
    pub const FIRST_RETRY: Duration = Duration::from_mins(1);
    /// Longest such pause.
    pub const LONGEST_RETRY: Duration = Duration::from_hours(1);

    /// Starts with the full page. When not `enabled` it stays there.
    pub fn new(enabled: bool, seed: u64) -> Self {
        let state = State::Full { try_at: None };
        Self { state, enabled, full: Answer::default(), retry: Self::FIRST_RETRY, seed }
    }

    /// The form for the round that begins now.
    pub fn next(&self, now: Instant) -> Variant {
        match self.state {
            State::Full { .. } => Variant::Full,
            State::Trying { next, .. } => Variant::FILTERED.get(next).copied().unwrap_or(Variant::Full),
            State::Adopted { full_at, .. } if now >= full_at => Variant::Full,
            State::Adopted { variant, .. } => variant,
        }
    }

    /// The form in use, for display.
    pub fn in_use(&self) -> Variant {
        match self.state {
            State::Adopted { variant, .. } => variant,
            State::Full { .. } | State::Trying { .. } => Variant::Full,
        }
    }

    /// A whole page came back.
    pub fn answered(
        &mut self,
        variant: Variant,
        answer: Answer,
        now: Instant,
    ) -> (AnswerVerdict, Option<Change>) {
        if variant == Variant::Full {
            self.full = answer;
            match self.state {
                State::Full { try_at } => {
                    let due = try_at.is_none_or(|at| now >= at);
                    // A page without any figure says nothing about what a form must carry.
                    if self.enabled && due && !answer.found.is_empty() {
                        self.state = State::Trying { next: 0, best: None };
                    }
                }
                State::Adopted { variant, .. } => {
                    self.state = State::Adopted { variant, full_at: now + self.full_pause() };
                    // It has served for a while: old troubles are forgotten.
                    self.retry = Self::FIRST_RETRY;
                }
                State::Trying { .. } => {}
            }
            return (AnswerVerdict::Accept, None);
        }
        let good = answer.covers(&self.full);
        match self.state {
            State::Trying { .. } => {
                let smaller = answer.bytes < self.full.bytes / 4 * 3;
                let change = self.tried(variant, (good && smaller).then_some(answer.bytes), now);
                (if good { AnswerVerdict::Accept } else { AnswerVerdict::AskFull }, change)
            }
            State::Adopted { .. } if good => {
                // Figures that came up since must not go missing again unnoticed.
                self.full.found = self.full.found.union(answer.found);
                self.full.rows = answer.rows;
                (AnswerVerdict::Accept, None)
            }
            State::Adopted { .. } => (AnswerVerdict::AskFull, Some(self.drop_form(now))),
            State::Full { .. } => (if good { AnswerVerdict::Accept } else { AnswerVerdict::AskFull }, None),
        }
    }

    /// The server answered, but not with a page (status, encoding, format).
    pub fn refused(&mut self, variant: Variant, now: Instant) -> (AnswerVerdict, Option<Change>) {
        match (variant, self.state) {
            (Variant::Full, _) => (AnswerVerdict::Accept, None),
            (_, State::Trying { .. }) => (AnswerVerdict::AskFull, self.tried(variant, None, now)),
            (_, State::Adopted { .. }) => (AnswerVerdict::AskFull, Some(self.drop_form(now))),
            (_, State::Full { .. }) => (AnswerVerdict::AskFull, None),
        }
    }

    /// No answer came, or not all of it. It may be another process that answers next, so the full page is asked for
    /// then.
    pub fn failed(&mut self, variant: Variant, now: Instant) -> Option<Change> {
        match (variant, self.state) {
            (Variant::Full, _) | (_, State::Full { .. }) => None,
            (_, State::Trying { .. }) => self.tried(variant, None, now),
            (_, State::Adopted { .. }) => {
                // Nothing is known against the form, so the pause does not grow.
                self.state = State::Full { try_at: Some(now + Self::FIRST_RETRY) };
                Some(Change::Refused)
            }
        }
    }

    fn tried(&mut self, variant: Variant, bytes: Option<usize>, now: Instant) -> Option<Change> {
        let State::Trying { next, best } = self.state else { return None };
        let found = bytes.map(|bytes| (variant, bytes));
        let best = match (best, found) {
            (Some(held), Some(new)) if new.1 < held.1 => Some(new),
            (Some(held), _) => Some(held),
            (None, new) => new,
        };
        if next + 1 < Variant::FILTERED.len() {
            self.state = State::Trying { next: next + 1, best };
            return None;
        }
        let Some((variant, _)) = best else { return Some(self.drop_form(now)) };
        self.state = State::Adopted { variant, full_at: now + self.full_pause() };
        Some(Change::Adopted(variant))
    }

    fn drop_form(&mut self, now: Instant) -> Change {
        self.state = State::Full { try_at: Some(now + self.retry) };
        self.retry = (self.retry * 2).min(Self::LONGEST_RETRY);
        Change::Refused
    }

    fn full_pause(&self) -> Duration {
        let spread = self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        Self::FULL_EVERY.mul_f64(0.75 + 0.5 * spread as f64 / f64::from(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::AnswerVerdict::{Accept, AskFull};
    use super::*;
    use crate::datalayer::exposition::Figure;

    fn answer(figures: &[Figure], bytes: usize) -> Answer {
        Answer { found: figures.iter().copied().collect(), rows: [1, 1, 1], bytes }
    }

    const ALL: [Figure; 3] = [Figure::Waiting, Figure::Running, Figure::CacheInfo];

    fn full() -> Answer {
        answer(&ALL, 50_000)
    }

    /// Has read the full page once and adopted `Filtered`.
    fn adopted(now: Instant) -> Adoption {
        let mut adoption = Adoption::new(true, 1);
        assert_eq!(adoption.answered(Variant::Full, full(), now), (Accept, None));
        assert_eq!(adoption.next(now), Variant::Filtered);
        assert_eq!(adoption.answered(Variant::Filtered, answer(&ALL, 900), now), (Accept, None));
        assert_eq!(adoption.next(now), Variant::FilteredSlash);
        let change = Some(Change::Adopted(Variant::Filtered));
        assert_eq!(adoption.refused(Variant::FilteredSlash, now), (AskFull, change));
        assert_eq!(adoption.next(now), Variant::Filtered);
        adoption
    }

    #[test]
    fn the_smallest_form_that_carries_everything_is_adopted() {
        let now = Instant::now();
        let mut adoption = Adoption::new(true, 1);
        adoption.answered(Variant::Full, full(), now);
        // An instrumented route ignores the filter: as large as the full page.
        assert_eq!(adoption.answered(Variant::Filtered, full(), now), (Accept, None));
        let change = Some(Change::Adopted(Variant::FilteredSlash));
        assert_eq!(adoption.answered(Variant::FilteredSlash, answer(&ALL, 1700), now), (Accept, change));
        assert_eq!((adoption.next(now), adoption.in_use()), (Variant::FilteredSlash, Variant::FilteredSlash));
    }

    #[test]
    fn an_empty_form_is_refused_and_the_full_page_read_at_once() {
        let now = Instant::now();
        let mut adoption = Adoption::new(true, 1);
        adoption.answered(Variant::Full, full(), now);
        assert_eq!(adoption.answered(Variant::Filtered, answer(&[], 0), now), (AskFull, None));
        adoption.answered(Variant::Full, full(), now);
        let change = Some(Change::Refused);
        assert_eq!(adoption.answered(Variant::FilteredSlash, answer(&[], 0), now), (AskFull, change));
        assert_eq!(adoption.next(now), Variant::Full);
    }

    #[test]
    fn refused_forms_are_tried_again_ever_later() {
        let mut now = Instant::now();
        let mut adoption = Adoption::new(true, 1);
        for pause in [Adoption::FIRST_RETRY, Adoption::FIRST_RETRY * 2] {
            adoption.answered(Variant::Full, full(), now);
            adoption.refused(Variant::Filtered, now);
            adoption.refused(Variant::FilteredSlash, now);
            adoption.answered(Variant::Full, full(), now + pause * 9 / 10);
            assert_eq!(adoption.next(now), Variant::Full);
            now += pause;
        }
        adoption.answered(Variant::Full, full(), now);
        assert_eq!(adoption.next(now), Variant::Filtered);
    }

    #[test]
    fn a_figure_that_goes_missing_brings_the_full_page_back_at_once() {
        let now = Instant::now();
        let mut adoption = adopted(now);
        let change = Some(Change::Refused);
        assert_eq!(adoption.answered(Variant::Filtered, answer(&ALL[..2], 800), now), (AskFull, change));
        assert_eq!(adoption.next(now), Variant::Full);
    }

    #[test]
    fn a_replica_row_that_goes_missing_brings_the_full_page_back_at_once() {
        let now = Instant::now();
        let mut adoption = adopted(now);
        let less = Answer { rows: [0, 1, 1], ..answer(&ALL, 800) };
        assert_eq!(adoption.answered(Variant::Filtered, less, now).0, AskFull);
    }

    #[test]
    fn an_error_answer_brings_the_full_page_back_at_once() {
        let now = Instant::now();
        let mut adoption = adopted(now);
        assert_eq!(adoption.refused(Variant::Filtered, now), (AskFull, Some(Change::Refused)));
    }

    #[test]
    fn a_broken_connection_brings_the_full_page_back_in_the_next_round() {
        let now = Instant::now();
        let mut adoption = adopted(now);
        assert_eq!(adoption.failed(Variant::Filtered, now), Some(Change::Refused));
        assert_eq!(adoption.next(now), Variant::Full);
    }

    #[test]
    fn a_figure_that_only_the_full_page_has_is_noticed_within_the_minute() {
        let now = Instant::now();
        let mut adoption = adopted(now);
        let later = now + Adoption::FULL_EVERY * 5 / 4;
        assert_eq!(adoption.next(later), Variant::Full);
        let more = Answer { found: full().found.with(Figure::Lora), ..full() };
        assert_eq!(adoption.answered(Variant::Full, more, later), (Accept, None));
        assert_eq!(adoption.next(later), Variant::Filtered, "the form stays until it proves too small");
        assert_eq!(adoption.answered(Variant::Filtered, answer(&ALL, 900), later).0, AskFull);
    }

    #[test]
    fn a_figure_that_comes_up_in_the_form_must_stay_in_it() {
        let now = Instant::now();
        let mut adoption = adopted(now);
        let more = Answer { found: full().found.with(Figure::Lora), ..answer(&ALL, 900) };
        assert_eq!(adoption.answered(Variant::Filtered, more, now), (Accept, None));
        assert_eq!(adoption.answered(Variant::Filtered, answer(&ALL, 900), now).0, AskFull);
    }

    #[test]
    fn a_page_without_figures_is_no_ground_to_try_forms() {
        let now = Instant::now();
        let mut adoption = Adoption::new(true, 1);
        adoption.answered(Variant::Full, answer(&[], 50_000), now);
        assert_eq!(adoption.next(now), Variant::Full);
    }

    #[test]
    fn switched_off_it_stays_with_the_full_page() {
        let now = Instant::now();
        let mut adoption = Adoption::new(false, 1);
        adoption.answered(Variant::Full, full(), now);
        assert_eq!(adoption.next(now), Variant::Full);
    }
}
