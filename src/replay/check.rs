//! Compares a decision that was made again with the decision of the capture, bit for bit, and names the first
//! difference.

use super::policy::Made;
use super::scene::Scene;
use crate::capture::lines::{ConfigLine, DecisionLine, RunLine};
use crate::decisions::terminal::shown;

/// The most endpoints that one text names.
const NAMED: usize = 8;

/// Describes the first difference; `None` if the decisions are equal.
pub(super) fn difference(
    line: &DecisionLine,
    made: &Made,
    config: Option<&ConfigLine>,
    scene: &Scene,
) -> Option<String> {
    let found = runs(line, made, config, scene).or_else(|| conclusion(line, made))?;
    Some(format!("decision {} (request {:?}): {found}", line.n, shown(&line.id)))
}

fn runs(line: &DecisionLine, made: &Made, config: Option<&ConfigLine>, scene: &Scene) -> Option<String> {
    for (captured, again) in line.runs.iter().zip(&made.runs) {
        if captured.profile != again.profile {
            return Some(format!("profile {} ran, now {} does", captured.profile, again.profile));
        }
        if let Some(found) = run(captured, again, config, scene) {
            return Some(format!("profile {}: {found}", captured.profile));
        }
    }
    if line.runs.len() == made.runs.len() {
        return None;
    }
    let why = made.decision.as_ref().err().map(|error| format!(": {error}")).unwrap_or_default();
    Some(format!("{} profiles ran, now {} do{why}", line.runs.len(), made.runs.len()))
}

fn run(captured: &RunLine, again: &RunLine, config: Option<&ConfigLine>, scene: &Scene) -> Option<String> {
    let names = |places: &[u32]| {
        let mut names: Vec<String> = places.iter().take(NAMED).map(|place| scene.name(*place)).collect();
        if places.len() > NAMED {
            names.push(format!("and {} more", places.len() - NAMED));
        }
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    };
    if captured.survivors != again.survivors {
        let (then, now) = (names(&captured.survivors), names(&again.survivors));
        return Some(format!("the filters left {then}; now they leave {now}"));
    }
    let profile = config.and_then(|config| config.profiles.iter().find(|it| it.name == captured.profile));
    for (index, (then, now)) in captured.scores.iter().zip(&again.scores).enumerate() {
        let differs = then.iter().zip(now).position(|(then, now)| then != now);
        if let Some(at) = differs {
            let scorer = profile.and_then(|profile| profile.scorers.get(index));
            let scorer = scorer.map_or("a scorer", |scorer| scorer.name.as_str());
            let endpoint = captured.survivors.get(at).map(|place| scene.name(*place)).unwrap_or_default();
            return Some(format!("{scorer} gave {endpoint} {}; now it gives {}", then[at].0, now[at].0));
        }
    }
    if captured.scores.len() != again.scores.len() {
        return Some(format!("{} scorers scored, now {} do", captured.scores.len(), again.scores.len()));
    }
    if let Some(at) = captured.totals.iter().zip(&again.totals).position(|(then, now)| then != now) {
        let endpoint = captured.survivors.get(at).map(|place| scene.name(*place)).unwrap_or_default();
        let (then, now) = (captured.totals[at].0, again.totals[at].0);
        return Some(format!("the total of {endpoint} was {then}; now it is {now}"));
    }
    if captured.draw != again.draw {
        return Some("the random generator stands elsewhere".to_owned());
    }
    (captured.picked != again.picked).then(|| {
        format!("the picker chose {}; now it chooses {}", names(&captured.picked), names(&again.picked))
    })
}

fn conclusion(line: &DecisionLine, made: &Made) -> Option<String> {
    match (&line.refusal, &made.decision) {
        (None, Err(error)) => Some(format!("it was decided; now it is not: {error}")),
        (Some(reason), Ok(_)) if line.runs.is_empty() => {
            Some(format!("it was refused ({reason}); now it is decided"))
        }
        (None, Ok(_)) if line.primary != made.primary => {
            let name = |name: &Option<String>| name.clone().unwrap_or_else(|| "none".to_owned());
            Some(format!("profile {} answered; now {} does", name(&line.primary), name(&made.primary)))
        }
        _ => None,
    }
}
