//! Values of the flags.

use std::time::Duration;

use pointsman_sim::EngineProfile;

use crate::document::scalar;

/// Most servers: each is looked at for each event.
const MOST_SERVERS: usize = 1024;
/// Most replicas.
const MOST_REPLICAS: usize = 64;

/// Numbers of replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Counts(pub(super) Vec<usize>);

pub(super) fn servers(text: &str) -> Result<usize, String> {
    count(text, MOST_SERVERS)
}

fn count(text: &str, most: usize) -> Result<usize, String> {
    let number: usize =
        text.trim().parse().map_err(|_| format!("got {text:?}, expected a number in 1..={most}"))?;
    if (1..=most).contains(&number) {
        Ok(number)
    } else {
        Err(format!("is {number}, expected a number in 1..={most}"))
    }
}

pub(super) fn replicas(text: &str) -> Result<Counts, String> {
    if let Some((from, to)) = text.split_once("..") {
        let (from, to) = (count(from, MOST_REPLICAS)?, count(to.trim_start_matches('='), MOST_REPLICAS)?);
        if from > to {
            return Err(format!("{from} is above {to}"));
        }
        let mut counts: Vec<usize> = std::iter::successors(Some(from), |number| Some(number * 2))
            .take_while(|number| *number < to)
            .collect();
        counts.push(to);
        return Ok(Counts(counts));
    }
    text.split(',').map(|part| count(part, MOST_REPLICAS)).collect::<Result<_, _>>().map(Counts)
}

pub(super) fn engine(name: &str) -> Result<&'static EngineProfile, String> {
    EngineProfile::named(name).ok_or_else(|| {
        let names: Vec<&str> = EngineProfile::ALL.iter().map(|profile| profile.name).collect();
        format!("there is no such engine; there are {}", names.join(", "))
    })
}

pub(super) fn rate(text: &str) -> Result<f64, String> {
    let number: f64 = text
        .trim_end_matches('x')
        .parse()
        .map_err(|_| format!("got {text:?}, expected a number such as 1.5x"))?;
    if (0.01..=100.0).contains(&number) {
        Ok(number)
    } else {
        Err(format!("is {number}, expected 0.01 to 100"))
    }
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    scalar::go_duration(text)
}

/// The data layer's schedule goes by milliseconds.
pub(super) fn interval(text: &str) -> Result<Duration, String> {
    let interval = duration(text)?;
    let (least, most) = (Duration::from_millis(1), Duration::from_mins(10));
    if (least..=most).contains(&interval) { Ok(interval) } else { Err("expected 1ms to 10m".to_owned()) }
}

pub(super) fn length(text: &str) -> Result<Duration, String> {
    let length = duration(text)?;
    let (least, most) = (Duration::from_secs(1), Duration::from_hours(24));
    if (least..=most).contains(&length) { Ok(length) } else { Err("expected 1s to 24h".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_replicas_doubles_up_to_its_end() {
        for (text, expected) in
            [("1..8", &[1, 2, 4, 8][..]), ("3..10", &[3, 6, 10]), ("2..2", &[2]), ("1,4", &[1, 4])]
        {
            assert_eq!(replicas(text).unwrap().0, expected, "{text}");
        }
        for text in ["0", "65", "8..1", "x", ""] {
            assert!(replicas(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_rate_is_a_multiple() {
        assert_eq!((rate("1.5x"), rate("0.5")), (Ok(1.5), Ok(0.5)));
        for text in ["0x", "x", "nan", "1e9"] {
            assert!(rate(text).is_err(), "{text}");
        }
    }
}
