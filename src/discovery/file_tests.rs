use std::fs;

use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::timeout;

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
        let spec = FileDiscoverySpec { path: path.to_owned(), watch: true };
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
    assert_eq!(running.pool.objectives().priority("o"), 3);

    replace(&path, &file(&["c"]));
    running.applied().await;
    assert_eq!((running.names(), running.pool.objectives().priority("o")), (vec!["c".into()], 0));
    running.stop().await;
}

#[tokio::test]
async fn a_missing_or_faulty_file_at_the_start_is_an_error_and_leaves_the_pool_unsynced() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("endpoints.yaml");
    let pool = Arc::new(Pool::new("default", "epp", std::time::Instant::now()));
    let run = || {
        let spec = FileDiscoverySpec { path: path.clone(), watch: false };
        FileDiscovery::new(spec, |_| {}).run(Arc::clone(&pool), CancellationToken::new())
    };
    assert!(run().await.is_err_and(|error| error.to_string().contains("cannot be read")));
    fs::write(&path, "endpoints: 3\n").unwrap();
    assert!(run().await.is_err_and(|error| error.to_string().contains("expected a list")));
    assert!(!pool.is_synced());
}

#[tokio::test]
async fn the_same_content_is_not_applied_twice() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("endpoints.yaml");
    fs::write(&path, file(&["a"])).unwrap();
    let pool = Pool::new("default", "epp", std::time::Instant::now());
    let mut discovery = FileDiscovery::new(FileDiscoverySpec { path, watch: false }, |_| {});
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
    let mut discovery = FileDiscovery::new(FileDiscoverySpec { path, watch: false }, |_| {});
    discovery.look(&pool).await;
    assert_eq!((pool.objectives().priority("ours"), pool.objectives().priority("theirs")), (1, 0));
    assert!(pool.rewrites().find("any").is_none());
    assert!(pool.is_synced());
}
