//! The names that the program has in its image, and what stands behind each.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::{SCORERS, config, program};

/// The names that the Dockerfile gives the program.
fn names() -> Vec<String> {
    let dockerfile = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Dockerfile")).unwrap();
    let list = dockerfile.lines().find_map(|line| line.strip_prefix("for name in ")?.strip_suffix("; do"));
    list.unwrap().split(' ').map(str::to_owned).collect()
}

/// A root folder as the image has it: the program and its names.
struct Image {
    root: TempDir,
}

impl Image {
    /// The program is linked to, so that its libraries are found.
    fn linked() -> Self {
        let image = Self { root: tempfile::tempdir().unwrap() };
        image.name(&program());
        image
    }

    /// The program is copied, and so are the libraries of one that is not static: nothing else of this machine is
    /// needed.
    fn whole() -> Self {
        let image = Self { root: tempfile::tempdir().unwrap() };
        image.copy(&program(), "pointsman");
        let libraries = Command::new("ldd").arg(program()).output().unwrap();
        for word in String::from_utf8(libraries.stdout).unwrap().split_whitespace() {
            if let Some(inside) = word.strip_prefix('/') {
                image.copy(Path::new(word), inside);
            }
        }
        image.name(Path::new("/pointsman"));
        image
    }

    fn copy(&self, from: &Path, to: &str) {
        let to = self.path(to);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(from, to).unwrap();
    }

    fn name(&self, target: &Path) {
        for name in names() {
            let path = self.path(&name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            symlink(target, path).unwrap();
        }
    }

    fn path(&self, inside: &str) -> PathBuf {
        self.root.path().join(inside)
    }

    fn write(&self, inside: &str, text: &str) {
        std::fs::create_dir_all(self.path(inside).parent().unwrap()).unwrap();
        std::fs::write(self.path(inside), text).unwrap();
    }

    /// Calls the program by one of its names.
    fn call(&self, name: &str, args: &[&str]) -> Output {
        Command::new(self.path(name)).args(args).output().unwrap()
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&*output.stdout, &*output.stderr].concat()).into_owned()
}

#[test]
fn the_image_has_the_names_by_which_manifests_call_a_picker_and_its_hooks() {
    assert_eq!(
        names(),
        ["epp", "app/epp", "manager", "app/pd-sidecar", "app/llm-d-routing-sidecar", "bin/sleep", "bin/sh"]
    );
    let image = Image::linked();
    for name in ["epp", "app/epp", "manager"] {
        let output = image.call(name, &["--version"]);
        assert!(output.status.success() && said(&output).contains(env!("CARGO_PKG_VERSION")), "{name}");
        let output = image.call(name, &["serve", "--help"]);
        assert!(said(&output).contains("--pool-name"), "{name}: {}", said(&output));
    }
}

#[test]
fn sleep_and_a_shell_that_sleeps_wait_as_long_as_they_are_told() {
    let image = Image::linked();
    for (name, args) in [
        ("bin/sleep", &["1"][..]),
        ("bin/sleep", &["0.5", "0.5s"]),
        ("bin/sh", &["-c", "sleep 1"]),
        ("bin/sh", &["-c", "exec /bin/sleep 1;"]),
    ] {
        let begin = Instant::now();
        let output = image.call(name, args);
        assert!(output.status.success() && said(&output).is_empty(), "{name} {args:?}: {}", said(&output));
        assert!(begin.elapsed() >= Duration::from_secs(1), "{name} {args:?}");
    }
}

#[test]
fn sleep_and_the_shell_refuse_all_else_and_say_what_they_know() {
    let image = Image::linked();
    for (name, args, code, expected) in [
        ("bin/sleep", &[][..], 1, "expected a time"),
        ("bin/sleep", &["soon"], 1, "got \"soon\", expected seconds"),
        ("bin/sh", &["-c", "rm -r /"], 127, "got \"rm -r /\", but this image holds no shell"),
        ("bin/sh", &["-c", "sleep 1 && touch x"], 127, "this image holds no shell"),
        ("bin/sh", &[], 127, "this image holds no shell"),
        ("bin/sh", &["--pool-name", "p"], 127, "this image holds no shell"),
    ] {
        let output = image.call(name, args);
        assert_eq!(output.status.code(), Some(code), "{name} {args:?}");
        assert!(said(&output).contains(expected), "{name} {args:?}: {}", said(&output));
    }
}

