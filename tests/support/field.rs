//! Trying many inputs of the field on the real program.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc;
use std::time::Duration;

/// Longest wait for a start.
const START: Duration = Duration::from_mins(1);
/// Inputs that are tried at a time.
const AT_A_TIME: usize = 3;

/// Does this with each of the inputs, a few at a time and in no order.
pub(crate) fn try_each<'i, T: Sync>(inputs: &'i [T], act: impl Fn(&'i T) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                while let Some(input) = inputs.get(next.fetch_add(1, Relaxed)) {
                    act(input);
                }
            });
        }
    });
}

/// Runs the picker, which is told to print its addresses, until it listens, and stops it. The text is what it said in
/// the log: `Ok` if it listened, `Err` if it ended or took too long.
pub(crate) fn started(picker: &mut Command) -> Result<String, String> {
    let picker = picker.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = picker.spawn().unwrap();
    let (listens, listening) = mpsc::channel();
    let stdout = child.stdout.take().unwrap();
    let mut stderr = child.stderr.take().unwrap();
    let said = std::thread::spawn(move || {
        let mut said = String::new();
        stderr.read_to_string(&mut said).map(|_| said)
    });
    std::thread::spawn(move || {
        let found =
            BufReader::new(stdout).lines().map_while(Result::ok).any(|line| line.starts_with("metrics "));
        listens.send(found)
    });
    let started = listening.recv_timeout(START).unwrap_or(false);
    child.kill().unwrap();
    child.wait().unwrap();
    let said = said.join().unwrap().unwrap();
    if started { Ok(said) } else { Err(said) }
}
