use std::fs;

use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use tokio::sync::mpsc;

use super::*;

/// Long enough for any machine; no test waits for it to pass.
const PATIENCE: Duration = Duration::from_secs(20);
/// For tests in which only events may find the change.
const NEVER: Duration = Duration::from_hours(1);

fn file(names: &[&str]) -> String {
    let mut text = "endpoints: [".to_owned();
    for (index, name) in names.iter().enumerate() {
        let row = format!("{{name: {name}, address: 10.0.0.{}, port: \"8000\"}}, ", index + 1);
        text += &row;
    }
    text + "]\n"
}

/// A running discovery and what it says.
struct Running {
    pool: Arc<Pool>,
    outcomes: mpsc::Receiver<ReloadOutcome>,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), DiscoveryError>>,
}

impl Running {
    async fn start(path: &Path, poll: Duration) -> Self {
        let (said, outcomes) = mpsc::channel(64);
        let spec = FileDiscoverySpec { path: path.to_owned(), watch: true, clusters: false };
        let discovery = FileDiscovery::new(spec, move |outcome| {
            let _ = said.try_send(outcome.clone());
        });
        let pool = Arc::new(Pool::new("default", "epp", std::time::Instant::now()));
        let shutdown = CancellationToken::new();
        let run = discovery.with_poll_interval(poll).run(Arc::clone(&pool), shutdown.clone());
        let mut running = Self { pool, outcomes, shutdown, task: tokio::spawn(run) };
        running.applied().await;
        running
    }

    async fn next(&mut self) -> ReloadOutcome {
        timeout(PATIENCE, self.outcomes.recv()).await.expect("nothing was noticed").expect("discovery ended")
    }

    /// The next change that is taken over.
    async fn applied(&mut self) -> PoolChange {
        loop {
            match self.next().await {
                ReloadOutcome::Applied(change) => return change,
                ReloadOutcome::Unchanged => {}
                ReloadOutcome::Refused(message) => panic!("{message}"),
            }
        }
    }

    /// The next refusal.
    async fn refused(&mut self) -> String {
        loop {
            match self.next().await {
                ReloadOutcome::Refused(message) => return message,
                ReloadOutcome::Unchanged => {}
                ReloadOutcome::Applied(change) => panic!("{change:?}"),
            }
        }
    }

    fn names(&self) -> Vec<String> {
        self.pool.snapshot().endpoints().iter().map(|endpoint| endpoint.id().name().to_owned()).collect()
    }

    async fn stop(self) {
        self.shutdown.cancel();
        timeout(PATIENCE, self.task).await.expect("does not stop").expect("panicked").expect("failed");
    }
}

fn replace(path: &Path, content: &str) {
    let new = path.with_extension("new");
    fs::write(&new, content).unwrap();
    fs::rename(&new, path).unwrap();
}

#[tokio::test]
async fn a_replacement_by_rename_is_noticed_again_and_again() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("endpoints.yaml");
    fs::write(&path, file(&["a"])).unwrap();
    let mut running = Running::start(&path, NEVER).await;
    for names in [&["a", "b"][..], &["b"], &["c", "d", "e"]] {
        replace(&path, &file(names));
        running.applied().await;
        assert_eq!(running.names(), names);
    }
    running.stop().await;
}

#[tokio::test]
async fn the_swap_of_a_mounted_config_map_is_noticed() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    for (version, names) in [("v1", &["a"][..]), ("v2", &["a", "b"])] {
        fs::create_dir(at(version)).unwrap();
        fs::write(at(version).join("endpoints.yaml"), file(names)).unwrap();
    }
    std::os::unix::fs::symlink("v1", at("..data")).unwrap();
    std::os::unix::fs::symlink("..data/endpoints.yaml", at("endpoints.yaml")).unwrap();
    let mut running = Running::start(&at("endpoints.yaml"), NEVER).await;
    std::os::unix::fs::symlink("v2", at("..data_tmp")).unwrap();
    fs::rename(at("..data_tmp"), at("..data")).unwrap();
    let change = running.applied().await;
    assert_eq!(change, PoolChange { added: 1, removed: 0, kept: 1 });
    running.stop().await;
}

#[tokio::test]
async fn a_change_behind_a_link_is_found_by_looking() {
    let (folder, elsewhere) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (path, target) = (folder.path().join("endpoints.yaml"), elsewhere.path().join("real.yaml"));
    fs::write(&target, file(&["a"])).unwrap();
    std::os::unix::fs::symlink(&target, &path).unwrap();
    let mut running = Running::start(&path, Duration::from_millis(10)).await;
    replace(&target, &file(&["z"]));
    running.applied().await;
    assert_eq!(running.names(), ["z"]);
    running.stop().await;
}

