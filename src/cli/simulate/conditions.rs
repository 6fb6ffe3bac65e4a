//! `server=3@120s`: what befalls servers, as flags say it.

use std::time::Duration;

use super::values;
use crate::simulate::{Condition, Event, STRANGERS_PROMPT};

/// The conditions of one flag.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Conditions(pub(super) Vec<Condition>);

/// `server=3@120s`, or `server=3@120s+30s` with the time until it is back.
pub(super) fn fail(text: &str) -> Result<Conditions, String> {
    let (server, times) = server(text, "server=3@120s+30s")?;
    let (at, back) = match times.split_once('+') {
        None => (values::duration(times)?, None),
        Some((at, back)) => (values::duration(at)?, Some(values::duration(back)?)),
    };
    let down = Condition { at, server, what: Event::Down };
    let up = back.map(|back| Condition { at: at.saturating_add(back), server, what: Event::Up });
    Ok(Conditions(std::iter::once(down).chain(up).collect()))
}

/// `server=3@60s:0.5`.
pub(super) fn slow(text: &str) -> Result<Conditions, String> {
    let (server, at, speed) = valued(text, "server=3@60s:0.5")?;
    let speed: f64 = speed.parse().map_err(|_| format!("got {speed:?}, expected a speed such as 0.5"))?;
    if !(0.01..=100.0).contains(&speed) {
        return Err(format!("speed is {speed}, expected 0.01 to 100"));
    }
    Ok(Conditions(vec![Condition { at, server, what: Event::Speed(speed) }]))
}

/// `server=3@60s:48`.
pub(super) fn busy(text: &str) -> Result<Conditions, String> {
    let (server, at, count) = valued(text, "server=3@60s:48")?;
    let count: u32 = count.parse().map_err(|_| format!("got {count:?}, expected a number of requests"))?;
    if count > 10_000 {
        return Err(format!("{count} requests are too many, expected at most 10000"));
    }
    Ok(Conditions(vec![Condition { at, server, what: Event::Strangers { count, prompt: STRANGERS_PROMPT } }]))
}

fn server<'t>(text: &'t str, example: &str) -> Result<(usize, &'t str), String> {
    let fault = || format!("got {text:?}, expected something such as {example}");
    let (server, rest) = text.split_once('@').ok_or_else(fault)?;
    let number = server.trim().strip_prefix("server=").ok_or_else(fault)?;
    Ok((number.parse().map_err(|_| fault())?, rest))
}

fn valued<'t>(text: &'t str, example: &str) -> Result<(usize, Duration, &'t str), String> {
    let (server, rest) = server(text, example)?;
    let (at, value) =
        rest.split_once(':').ok_or_else(|| format!("got {text:?}, expected something such as {example}"))?;
    Ok((server, values::duration(at)?, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_names_its_server_its_time_and_what_happens() {
        let at = Duration::from_secs;
        let down = Condition { at: at(120), server: 3, what: Event::Down };
        assert_eq!(fail("server=3@120s").unwrap().0, std::slice::from_ref(&down));
        let up = Condition { at: at(150), server: 3, what: Event::Up };
        assert_eq!(fail("server=3@2m+30s").unwrap().0, [down, up]);
        assert_eq!(
            slow("server=0@1s:0.5").unwrap().0,
            [Condition { at: at(1), server: 0, what: Event::Speed(0.5) }]
        );
        assert_eq!(
            busy("server=0@1s:5").unwrap().0,
            [Condition {
                at: at(1),
                server: 0,
                what: Event::Strangers { count: 5, prompt: STRANGERS_PROMPT }
            }]
        );
        for text in ["3@1s", "server=3", "server=x@1s", "server=1@soon", "server=1@1s:0"] {
            assert!(fail(text).is_err() && slow(text).is_err(), "{text}");
        }
    }
}
