//! Reads a capture and makes each decision again, with the configuration of the capture and, if asked, with another
//! one.

use std::path::Path;
use std::time::Instant;

use anyhow::Context as _;

use super::check;
use super::compare::Comparison;
use super::policy::{Policy, Running};
use super::request::Remade;
use super::scene::Scene;
use crate::capture::Reader;
use crate::capture::lines::{ConfigLine, DecisionLine, Line, StartLine};

/// The most notes on what limits the result. A broken capture may have any number of faults.
const MOST_NOTES: usize = 100;

/// One of the two configurations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The configuration of the capture.
    Captured,
    /// The other configuration.
    Other,
}

/// Makes the policy of a side at the time when the given configuration decides in the capture. `fresh` is true when the
/// plugins must not remember anything, because another process began.
pub type Loader<'l> = dyn FnMut(Side, &ConfigLine, bool) -> anyhow::Result<Policy> + 'l;

/// The result of a replay.
#[derive(Debug, Default)]
pub struct Played {
    /// The number of decisions that were made again.
    pub decisions: u64,
    /// The number of requests that were refused before any profile ran.
    pub refused: u64,
    /// The number of decisions that differ although the configuration of the capture made them.
    pub differing: u64,
    /// A description of the first of those differences.
    pub first_difference: Option<String>,
    /// The comparison with the other configuration, if there is one.
    pub comparison: Option<Comparison>,
    /// Notes on what limits the result, such as missing files.
    pub notes: Vec<String>,
}

impl Played {
    fn note(&mut self, text: impl FnOnce() -> String) {
        if self.notes.len() < MOST_NOTES {
            self.notes.push(text());
        }
    }
}

/// Former configurations whose requests may still come or end.
const FORMER: usize = 8;

/// A configuration of the capture, with what decides by it.
struct Generation {
    config: ConfigLine,
    sides: Vec<(Side, Policy, Running)>,
}

struct Play<'l> {
    loader: &'l mut Loader<'l>,
    with_other: bool,
    epoch: Instant,
    scene: Scene,
    start: StartLine,
    /// The configurations of which requests may come or end, the newest last.
    generations: Vec<Generation>,
    played: Played,
}

/// Plays the capture in a file or a folder. With `with_other`, a second configuration makes each decision too.
///
/// # Errors
///
/// Fails if the capture cannot be read, or if `loader` cannot make a policy.
pub fn play<'l>(path: &Path, with_other: bool, loader: &'l mut Loader<'l>) -> anyhow::Result<Played> {
    let mut reader = Reader::open(path)?;
    let epoch = Instant::now();
    let mut play = Play {
        loader,
        with_other,
        epoch,
        scene: Scene::new(epoch),
        start: StartLine::default(),
        generations: Vec::new(),
        played: Played { comparison: with_other.then(Comparison::default), ..Played::default() },
    };
    while let Some(line) = reader.next_line()? {
        play.line(line)?;
    }
    let mut played = play.played;
    for file in reader.torn() {
        played.note(|| format!("{}: the rest of the file cannot be read", file.display()));
    }
    Ok(played)
}

impl Play<'_> {
    fn line(&mut self, line: Line) -> anyhow::Result<()> {
        match line {
            Line::Start(start) => self.start(start),
            Line::Config(config) => self.config(config)?,
            Line::Pool(pool) => {
                if self.scene.becomes(&pool).map_err(anyhow::Error::msg)? {
                    for (_, policy, _) in self.generations.iter().flat_map(|generation| &generation.sides) {
                        policy.follow_pool(self.scene.pool());
                    }
                }
            }
            Line::Decision(line) => self.decision(&line),
            Line::Answer(line) => {
                self.each(line.now_ns, |policy, now, running| policy.answered(&line, now, running));
            }
            Line::FirstByte(line) => {
                self.each(line.now_ns, |policy, now, running| policy.first_byte(&line, now, running));
            }
            Line::Outcome(line) => {
                self.each(line.now_ns, |policy, now, running| policy.ended(&line, now, running));
            }
            Line::Gap(gap) => self.played.note(|| {
                format!("{} lines are missing: plugins that keep state may decide differently", gap.lines)
            }),
        }
        Ok(())
    }

    /// Tells all who may know a request of what became of it.
    fn each(&mut self, now_ns: u64, tell: impl Fn(&Policy, Instant, &mut Running)) {
        let now = self.scene.at(now_ns);
        for (_, policy, running) in self.generations.iter_mut().flat_map(|it| &mut it.sides) {
            tell(policy, now, running);
        }
    }

    /// Begins another file of the capture, or another capture.
    fn start(&mut self, start: StartLine) {
        if start.capture == self.start.capture {
            if start.file != self.start.file + 1 {
                self.played.note(|| format!("files are missing before file {} of the capture", start.file));
            }
        } else {
            self.scene = Scene::new(self.epoch);
            self.generations.clear();
            if start.first > 0 || start.file > 1 {
                self.played.note(|| {
                    format!(
                        "the capture {} begins at request {}: what plugins knew before, beside prefixes, is not in it",
                        start.capture, start.first
                    )
                });
            }
        }
        self.start = start;
    }

    fn config(&mut self, config: ConfigLine) -> anyhow::Result<()> {
        if self.generations.last().is_some_and(|newest| newest.config == config) {
            return Ok(());
        }
        let fresh = self.generations.is_empty();
        let which = if self.with_other { &[Side::Captured, Side::Other][..] } else { &[Side::Captured] };
        let mut sides = Vec::with_capacity(which.len());
        for side in which {
            let policy = (self.loader)(*side, &config, fresh)
                .with_context(|| format!("the configuration {} of the capture", config.digest))?;
            policy.follow_pool(self.scene.pool());
            sides.push((*side, policy, Running::default()));
        }
        if self.generations.len() > FORMER {
            self.generations.remove(0);
        }
        self.generations.push(Generation { config, sides });
        Ok(())
    }

    fn decision(&mut self, line: &DecisionLine) {
        self.scene.figures(&line.loads);
        if line.runs.is_empty() {
            self.played.refused += 1;
        } else {
            self.played.decisions += 1;
        }
        let remade = Remade::of(&line.request);
        // A request ends under the configuration that was in force when it came.
        let its = self.generations.iter().rposition(|it| it.config.generation == line.generation);
        let its = its.or(self.generations.len().checked_sub(1));
        let Some(generation) = its.and_then(|its| self.generations.get_mut(its)) else { return };
        let Generation { config, sides } = generation;
        let mut made = Vec::with_capacity(sides.len());
        for (side, policy, running) in sides {
            let decided = policy.decide(line, &remade, &self.scene);
            policy.follow(line, &remade, &decided, &self.scene, running);
            if *side == Side::Captured
                && let Some(difference) = check::difference(line, &decided, Some(config), &self.scene)
            {
                self.played.differing += 1;
                self.played.first_difference.get_or_insert(difference);
            }
            made.push(decided);
        }
        if let [captured, other] = made.as_slice()
            && let Some(comparison) = &mut self.played.comparison
        {
            comparison.take(line, captured, other, &self.scene);
        }
    }
}