#[tokio::test]
async fn a_faulty_file_changes_nothing_until_it_is_good_again() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("endpoints.yaml");
    fs::write(&path, file(&["a", "b"]) + "objectives: [{name: o, priority: 3}]\n").unwrap();
    let mut running = Running::start(&path, NEVER).await;
    let version = running.pool.snapshot().version();

    replace(&path, "endpoints: [{name: c, address: 10.0.0.9, port: \"1\"}, {name: d}]\n");
    let message = running.refused().await;
    assert!(message.contains("endpoints[1].address: is required"), "{message}");
    replace(&path, "");
    assert!(running.refused().await.contains("is empty"));
    fs::remove_file(&path).unwrap();
    assert!(running.refused().await.contains("cannot be read"));
    assert_eq!((running.names(), running.pool.snapshot().version()), (vec!["a".into(), "b".into()], version));
    assert_eq!(running.pool.objectives().find("o"), Some(3));

    replace(&path, &file(&["c"]));
    running.applied().await;
    assert_eq!((running.names(), running.pool.objectives().find("o")), (vec!["c".into()], None));
    running.stop().await;
}

#[tokio::test]
async fn a_missing_or_faulty_file_at_the_start_is_an_error_and_leaves_the_pool_unsynced() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("endpoints.yaml");
    let pool = Arc::new(Pool::new("default", "epp", std::time::Instant::now()));
    let run = || {
        let spec = FileDiscoverySpec { path: path.clone(), watch: false, clusters: false };
        FileDiscovery::new(spec, |_| {}).run(Arc::clone(&pool), CancellationToken::new())
    };
    assert!(run().await.is_err_and(|error| error.to_string().contains("cannot be read")));
    fs::write(&path, "endpoints: 3\n").unwrap();
    assert!(run().await.is_err_and(|error| error.to_string().contains("expected a list")));
    assert!(!pool.is_synced());
}

#[tokio::test]
async fn a_relative_path_is_told_as_the_whole_path() {
    let pool = Pool::new("default", "epp", std::time::Instant::now());
    let spec =
        FileDiscoverySpec { path: "no-such-folder/endpoints.yaml".into(), watch: false, clusters: false };
    let ReloadOutcome::Refused(message) = FileDiscovery::new(spec, |_| {}).look(&pool).await else {
        panic!("there is no such file")
    };
    let whole = std::env::current_dir().unwrap().join("no-such-folder/endpoints.yaml");
    assert!(message.starts_with(&whole.display().to_string()), "{message}");
}

#[tokio::test]
async fn the_same_content_is_not_applied_twice() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("endpoints.yaml");
    fs::write(&path, file(&["a"])).unwrap();
    let pool = Pool::new("default", "epp", std::time::Instant::now());
    let mut discovery = FileDiscovery::new(FileDiscoverySpec { path, watch: false, clusters: false }, |_| {});
    assert!(matches!(discovery.look(&pool).await, ReloadOutcome::Applied(PoolChange { added: 1, .. })));
    assert_eq!(discovery.look(&pool).await, ReloadOutcome::Unchanged);
    assert_eq!(pool.snapshot().version(), 1);
}

#[tokio::test]
async fn resources_for_another_pool_are_left_out() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("endpoints.yaml");
    let text = "endpoints: []\nobjectives:\n- {name: ours, priority: 1, poolRef: epp}\n- {name: theirs, priority: 2, poolRef: {name: other}}\n\
                modelRewrites:\n- {name: r, poolRef: other, rules: [{targets: [{modelRewrite: x}]}]}\n";
    fs::write(&path, text).unwrap();
    let pool = Pool::new("default", "epp", std::time::Instant::now());
    let mut discovery = FileDiscovery::new(FileDiscoverySpec { path, watch: false, clusters: false }, |_| {});
    discovery.look(&pool).await;
    assert_eq!((pool.objectives().find("ours"), pool.objectives().find("theirs")), (Some(1), None));
    assert!(pool.rewrites().find("any").is_none());
    assert!(pool.is_synced());
}

/// Takes what is said while `span` passes; nothing may be taken over or refused.
async fn nothing_is_taken_over(running: &mut Running, span: Duration) {
    let end = tokio::time::Instant::now() + span;
    while let Ok(Some(outcome)) = tokio::time::timeout_at(end, running.outcomes.recv()).await {
        assert_eq!(outcome, ReloadOutcome::Unchanged);
    }
}

