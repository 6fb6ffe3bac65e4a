//! The loop: takes seeds, changes them, runs the check, and reports the first input that breaks it.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fastrand::Rng;
use parking_lot::Mutex;

use super::memory;
use super::mutate::mutate;

/// Changed inputs that each target gets where `FUZZ_SECONDS` does not say how long to go on. They are the same each
/// time.
const INPUTS: u64 = 1_000;
/// Seed of the changes then.
const SEED: u64 = 9;
/// Longest input in bytes. Longer ones find little more and take longer.
const MAX_INPUT: usize = 64 << 10;
/// Longest time that one input may take. A debug build on a busy machine stays far below it; an endless loop does not.
const LONGEST: Duration = Duration::from_secs(20);
/// Inputs that the corpus keeps beside the seeds.
const CORPUS: usize = 2_000;

/// What a check found wrong.
pub(crate) type Broken = String;

/// One fuzzing target.
pub(crate) struct Target<'a> {
    /// Its name; also the folder of its stored inputs below `tests/data/fuzz/`.
    pub(crate) name: &'a str,
    /// Inputs to begin with.
    pub(crate) seeds: Vec<Vec<u8>>,
    /// Words that mean something to the reader under test.
    pub(crate) words: &'a [&'a str],
    /// Bytes of memory that the check may hold for each byte of input, at the highest.
    pub(crate) memory_factor: usize,
    /// Bytes of memory that the check may hold whatever the input is.
    pub(crate) memory_base: usize,
}

/// Targets run one after the other: memory is counted for the whole process.
static TURN: Mutex<()> = Mutex::new(());

/// Runs `check` over stored inputs, seeds and changed seeds until the time is over. `check` returns what it kept of the
/// input as a number, a rough sign of the path taken: inputs that give a new number join the corpus.
pub(crate) fn run(target: &Target<'_>, mut check: impl FnMut(&[u8]) -> Result<u64, Broken>) {
    let _turn = TURN.lock();
    if let Some(path) = std::env::var_os("FUZZ_INPUT") {
        let input = std::fs::read(&path).expect("FUZZ_INPUT names a readable file");
        try_one(target, &input, &mut check);
        return;
    }
    let mut corpus: Vec<Vec<u8>> = stored(target.name);
    corpus.extend(target.seeds.iter().cloned());
    let mut paths = std::collections::HashSet::new();
    for input in &corpus {
        paths.insert(try_one(target, input, &mut check));
    }
    let end = number("FUZZ_SECONDS").map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let usual = if end.is_some() { fastrand::u64(..) } else { SEED };
    let seed = number("FUZZ_SEED").unwrap_or(usual);
    let mut rng = Rng::with_seed(seed);
    let (mut runs, seeds) = (0_u64, corpus.len());
    while end.map_or(runs < INPUTS, |end| Instant::now() < end) {
        let mut input = corpus[rng.usize(..corpus.len())].clone();
        let other = &corpus[rng.usize(..corpus.len())];
        for _ in 0..=rng.usize(..4) {
            mutate(&mut input, other, target.words, &mut rng);
        }
        input.truncate(MAX_INPUT);
        let path = try_one(target, &input, &mut check);
        runs += 1;
        if paths.insert(path) && input.len() <= MAX_INPUT / 8 {
            if corpus.len() < seeds + CORPUS {
                corpus.push(input);
            } else {
                let place = rng.usize(seeds..corpus.len());
                corpus[place] = input;
            }
        }
    }
    eprintln!("{}: {runs} inputs, {} paths, FUZZ_SEED={seed}", target.name, paths.len());
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{variable}: expected a number")))
}

/// Runs the check once. A failure stores the input and ends the test.
fn try_one(target: &Target<'_>, input: &[u8], check: &mut impl FnMut(&[u8]) -> Result<u64, Broken>) -> u64 {
    let start = Instant::now();
    memory::begin();
    let result = catch_unwind(AssertUnwindSafe(|| check(input)));
    let held = memory::peak();
    let allowed = target.memory_factor * input.len() + target.memory_base;
    let broken = match result {
        Err(_) => "it panicked".to_owned(),
        Ok(Err(broken)) => broken,
        Ok(Ok(_)) if held > allowed => {
            format!(
                "it held {held} bytes of memory for {} bytes of input; {allowed} are allowed",
                input.len()
            )
        }
        Ok(Ok(_)) if start.elapsed() > LONGEST => format!("it took {:?}", start.elapsed()),
        Ok(Ok(path)) => return path,
    };
    let path = keep(target.name, input);
    panic!(
        "{}: {broken}\ninput of {} bytes, kept in {} (run it again with FUZZ_INPUT={}):\n{}",
        target.name,
        input.len(),
        path.display(),
        path.display(),
        String::from_utf8_lossy(&input[..input.len().min(2_000)]).escape_debug()
    );
}

fn keep(name: &str, input: &[u8]) -> PathBuf {
    let mut hasher = DefaultHasher::new();
    input.hash(&mut hasher);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fuzz");
    std::fs::create_dir_all(&folder).expect("the target folder can be written");
    let path = folder.join(format!("{name}-{:016x}", hasher.finish()));
    std::fs::write(&path, input).expect("the target folder can be written");
    path
}

/// Inputs that once broke the target, or that a person put there.
fn stored(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/fuzz").join(name);
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).expect("a stored input can be read")).collect()
}
