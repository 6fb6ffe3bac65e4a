//! The processes that are measured.

use std::io::{BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::NamedTempFile;

/// Environment variable that tells a child which part it plays.
pub const ROLE: &str = "POINTSMAN_BENCH_ROLE";

/// A running process, killed when dropped.
pub struct Child {
    process: std::process::Child,
    port: u16,
    metrics_port: u16,
    _endpoints: Option<NamedTempFile>,
}

/// CPU time and memory of a process.
pub struct Usage {
    /// User and system time.
    pub cpu: Duration,
    /// Resident memory now.
    pub resident_mb: u64,
    /// Most resident memory ever.
    pub peak_mb: u64,
}

impl Usage {
    /// The same memory, and the CPU time since `before`.
    pub fn since(self, before: &Self) -> Self {
        Self { cpu: self.cpu.saturating_sub(before.cpu), ..self }
    }
}

impl Child {
    /// Model servers: every address of 127/8 on one port.
    pub fn fleet() -> Self {
        Self::own("fleet")
    }

    /// The server that decides nothing.
    pub fn floor() -> Self {
        Self::own("floor")
    }

    fn own(role: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
        command.env(ROLE, role);
        let (process, lines) = start(command, 1);
        Self { process, port: port(&lines[0]), metrics_port: 0, _endpoints: None }
    }

    /// The program, over `endpoints` model servers of the fleet.
    pub fn pointsman(fleet_port: u16, endpoints: usize) -> Self {
        let mut file = NamedTempFile::with_suffix(".yaml").expect("a temporary file");
        writeln!(file, "endpoints:").expect("a writable file");
        for index in 0..endpoints as u32 {
            let address = Ipv4Addr::from(0x7f00_0101 + index);
            writeln!(file, "- {{name: pod-{index}, address: {address}, port: \"{fleet_port}\"}}")
                .expect("a writable file");
        }
        let config = format!(
            "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {{type: file-discovery, parameters: {{path: {}}}}}
- type: queue-scorer
- type: kv-cache-utilization-scorer
- type: prefix-cache-scorer
- type: no-hit-lru-scorer
schedulingProfiles:
- name: default
  plugins:
  - {{pluginRef: queue-scorer, weight: 2}}
  - {{pluginRef: kv-cache-utilization-scorer, weight: 2}}
  - {{pluginRef: prefix-cache-scorer, weight: 3}}
  - {{pluginRef: no-hit-lru-scorer, weight: 2}}
dataLayer: {{discovery: {{pluginRef: file-discovery}}}}
",
            file.path().display()
        );
        let mut command = Command::new(env!("CARGO_BIN_EXE_pointsman"));
        command.args(["serve", "--bind-address=127.0.0.1", "--grpc-port=0", "--grpc-health-port=0"]);
        command.args([
            "--metrics-port=0",
            "--secure-serving=false",
            "--tracing=false",
            "--v=1",
            "--print-addresses",
        ]);
        command.args(["--config-text", &config]);
        let (process, lines) = start(command, 3);
        let of = |name: &str| lines.iter().find(|line| line.starts_with(name)).map_or(0, |line| port(line));
        Self { process, port: of("grpc"), metrics_port: of("metrics"), _endpoints: Some(file) }
    }

    /// The port it serves on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Waits until as many endpoints are ready as there are.
    pub async fn wait_until_fresh(&self, endpoints: usize) {
        let wanted = format!("llm_d_epp_ready_endpoints{{name=\"epp\"}} {endpoints}\n");
        let deadline = std::time::Instant::now() + Duration::from_mins(1);
        while !self.metrics_page().await.contains(&wanted) {
            assert!(std::time::Instant::now() < deadline, "endpoints stay without metrics");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn metrics_page(&self) -> String {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let connect = tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, self.metrics_port));
        let Ok(mut stream) = connect.await else { return String::new() };
        let request = b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        let mut page = Vec::new();
        if stream.write_all(request).await.is_err() || stream.read_to_end(&mut page).await.is_err() {
            return String::new();
        }
        String::from_utf8_lossy(&page).into_owned()
    }

    /// What it has used until now.
    pub fn usage(&self) -> Usage {
        let pid = self.process.id();
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |index: usize| fields.get(index).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let memory = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            line.split_whitespace().nth(1).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0) / 1024
        };
        Usage {
            // A tick is a hundredth of a second on every Linux there is.
            cpu: Duration::from_millis((ticks(11) + ticks(12)) * 10),
            resident_mb: memory("VmRSS:"),
            peak_mb: memory("VmHWM:"),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _: std::io::Result<()> = self.process.kill();
        let _: std::io::Result<_> = self.process.wait();
    }
}

/// Starts a process and reads the first `count` lines it prints.
fn start(mut command: Command, count: usize) -> (std::process::Child, Vec<String>) {
    let mut process =
        command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the process starts");
    let output = process.stdout.take().expect("its output is piped");
    let lines: Vec<String> = BufReader::new(output).lines().take(count).map_while(Result::ok).collect();
    assert_eq!(lines.len(), count, "the process ended early");
    (process, lines)
}

fn port(line: &str) -> u16 {
    line.rsplit(':').next().and_then(|text| text.trim().parse().ok()).expect("a line ends in a port")
}

/// Size of the program's file.
pub fn binary_mb() -> f64 {
    std::fs::metadata(env!("CARGO_BIN_EXE_pointsman")).map_or(0.0, |file| file.len() as f64 / 1e6)
}
