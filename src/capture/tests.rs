use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::lines::{ConfigLine, DecisionLine, Line, RequestLine};
use super::*;
use crate::metrics::Metrics;
use crate::pool::{EndpointId, EndpointSpec, LoadState, Snapshot};

fn capture(folder: &Path, disk: u64, file: u64) -> Capture {
    let settings = CaptureSettings { folder: folder.into(), disk, file };
    let capture = Capture::new(settings, Metrics::new().capture(), "default/pool".into());
    capture.decides(ConfigLine { text: "plugins: []".into(), ..ConfigLine::default() });
    capture
}

fn pool(version: u64) -> Arc<Snapshot> {
    let spec = |index: u8| {
        let address = SocketAddr::from(([10, 0, 0, index], 8000));
        (EndpointSpec::new(EndpointId::new("default", &format!("pod-{index}")), address), u64::from(index))
    };
    Arc::new(Snapshot::of(version, (0..3).map(spec), Instant::now()))
}

/// A decision whose hashes do not shrink when they are compressed.
fn decision(n: u64, hashes: usize) -> Box<DecisionLine> {
    let mut rng = fastrand::Rng::with_seed(n);
    let chains = Chains(vec![(0..hashes).map(|_| rng.u64(..)).collect()]);
    let request = RequestLine { chains, ..RequestLine::default() };
    Box::new(DecisionLine { n, request, ..DecisionLine::default() })
}

/// Turns the capture off, and waits until its writer has written all that was noted. On a machine with much to do that
/// takes longer than `Capture::stop` waits.
fn stop(capture: &Capture) {
    capture.stop();
    let began = Instant::now();
    while capture.standing().ended.is_none() {
        assert!(began.elapsed() < Duration::from_mins(2), "{:?}", capture.standing());
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

fn lines(folder: &Path) -> Vec<Line> {
    let mut reader = Reader::open(folder).unwrap();
    let mut lines = Vec::new();
    while let Some(line) = reader.next_line().unwrap() {
        lines.push(line);
    }
    assert!(reader.torn().is_empty(), "{:?}", reader.torn());
    lines
}

#[test]
fn what_is_written_reads_as_it_was_and_says_of_figures_only_what_is_new() {
    let folder = tempfile::tempdir().unwrap();
    let capture = capture(folder.path(), 1 << 30, 1 << 20);
    capture.start(Limits::default(), 5).unwrap();
    assert!(capture.is_on());
    let (list, load) = (pool(1), LoadState { waiting: 3, kv_usage: 0.1 + 0.2, ..LoadState::default() });
    for n in 0..3 {
        let first = (0, load.clone());
        let second = (1, LoadState { in_flight: n, ..LoadState::default() });
        capture.note(Note::Decision(decision(n, 2), Arc::clone(&list), vec![first, second]));
    }
    stop(&capture);
    assert!(!capture.is_on());
    let lines = lines(folder.path());
    let kinds: Vec<String> = lines.iter().map(kind).collect();
    assert_eq!(kinds, ["start", "config", "pool", "decision", "decision", "decision"]);
    let Line::Start(start) = &lines[0] else { panic!() };
    assert_eq!((start.first, start.file, start.pool.as_str()), (5, 1, "default/pool"));
    let Line::Decision(first) = &lines[3] else { panic!() };
    assert_eq!((first.loads.len(), first.loads[0].kv_usage), (2, Exact(0.1 + 0.2)));
    let Line::Decision(second) = &lines[4] else { panic!() };
    assert_eq!(second.loads.iter().map(|load| load.endpoint).collect::<Vec<_>>(), [1]);
    let standing = capture.standing();
    assert!(standing.bytes > 0 && standing.ended == Some("switched off".into()), "{standing:?}");
}

fn kind(line: &Line) -> String {
    let value = serde_json::to_value(line).unwrap();
    value["kind"].as_str().unwrap().to_owned()
}

#[test]
fn the_oldest_files_go_when_the_disk_is_full_and_each_that_stays_can_be_read_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let capture = capture(folder.path(), 4 << 20, 1 << 20);
    capture.start(Limits::default(), 0).unwrap();
    for n in 0..40 {
        capture.note(Note::Decision(decision(n, 20_000), pool(1), Vec::new()));
        while capture.standing().bytes + (4 << 20) < n * 160_000 {
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }
    stop(&capture);
    let mut files: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|it| it.unwrap().path()).collect();
    files.sort();
    let total: u64 = files.iter().map(|file| file.metadata().unwrap().len()).sum();
    assert!(total <= 4 << 20 && files.len() >= 2, "{total} bytes in {} files", files.len());
    for file in &files {
        let lines = lines(file);
        assert_eq!(kind(&lines[0]) + &kind(&lines[1]) + &kind(&lines[2]), "startconfigpool", "{file:?}");
    }
    let Some(Line::Decision(last)) = lines(folder.path()).pop() else { panic!() };
    assert_eq!(last.n, 39, "the newest stay");
}

#[test]
fn a_capture_ends_by_itself_at_its_limits_and_where_the_disk_refuses() {
    let folder = tempfile::tempdir().unwrap();
    let capture = capture(folder.path(), 1 << 30, 1 << 20);
    let ended = |limits| {
        capture.start(limits, 0).unwrap();
        let began = Instant::now();
        for n in 0.. {
            capture.note(Note::Decision(decision(n, 20_000), pool(1), Vec::new()));
            if !capture.is_on() {
                break;
            }
            assert!(began.elapsed() < Duration::from_secs(20));
            std::thread::park_timeout(Duration::from_millis(2));
        }
        while capture.standing().ended.is_none() && began.elapsed() < Duration::from_secs(20) {
            std::thread::park_timeout(Duration::from_millis(2));
        }
        capture.standing().ended.unwrap_or_default()
    };
    let bytes = ended(Limits { bytes: Some(100_000), time: None });
    assert_eq!(bytes, "it has as many bytes as it may have");
    let time = ended(Limits { time: Some(Duration::from_millis(150)), bytes: None });
    assert_eq!(time, "its time is over");
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let settings = CaptureSettings { folder: file, disk: 1 << 20, file: 1 << 20 };
    let capture = Capture::new(settings, Metrics::new().capture(), String::new());
    capture.start(Limits::default(), 0).unwrap_err();
    assert!(!capture.is_on());
}

#[test]
fn of_a_damaged_file_the_whole_beginning_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let capture = capture(folder.path(), 1 << 30, 1 << 30);
    capture.start(Limits::default(), 0).unwrap();
    for n in 0..20 {
        capture.note(Note::Decision(decision(n, 20_000), pool(1), Vec::new()));
    }
    stop(&capture);
    let file = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() - 1000]).unwrap();
    let mut reader = Reader::open(&file).unwrap();
    let mut read = 0;
    while let Ok(Some(_)) = reader.next_line() {
        read += 1;
    }
    assert!(read > 8, "{read} lines");
    assert_eq!(reader.torn(), [file]);
}