/// The containers of KServe's scheduler template, as it renders them from 0.16 on: with arguments for the image's own
/// entry point in the early spelling, in today's, and with a command that names the path in the image. Values are those
/// of a service `llm` in the namespace `default`.
const KSERVE: &[&str] = &[
    "/pointsman --poolName llm-inference-pool --poolNamespace default --zap-encoder json --grpcPort 9002 --grpcHealthPort 9003",
    "/pointsman --poolName llm-inference-pool --poolNamespace default --pool-group inference.networking.x-k8s.io --zap-encoder json \
     --grpcPort 9002 --grpcHealthPort 9003 --secureServing --modelServerMetricsScheme https --modelServerMetricsHttpsInsecureSkipVerify \
     --certPath /etc/ssl/certs --kv-cache-usage-percentage-metric vllm:kv_cache_usage_perc",
    "/pointsman --pool-name llm-inference-pool --pool-namespace default --zap-encoder json --grpc-port 9002 --grpc-health-port 9003 \
     --kv-cache-usage-percentage-metric vllm:kv_cache_usage_perc --secure-serving --model-server-metrics-scheme https \
     --model-server-metrics-https-insecure-skip-verify --cert-path /etc/ssl/certs",
    "/app/epp --pool-name llm-inference-pool --pool-namespace default --zap-encoder json --grpc-port 9002 --grpc-health-port 9003 \
     --enable-cert-reload=true --secure-serving=true --model-server-metrics-scheme=https --cert-path=/var/run/kserve/tls",
    "/app/epp --pool-name llm-inference-pool --pool-namespace default --zap-encoder json --grpc-port 9002 --grpc-health-port 9003 \
     --enable-cert-reload=false --secure-serving=false --model-server-metrics-scheme=http --cert-path=",
];

/// True if this machine lets the test change the root folder.
fn can_change_root(image: &Image) -> bool {
    let probe = Command::new("chroot").arg(image.root.path()).args(["/bin/sleep", "0"]).output();
    probe.is_ok_and(|output| output.status.success())
}

#[test]
fn the_containers_of_kserves_scheduler_start_and_stop_in_a_root_that_holds_the_image_alone() {
    let image = Image::whole();
    if !can_change_root(&image) {
        println!("SKIPPED: the root folder cannot be changed here; that takes root and chroot");
        return;
    }
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    for folder in ["etc/ssl/certs", "var/run/kserve/tls"] {
        image.write(&format!("{folder}/tls.crt"), &signed.cert.pem());
        image.write(&format!("{folder}/tls.key"), &signed.signing_key.serialize_pem());
    }
    image.write("endpoints.yaml", "endpoints: []\n");
    let text = config(Path::new("/endpoints.yaml"), SCORERS);
    let open = |path: &Path| {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    open(image.root.path());
    for line in KSERVE {
        let mut child = Command::new("chroot")
            .args(["--userspec=65532:65532", image.root.path().to_str().unwrap()])
            .args(line.split_whitespace().map(|word| if word == "--cert-path=" { "" } else { word }))
            .args(["--config-text", &text, "--bind-address", "127.0.0.1", "--print-addresses"])
            .args([
                "--grpc-port",
                "0",
                "--grpc-health-port",
                "0",
                "--metrics-port",
                "0",
                "--drain-timeout",
                "0s",
            ])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = std::io::BufReader::new(child.stdout.take().unwrap());
        let listens =
            std::io::BufRead::lines(stdout).map_while(Result::ok).any(|line| line.starts_with("metrics "));
        if listens {
            // As the kubelet does: the hook to its end, then the signal.
            let hook =
                Command::new("chroot").arg(image.root.path()).args(["/bin/sh", "-c", "sleep 0.1"]).status();
            assert!(hook.unwrap().success());
            let signal = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
            assert!(signal.unwrap().success());
        }
        let output = child.wait_with_output().unwrap();
        assert!(listens, "{line}\n{}", said(&output));
        assert!(output.status.success(), "{line}\n{}", said(&output));
    }
}
