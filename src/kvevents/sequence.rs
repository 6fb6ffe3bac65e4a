//! The numbers of an engine's messages, which show whether a message was missed.

/// The meaning of a message's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The message is the next one.
    Next,
    /// The message was received already, or the engine has repeated it.
    Repeated,
    /// Messages from this number on were missed.
    Gap(u64),
    /// The engine restarted.
    Restart,
}

/// Follows the numbers of one engine. They count up from 0 when the engine starts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sequence {
    /// The number of the last message that was received live, not in a replay.
    live: Option<u64>,
    /// The number of the last message that the engine repeated.
    replayed: Option<u64>,
}

impl Sequence {
    /// Notes a message with this number. This message and those that were missed before it count as received.
    pub fn hear(&mut self, number: u64) -> Step {
        let step = match self.live {
            Some(live) if number == live => Step::Repeated,
            Some(live) if number < live => {
                self.replayed = None;
                Step::Restart
            }
            _ if self.replayed.is_some_and(|replayed| number <= replayed) => Step::Repeated,
            _ => match self.last() {
                None if number == 0 => Step::Next,
                None => Step::Gap(0),
                Some(_) if number == self.expected() => Step::Next,
                Some(_) => Step::Gap(self.expected()),
            },
        };
        self.live = Some(number);
        step
    }

    /// Notes that the engine has repeated the message with this number.
    pub fn replayed(&mut self, number: u64) {
        self.replayed = self.replayed.max(Some(number));
    }

    /// The number of the last message that was received or repeated; `None` before the first message.
    pub fn last(&self) -> Option<u64> {
        self.live.max(self.replayed)
    }

    /// The number of the next message. After the largest number it stays the same.
    pub fn expected(&self) -> u64 {
        self.last().map_or(0, |last| last.saturating_add(1))
    }

    /// Forgets all numbers, as before the first message.
    pub fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_number_has_none_behind_it() {
        let mut sequence = Sequence::default();
        assert_eq!(
            (sequence.expected(), sequence.hear(u64::MAX), sequence.expected()),
            (0, Step::Gap(0), u64::MAX)
        );
        assert_eq!(sequence.hear(u64::MAX), Step::Repeated);
        sequence.replayed(u64::MAX);
        assert_eq!((sequence.hear(5), sequence.expected()), (Step::Restart, 6));
    }

    #[test]
    fn gaps_repetitions_and_restarts_show_in_the_numbers() {
        let mut sequence = Sequence::default();
        for (number, step) in [
            (0, Step::Next),
            (1, Step::Next),
            (1, Step::Repeated),
            (4, Step::Gap(2)),
            (5, Step::Next),
            (0, Step::Restart),
            (1, Step::Next),
        ] {
            assert_eq!(sequence.hear(number), step, "{number}");
        }
        let mut late = Sequence::default();
        assert_eq!(late.hear(7), Step::Gap(0), "it was told before we listened");
        assert_eq!(late.hear(8), Step::Next);
    }

    #[test]
    fn what_the_engine_has_repeated_is_no_restart_when_it_comes_late() {
        let mut sequence = Sequence::default();
        sequence.replayed(0);
        sequence.replayed(5);
        assert_eq!(sequence.last(), Some(5));
        assert_eq!(sequence.hear(4), Step::Repeated);
        assert_eq!(sequence.hear(5), Step::Repeated);
        assert_eq!(sequence.hear(6), Step::Next);
        assert_eq!(sequence.hear(2), Step::Restart);
    }
}
