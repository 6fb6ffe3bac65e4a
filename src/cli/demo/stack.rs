//! Servers, picker and Envoy of the demo, on ports that the system chooses.

use std::hash::{BuildHasher as _, RandomState};
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::child::Guarded;
use super::client::{metric, page};

/// The file that users take.
const ENVOY_FILE: &str = include_str!("../../../deploy/envoy/envoy.yaml");

/// Flags that make the simulated servers small: each remembers about a quarter of the prefixes in the load.
const SERVER_FLAGS: [&str; 6] =
    ["--max-num-seqs", "16", "--num-gpu-blocks", "1200", "--prefill-us-per-token", "100"];

/// A scratch folder that is removed with this value.
pub(super) struct Folder(PathBuf);

impl Folder {
    /// A folder below the system's temporary one, which others may write: it is new, its name cannot be guessed, and
    /// nobody else may look in.
    pub(super) fn make() -> anyhow::Result<Self> {
        Self::make_in(&std::env::temp_dir())
    }

    fn make_in(parent: &Path) -> anyhow::Result<Self> {
        // The keys of the standard hash come from the system's randomness.
        let name = RandomState::new().hash_one(std::process::id());
        let path = parent.join(format!("pointsman-demo-{name:016x}"));
        // Fails if anything is there, be it a link.
        let made = std::fs::DirBuilder::new().mode(0o700).create(&path);
        made.with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }

    /// Path of the folder.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A folder that stays costs a few kilobytes.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Simulated model servers in a process of their own.
pub(super) struct Fleet {
    /// Name and address of each.
    pub(super) servers: Vec<(String, SocketAddr)>,
    _process: Guarded,
}

impl Fleet {
    /// Starts `count` servers.
    pub(super) async fn start(program: &Path, count: usize, folder: &Path) -> anyhow::Result<Self> {
        Self::start_as("sim", program, count, &SERVER_FLAGS, folder).await
    }

    /// Starts `count` servers that are called `name`, with these flags.
    pub(super) async fn start_as(
        name: &'static str,
        program: &Path,
        count: usize,
        flags: &[&str],
        folder: &Path,
    ) -> anyhow::Result<Self> {
        let count_text = count.to_string();
        let mut args = vec!["sim", "--port", "0", "--print-addresses", "--count", &count_text];
        args.extend(["--name-prefix", name]);
        args.extend(flags);
        let mut process = Guarded::start(name, program, args, folder)?;
        let servers = process
            .until(async |process| {
                let named = |line: &str| {
                    let (name, addr) = line.split_once(' ')?;
                    Some((name.to_owned(), addr.parse().ok()?))
                };
                let servers: Vec<(String, SocketAddr)> = process.output().lines().filter_map(named).collect();
                (servers.len() == count).then_some(servers)
            })
            .await?;
        Ok(Self { servers, _process: process })
    }

    /// Their addresses.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.servers.iter().map(|(_, addr)| *addr).collect()
    }

    /// Prompt tokens that the servers looked for in their caches so far, and those that they found.
    pub(super) async fn cache_counts(&self) -> anyhow::Result<(f64, f64)> {
        let (mut looked_for, mut found) = (0.0, 0.0);
        for (_, addr) in &self.servers {
            looked_for += metric(*addr, "vllm:prefix_cache_queries_total").await?;
            found += metric(*addr, "vllm:prefix_cache_hits_total").await?;
        }
        Ok((looked_for, found))
    }
}

/// The picker in a process of its own.
pub(super) struct Picker {
    /// Address of its metrics port.
    pub(super) metrics: SocketAddr,
    grpc: SocketAddr,
    _process: Guarded,
}

impl Picker {
    /// Starts the picker with this configuration for these servers, and waits until it has read all their metrics.
    pub(super) async fn start(
        program: &Path,
        scheduling: &str,
        fleet: &Fleet,
        folder: &Path,
    ) -> anyhow::Result<Self> {
        let servers = endpoints_file(&fleet.servers);
        Self::start_for(program, scheduling, &servers, fleet.servers.len(), folder).await
    }

    /// The same for the `count` servers of this endpoints file.
    pub(super) async fn start_for(
        program: &Path,
        scheduling: &str,
        servers: &str,
        count: usize,
        folder: &Path,
    ) -> anyhow::Result<Self> {
        let endpoints = folder.join("endpoints.yaml");
        std::fs::write(&endpoints, servers)?;
        let config = folder.join("epp.yaml");
        std::fs::write(&config, config_file(scheduling, &endpoints))?;
        let args =
            ["--pool-name", "demo", "--bind-address", "127.0.0.1", "--print-addresses", "--tracing=false"];
        let args =
            args.into_iter().chain(["--grpc-port", "0", "--grpc-health-port", "0", "--metrics-port", "0"]);
        let args = args.chain(["--refresh-prometheus-metrics-interval", "200ms", "--config-file"]);
        let args = args.map(AsRef::as_ref).chain([config.as_os_str()]);
        let mut process = Guarded::start("pointsman", program, args, folder)?;
        let (grpc, metrics) = process
            .until(async |process| {
                let output = process.output();
                let address = |listener: &str| -> Option<SocketAddr> {
                    output
                        .lines()
                        .find_map(|line| line.strip_prefix(listener)?.strip_prefix(' ')?.parse().ok())
                };
                Some((address("grpc")?, address("metrics")?))
            })
            .await?;
        process
            .until(async |_| {
                let ready = metric(metrics, "llm_d_epp_ready_endpoints").await.ok()?;
                (ready >= count as f64).then_some(())
            })
            .await
            .context("the model servers' metrics are not read")?;
        Ok(Self { metrics, grpc, _process: process })
    }
}