#[tokio::test]
async fn a_half_written_file_is_not_taken_over_though_it_is_looked_at_again_and_again() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("endpoints.yaml");
    let text = |names: &[&str]| {
        let row =
            |(at, name): (usize, &&str)| format!("- {{name: {name}, address: 10.0.0.{}, port: 1}}\n", at + 1);
        "endpoints:\n".to_owned() + &names.iter().enumerate().map(row).collect::<String>()
    };
    fs::write(&path, text(&["a", "b", "c", "d"])).unwrap();
    let mut running = Running::start(&path, Duration::from_millis(100)).await;
    // A good file by itself, but only the beginning of what is being written.
    let (half, whole) = (text(&["a", "b"]), text(&["a", "b", "c", "d", "e"]));
    let mut writer = fs::File::create(&path).unwrap();
    std::io::Write::write_all(&mut writer, half.as_bytes()).unwrap();
    nothing_is_taken_over(&mut running, Duration::from_millis(800)).await;
    assert_eq!(running.names().len(), 4, "endpoints were lost to a half-written file");
    std::io::Write::write_all(&mut writer, &whole.as_bytes()[half.len()..]).unwrap();
    drop(writer);
    running.applied().await;
    assert_eq!(running.names(), ["a", "b", "c", "d", "e"]);
    running.stop().await;
}

#[tokio::test]
async fn without_events_a_change_is_taken_over_when_two_looks_found_the_same() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("endpoints.yaml");
    fs::write(&path, file(&["a", "b"])).unwrap();
    let pool = Pool::new("default", "epp", std::time::Instant::now());
    let mut discovery =
        FileDiscovery::new(FileDiscoverySpec { path: path.clone(), watch: false, clusters: false }, |_| {});
    discovery.look(&pool).await;
    for growing in [&["a"][..], &["a", "b"], &["a", "b", "c"]] {
        fs::write(&path, file(growing)).unwrap();
        assert_eq!(discovery.look(&pool).await, ReloadOutcome::Unchanged);
        assert_eq!(pool.snapshot().len(), 2);
    }
    assert!(matches!(
        discovery.look(&pool).await,
        ReloadOutcome::Applied(PoolChange { added: 1, kept: 2, removed: 0 })
    ));
    fs::remove_file(&path).unwrap();
    assert_eq!(discovery.look(&pool).await, ReloadOutcome::Unchanged);
    assert!(matches!(discovery.look(&pool).await, ReloadOutcome::Refused(_)));
}

#[tokio::test]
async fn other_files_of_the_folder_cause_no_look() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("endpoints.yaml");
    fs::write(&path, file(&["a"])).unwrap();
    let mut running = Running::start(&path, NEVER).await;
    for number in 0..50 {
        let other = folder.path().join(format!("other-{number}"));
        fs::write(&other, "x").unwrap();
        fs::rename(&other, folder.path().join("another")).unwrap();
    }
    assert!(timeout(Duration::from_millis(400), running.outcomes.recv()).await.is_err(), "the file was read");
    replace(&path, &file(&["b"]));
    running.applied().await;
    running.stop().await;
}

#[tokio::test]
async fn host_names_are_looked_up_again_and_again() {
    use std::sync::atomic::{AtomicU8, Ordering};
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("endpoints.yaml");
    fs::write(
        &path,
        "endpoints: [{name: a, address: gpu, port: 1}, {name: b, address: 10.0.0.9, port: 1}]\n",
    )
    .unwrap();
    let last = Arc::new(AtomicU8::new(1));
    let shown = Arc::clone(&last);
    let resolver = Resolver::new(move |_| Ok(vec![[10, 0, 0, shown.load(Ordering::SeqCst)].into()]));
    let pool = Arc::new(Pool::new("default", "epp", std::time::Instant::now()));
    let shutdown = CancellationToken::new();
    let discovery = FileDiscovery::new(FileDiscoverySpec { path, watch: false, clusters: false }, |_| {})
        .with_resolver(resolver, Duration::from_millis(10));
    let task = tokio::spawn(discovery.run(Arc::clone(&pool), shutdown.clone()));
    for address in [1, 2, 3] {
        last.store(address, Ordering::SeqCst);
        let mut changes = pool.subscribe();
        let targets = || {
            pool.snapshot()
                .endpoints()
                .iter()
                .map(|endpoint| endpoint.target().to_owned())
                .collect::<Vec<_>>()
        };
        let moved = async {
            while targets() != [format!("10.0.0.{address}:1"), "10.0.0.9:1".to_owned()] {
                changes.changed().await.unwrap();
            }
        };
        timeout(PATIENCE, moved).await.expect("the name was not looked up again");
    }
    shutdown.cancel();
    timeout(PATIENCE, task).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn what_is_no_regular_file_is_not_opened() {
    let folder = TempDir::new().unwrap();
    for path in [folder.path(), Path::new("/dev/zero")] {
        let error = timeout(PATIENCE, read(path)).await.expect("it comes back").unwrap_err();
        assert!(error.contains("no regular file"), "{error}");
    }
}
