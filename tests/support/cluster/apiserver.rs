//! A real kube-apiserver with an etcd inside, on loopback.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::time::Duration;

use kube::config::{AuthInfo, Kubeconfig};
use kube::{Client, Config};
use parking_lot::Mutex;
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::OnceCell;

use crate::support::{documents, eventually, tool};

/// Token of somebody who may do everything.
const ADMIN: &str = "admin-token";
/// Namespaces whose service account has a token; see [`ApiServer::account`].
const ACCOUNTS: usize = 64;

/// The server. It ends with this value, or with the process.
pub(crate) struct ApiServer {
    folder: TempDir,
    ports: [u16; 3],
    running: Mutex<Option<Running>>,
}

struct Running {
    child: Child,
    /// The server ends when this is closed.
    _stdin: ChildStdin,
}

impl ApiServer {
    /// The one that tests share, each with a namespace of its own. The definitions of `deploy/crds` are installed.
    pub(crate) async fn shared() -> &'static Self {
        static SHARED: OnceCell<ApiServer> = OnceCell::const_new();
        SHARED
            .get_or_init(|| async {
                let server = Self::start().await;
                server.install_definitions().await;
                server
            })
            .await
    }

    /// A server with nothing in it.
    pub(crate) async fn start() -> Self {
        let server =
            Self { folder: tempfile::tempdir().unwrap(), ports: free_ports(), running: Mutex::new(None) };
        server.write_files();
        server.resume().await;
        server
    }

    /// Ends it as a crash would. What it holds stays.
    pub(crate) fn stop(&self) {
        drop(self.running.lock().take());
    }

    /// Starts it again, with the same address and what it held before.
    pub(crate) async fn resume(&self) {
        *self.running.lock() = Some(self.spawn());
        eventually("the API server is ready", async || {
            let ended = self.running.lock().as_mut().unwrap().child.try_wait().unwrap();
            assert!(ended.is_none(), "the API server ended: {}", self.log());
            let client = self.admin();
            let ask = |path: &str| http::Request::get(path).body(Vec::new()).unwrap();
            let ready = client.request_text(ask("/readyz")).await.is_ok_and(|text| text == "ok");
            // The rules that accounts get by default come a moment later.
            (ready && client.request_text(ask("/api/v1/namespaces/default")).await.is_ok()).then_some(())
        })
        .await;
    }

    /// A client that may do everything. It works in the runtime of the caller.
    pub(crate) fn admin(&self) -> Client {
        self.client(ADMIN)
    }

    /// A kubeconfig of somebody who may do everything, for programs.
    pub(crate) fn admin_kubeconfig(&self) -> PathBuf {
        self.kubeconfig(ADMIN)
    }

    /// A client with this token.
    pub(crate) fn client(&self, token: &str) -> Client {
        let mut config = Config::new(self.url().parse().unwrap());
        config.accept_invalid_certs = true;
        config.connect_timeout = Some(Duration::from_secs(2));
        config.auth_info = AuthInfo { token: Some(token.to_owned().into()), ..AuthInfo::default() };
        Client::try_from(config).unwrap()
    }

    /// Name and token of the service account `system:serviceaccount:t<number>:pool-epp`, which has no rights but those
    /// it is given.
    pub(crate) fn account(number: usize) -> (String, String) {
        (format!("system:serviceaccount:t{number}:pool-epp"), format!("epp-token-{number}"))
    }

    /// Token of a user that nobody has given any right.
    pub(crate) fn stranger() -> &'static str {
        "stranger-token"
    }

    /// A kubeconfig with this token, for programs.
    pub(crate) fn kubeconfig(&self, token: &str) -> PathBuf {
        let authority = std::fs::read_to_string(self.path("certs/apiserver.crt")).unwrap();
        let authority = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, authority);
        let config: Kubeconfig = serde_json::from_value(json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": {
                "server": self.url(), "certificate-authority-data": authority,
            }}],
            "users": [{"name": "test", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "current-context": "test",
        }))
        .unwrap();
        let path = self.path(&format!("kubeconfig-{token}"));
        std::fs::write(&path, serde_json::to_string(&config).unwrap()).unwrap();
        path
    }

    /// Applies every definition of `deploy/crds` and waits until the API serves them.
    pub(crate) async fn install_definitions(&self) {
        for entry in std::fs::read_dir(root().join("deploy/crds")).unwrap() {
            let path = entry.unwrap().path();
            let is_yaml = path.extension().is_some_and(|extension| extension == "yaml");
            let text = if is_yaml { std::fs::read_to_string(path).unwrap() } else { String::new() };
            for object in documents(&text) {
                if object["kind"] == "CustomResourceDefinition" {
                    self.apply_object(&object, None).await;
                }
            }
        }
        let client = self.admin();
        for path in [
            "/apis/inference.networking.k8s.io/v1/inferencepools",
            "/apis/inference.networking.x-k8s.io/v1alpha2/inferencepools",
            "/apis/inference.networking.x-k8s.io/v1alpha2/inferenceobjectives",
            "/apis/inference.networking.x-k8s.io/v1alpha2/inferencemodelrewrites",
            "/apis/llm-d.ai/v1alpha2/inferenceobjectives",
            "/apis/llm-d.ai/v1alpha2/inferencemodelrewrites",
        ] {
            eventually(path, async || {
                client.request_text(http::Request::get(path).body(Vec::new()).unwrap()).await.ok()
            })
            .await;
        }
    }

    /// Where it listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.ports[0]))
    }

    fn url(&self) -> String {
        format!("https://{}", self.addr())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn log(&self) -> String {
        let text = std::fs::read_to_string(self.path("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    fn write_files(&self) {
        let mut tokens = format!("{ADMIN},admin,1,\"system:masters\"\n{},stranger,2,\n", Self::stranger());
        for number in 0..ACCOUNTS {
            let (name, token) = Self::account(number);
            tokens += &format!(
                "{token},{name},t{number},\"system:serviceaccounts,system:serviceaccounts:t{number}\"\n"
            );
        }
        std::fs::write(self.path("tokens"), tokens).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        std::fs::write(self.path("sa.key"), key.serialize_pem()).unwrap();
        std::fs::write(self.path("sa.pub"), key.public_key_pem()).unwrap();
    }

    fn spawn(&self) -> Running {
        let program = tool(&["target/kubernetes/apiserver"]);
        let log = std::fs::File::options().create(true).append(true).open(self.path("log")).unwrap();
        let path = |name: &str| self.path(name).display().to_string();
        let mut child = Command::new(program)
            .arg(self.folder.path())
            .args(self.ports[1..].iter().map(u16::to_string))
            .args(["--bind-address=127.0.0.1", "--advertise-address=127.0.0.1"])
            .arg(format!("--secure-port={}", self.ports[0]))
            .arg(format!("--cert-dir={}", path("certs")))
            .arg("--service-account-issuer=https://kubernetes.default.svc")
            .arg(format!("--service-account-key-file={}", path("sa.pub")))
            .arg(format!("--service-account-signing-key-file={}", path("sa.key")))
            .arg("--service-cluster-ip-range=10.0.0.0/24")
            .arg(format!("--token-auth-file={}", path("tokens")))
            .args(["--authorization-mode=RBAC", "--disable-admission-plugins=ServiceAccount"])
            .args(["--endpoint-reconciler-type=none", "--profiling=false", "--v=0"])
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        Running { child, _stdin: stdin }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Ports that are free now and that the system hands out to nobody: they have to be free again after the server was
/// away.
fn free_ports() -> [u16; 3] {
    // Below those that the system chooses from, which begin at 32768. Processes and servers begin at places of their
    // own.
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 12_000 + (std::process::id() % 600) as u16 * 30;
    let free = |port: &u16| TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], *port))).is_ok();
    [(); 3].map(|()| {
        let mut candidates = std::iter::repeat_with(|| first + NEXT.fetch_add(1, Relaxed) % 1000);
        candidates.find(free).unwrap()
    })
}