/// Envoy in a process of its own.
pub(super) struct Envoy {
    /// Address for clients.
    pub(super) addr: SocketAddr,
    /// Its admin interface.
    pub(super) admin: SocketAddr,
    _process: Guarded,
}

impl Envoy {
    /// Starts Envoy with the users' file in front of this picker and waits until it takes requests.
    pub(super) async fn start(program: &Path, picker: &Picker, folder: &Path) -> anyhow::Result<Self> {
        let file = folder.join("envoy.yaml");
        std::fs::write(&file, envoy_file(picker.grpc))?;
        let admin_file = folder.join("envoy-admin");
        let args =
            ["--disable-hot-restart", "--log-level", "warning", "--admin-address-path"].map(AsRef::as_ref);
        let args = args.into_iter().chain([admin_file.as_os_str(), "-c".as_ref(), file.as_os_str()]);
        let mut process = Guarded::start("envoy", program, args, folder)
            .context("the demo needs Envoy: `make setup` fetches it, --envoy names another")?;
        let (addr, admin) = process
            .until(async |_| {
                let admin: SocketAddr = std::fs::read_to_string(&admin_file).ok()?.trim().parse().ok()?;
                page(admin, "/ready").await.ok()?;
                let listeners = page(admin, "/listeners?format=json").await.ok()?;
                Some((listener(&listeners)?, admin))
            })
            .await?;
        Ok(Self { addr, admin, _process: process })
    }
}

fn endpoints_file(servers: &[(String, SocketAddr)]) -> String {
    let line = |(name, addr): &(String, SocketAddr)| {
        format!("- {{name: {name}, address: \"{}\", port: \"{}\"}}\n", addr.ip(), addr.port())
    };
    std::iter::once("endpoints:\n".to_owned()).chain(servers.iter().map(line)).collect()
}

/// The configuration, with endpoints from this file.
fn config_file(scheduling: &str, endpoints: &Path) -> String {
    let discovery = "dataLayer:\n  discovery: {pluginRef: file-discovery}\n";
    let found = format!(
        "\nplugins:\n- type: file-discovery\n  parameters: {{path: \"{}\", watchFile: true}}\n",
        endpoints.display()
    );
    let text = scheduling.replacen("\nplugins:\n", &found, 1);
    if text.contains("\ndataLayer:\n") {
        text.replacen("\ndataLayer:\n", &format!("\n{discovery}"), 1)
    } else {
        text + discovery
    }
}

fn envoy_file(grpc: SocketAddr) -> String {
    ENVOY_FILE
        .replace("address: 127.0.0.1, port_value: 19000", "address: 127.0.0.1, port_value: 0")
        .replace("address: 0.0.0.0, port_value: 8081", "address: 127.0.0.1, port_value: 0")
        .replace(
            "address: 127.0.0.1, port_value: 9002",
            &format!("address: {}, port_value: {}", grpc.ip(), grpc.port()),
        )
}

fn listener(page: &str) -> Option<SocketAddr> {
    let page: serde_json::Value = serde_json::from_str(page).ok()?;
    let address = page.get("listener_statuses")?.get(0)?.get("local_address")?.get("socket_address")?;
    format!("{}:{}", address.get("address")?.as_str()?, address.get("port_value")?.as_u64()?).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scratch_folder_is_new_private_and_hard_to_guess() {
        use std::os::unix::fs::PermissionsExt as _;
        let parent = tempfile::tempdir().unwrap();
        let folders = [(); 2].map(|()| Folder::make_in(parent.path()).unwrap());
        assert_ne!(folders[0].path(), folders[1].path(), "one process, two names");
        for folder in &folders {
            let found = std::fs::symlink_metadata(folder.path()).unwrap();
            assert!(found.is_dir());
            assert_eq!(found.permissions().mode() & 0o777, 0o700);
            let name = folder.path().file_name().unwrap().to_str().unwrap();
            assert!(!name.ends_with(&std::process::id().to_string()), "{name}");
        }
        let path = folders[0].path().to_owned();
        drop(folders);
        assert!(!path.exists());
    }

    #[test]
    fn no_port_of_the_users_envoy_file_is_left() {
        let text = envoy_file("127.0.0.1:41001".parse().unwrap());
        for port in ["19000,", "port_value: 8081", "port_value: 9002"] {
            assert!(!text.contains(port), "{port}");
        }
        assert_eq!(text.matches("port_value: 41001").count(), 1);
    }

    #[test]
    fn both_configurations_of_the_demo_take_their_endpoints_from_its_file() {
        for scheduling in [super::super::play::DEFAULT, super::super::play::RECOMMENDED] {
            let text = config_file(scheduling, Path::new("endpoints.yaml"));
            assert_eq!(text.matches("path: \"endpoints.yaml\"").count(), 1, "{text}");
            assert_eq!(text.matches("discovery: {pluginRef: file-discovery}").count(), 1, "{text}");
            assert_eq!(text.matches("dataLayer:").count(), 1, "{text}");
        }
    }

    #[test]
    fn a_listener_is_found_on_envoys_page() {
        let page = r#"{"listener_statuses":[{"name":"x","local_address":{"socket_address":{"address":"127.0.0.1","port_value":5}}}]}"#;
        assert_eq!(listener(page), "127.0.0.1:5".parse().ok());
        assert_eq!(listener("{}"), None);
    }
}
