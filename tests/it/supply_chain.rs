//! Where what is built, shipped and fetched comes from: wheels, Debian's Prometheus, base images, the bill of
//! materials.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

#[test]
fn every_wheel_is_checked_by_hash() {
    let text = read("tests/requirements.txt").replace("\\\n", " ");
    let pins: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    assert!(pins.len() > 10, "{pins:?}");
    for pin in pins {
        let mut words = pin.split_whitespace();
        assert!(words.next().unwrap().contains("=="), "{pin}");
        let hashes: Vec<&str> = words.map(|word| word.strip_prefix("--hash=sha256:").unwrap()).collect();
        assert!(!hashes.is_empty() && hashes.iter().all(|hash| is_digest(hash)), "{pin}");
    }
    let makefile = read("Makefile");
    let install = makefile.split("pip install").nth(1).unwrap().split("REQUIREMENTS").next().unwrap();
    for option in ["--require-hashes", "--only-binary :all:"] {
        assert!(install.contains(option), "{install}");
    }
}

/// A folder with an archive: programs that stand for `apt-get`, `dpkg` and `dpkg-deb`, and nothing of this machine's
/// Prometheus.
struct Archive {
    folder: tempfile::TempDir,
}

impl Archive {
    /// An archive whose newest package is `newest`, and which still has those of `versions`.
    fn with(newest: &str, versions: &[&str]) -> Self {
        let archive = Self { folder: tempfile::tempdir().unwrap() };
        let versions = versions.join(" ");
        archive.program(
            "apt-get",
            &format!(
                "[ \"$1\" = update ] && exit 0\nwanted=${{2#prometheus}} wanted=${{wanted#=}}\nwanted=${{wanted:-{newest}}}\n\
                 case \" {versions} \" in *\" $wanted \"*) printf %s \"package $wanted\" > \"prometheus_${{wanted}}_amd64.deb\" ;; *) exit 100 ;; esac"
            ),
        );
        archive.program("dpkg", "echo amd64");
        archive.program("dpkg-deb", "mkdir -p usr/bin && cp \"$2\" usr/bin/prometheus");
        for name in
            ["basename", "bash", "cp", "dirname", "head", "ln", "ls", "mkdir", "rm", "sed", "sha256sum"]
        {
            let real = ["/usr/bin", "/bin"].map(|folder| Path::new(folder).join(name));
            let real = real.iter().find(|path| path.exists()).unwrap_or_else(|| panic!("no {name}"));
            std::os::unix::fs::symlink(real, archive.path("bin").join(name)).unwrap();
        }
        archive
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn program(&self, name: &str, script: &str) {
        let file = self.path("bin").join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, format!("#!/usr/bin/env bash\n{script}\n")).unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).unwrap();
    }

    /// Fetches what `pins` names. What was said, and what was unpacked.
    fn fetch(&self, pins: &str) -> (Output, Option<String>) {
        std::fs::write(self.path("pins"), pins).unwrap();
        let output = Command::new(root().join("tests/fetch_prometheus.sh"))
            .args([self.path("pins"), self.path("out")])
            .env("PATH", self.path("bin"))
            .output()
            .unwrap();
        let unpacked = std::fs::read_to_string(self.path("out/usr/bin/prometheus")).ok();
        (output, unpacked)
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

/// Of the text "package 1.0-1".
const DIGEST: &str = "bca5c8a4f2b21c8e7d156aacf1744d6642bbc407d20489a8d8ed75d5db6f7754";

#[test]
fn the_pinned_prometheus_is_taken_without_a_word_if_its_digest_is_right() {
    let archive = Archive::with("2.0-1", &["1.0-1", "2.0-1"]);
    let (output, unpacked) = archive.fetch(&format!("# comment\n1.0-1 arm64 0\n1.0-1 amd64 {DIGEST}\n"));
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(unpacked.as_deref(), Some("package 1.0-1"));
    assert!(!said(&output).contains("WARNING"), "{}", said(&output));
}

#[test]
fn a_prometheus_of_the_pinned_version_with_another_digest_is_refused() {
    let archive = Archive::with("1.0-1", &["1.0-1"]);
    let wrong = DIGEST.replace(&DIGEST[..4], "0000");
    let (output, unpacked) = archive.fetch(&format!("1.0-1 amd64 {wrong}\n"));
    assert!(!output.status.success(), "{}", said(&output));
    assert!(said(&output).contains(DIGEST) && said(&output).contains(&wrong), "{}", said(&output));
    assert_eq!(unpacked, None);
}

#[test]
fn an_archive_that_moved_on_gives_its_own_prometheus_with_a_loud_line() {
    let archive = Archive::with("2.0-1", &["2.0-1"]);
    let (output, unpacked) = archive.fetch(&format!("1.0-1 amd64 {DIGEST}\n"));
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(unpacked.as_deref(), Some("package 2.0-1"));
    let loud = said(&output);
    assert!(loud.contains("*** WARNING: ") && loud.contains("1.0-1") && loud.contains("2.0-1"), "{loud}");
}

#[test]
fn an_archive_without_any_prometheus_is_an_error() {
    let (output, unpacked) = Archive::with("2.0-1", &[]).fetch(&format!("1.0-1 amd64 {DIGEST}\n"));
    assert!(!output.status.success() && unpacked.is_none(), "{}", said(&output));
}

#[test]
fn an_installed_prometheus_is_taken_and_another_version_is_told() {
    for (version, warned) in [("1.0+ds, branch", false), ("1.01, branch", true)] {
        let archive = Archive::with("1.0-1", &[]);
        archive.program("prometheus", &format!("echo 'prometheus, version {version}'"));
        let (output, unpacked) = archive.fetch(&format!("1.0-1 amd64 {DIGEST}\n"));
        assert!(output.status.success() && unpacked.unwrap().contains(version), "{}", said(&output));
        assert_eq!(said(&output).contains("WARNING"), warned, "{}", said(&output));
    }
}

#[test]
fn the_pins_of_prometheus_are_one_version_with_a_digest_for_each_architecture() {
    let text = read("tests/prometheus.pin");
    let pins: Vec<Vec<&str>> =
        text.lines().filter(|line| !line.starts_with('#')).map(|line| line.split(' ').collect()).collect();
    let [amd, arm] = &pins[..] else { panic!("{pins:?}") };
    assert_eq!((amd[0], amd[1], arm[1]), (arm[0], "amd64", "arm64"));
    assert!(is_digest(amd[2]) && is_digest(arm[2]) && amd[2] != arm[2], "{pins:?}");
}

#[test]
fn every_image_that_the_build_begins_from_is_named_by_digest() {
    let text = read("Dockerfile");
    assert!(!text.contains("syntax="), "another frontend is one more image");
    let bases: Vec<&str> = text.lines().filter(|line| line.starts_with("FROM ")).collect();
    let [build, "FROM scratch"] = bases[..] else { panic!("{bases:?}") };
    assert!(build.contains("-bookworm@${RUST_DIGEST} "), "{build}");
    assert!(text.lines().any(|line| line == "ARG RUST_DIGEST"), "the digest has no default");
    for line in text.lines().filter_map(|line| line.split("COPY --from=").nth(1)) {
        assert!(line.starts_with("build "), "{line}: from an image without a digest");
    }
}

/// Runs `make image` with a program that prints its arguments in the place of Docker.
fn make_image(settings: &[&str]) -> Output {
    let make =
        Command::new("make").current_dir(root()).args(["image", "DOCKER=echo ran"]).args(settings).output();
    make.unwrap()
}

#[test]
fn the_image_is_built_with_a_digest_a_bill_of_materials_and_provenance() {
    for wrong in ["", "sha256:12", &format!("md5:{DIGEST}")] {
        let output = make_image(&[&format!("RUST_DIGEST={wrong}")]);
        assert!(!output.status.success(), "{wrong:?}: {}", said(&output));
        assert!(said(&output).contains("docs/releasing.md"), "{wrong:?}: {}", said(&output));
    }
    let output = make_image(&[&format!("RUST_DIGEST=sha256:{DIGEST}"), "IMAGE=hub/pointsman:1", "PUSH=1"]);
    let ran = said(&output);
    let ran =
        ran.lines().find(|line| line.starts_with("ran buildx build ")).unwrap_or_else(|| panic!("{ran}"));
    let digest = format!("RUST_DIGEST=sha256:{DIGEST}");
    for word in [&digest, "--sbom=true", "--provenance=mode=max", "--push", "--tag hub/pointsman:1"] {
        assert!(ran.contains(word), "{word}: {ran}");
    }
}

fn bill(folder: &Path, name: &str) -> String {
    let file = folder.join(name);
    let output = Command::new("python3")
        .arg(root().join("deploy/sbom.py"))
        .arg(&file)
        .env("SOURCE_DATE_EPOCH", "86400")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", said(&output));
    std::fs::read_to_string(file).unwrap()
}

#[test]
fn the_bill_of_materials_lists_what_the_program_is_built_from_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let text = bill(folder.path(), "one.json");
    assert_eq!(text, bill(folder.path(), "two.json"), "the same tree gives the same bill");
    let bill: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&bill["bomFormat"], &bill["specVersion"]), (&"CycloneDX".into(), &"1.6".into()));
    assert_eq!(bill["metadata"]["timestamp"], "1970-01-02T00:00:00Z");
    assert_eq!(bill["metadata"]["component"]["name"], "pointsman");

    let lock = read("Cargo.lock");
    let mut known = BTreeSet::from([bill["metadata"]["component"]["bom-ref"].as_str().unwrap()]);
    for component in bill["components"].as_array().unwrap() {
        let text = |name: &str| component[name].as_str().unwrap();
        let entry = format!("name = \"{}\"\nversion = \"{}\"\n", text("name"), text("version"));
        let locked = lock.split(&entry).nth(1).unwrap_or_else(|| panic!("{component} is not in Cargo.lock"));
        let locked = locked.split("[[package]]").next().unwrap();
        if text("name").starts_with("pointsman-") {
            assert!(!locked.contains("checksum"), "{component} comes from this tree");
        } else {
            let digest = component["hashes"][0]["content"].as_str().unwrap();
            assert!(is_digest(digest) && locked.contains(digest), "{component}");
        }
        let licence = component["licenses"][0]["expression"].as_str().unwrap();
        assert!(!licence.is_empty() && !licence.contains('/'), "{component}");
        assert!(known.insert(text("bom-ref")), "twice: {component}");
    }
    let has = |name: &str| known.iter().any(|known| known.starts_with(&format!("pkg:cargo/{name}@")));
    let manifest = read("Cargo.toml");
    let names = |section: &str| -> Vec<String> {
        let section =
            manifest.split(&format!("\n[{section}]\n")).nth(1).unwrap().split("\n[").next().unwrap();
        let lines = section.lines().filter(|line| line.contains(" = ") && !line.starts_with('#'));
        lines.map(|line| line.split([' ', '.']).next().unwrap().to_owned()).collect()
    };
    for name in names("dependencies") {
        assert!(has(&name), "{name} is missing");
    }
    for name in ["proptest", "criterion", "insta"] {
        assert!(names("dev-dependencies").iter().any(|dev| dev == name) && !has(name), "{name} is for tests");
    }
    // Every crate is needed by another one that is listed.
    let mut needed = BTreeSet::new();
    for edge in bill["dependencies"].as_array().unwrap() {
        assert!(known.contains(edge["ref"].as_str().unwrap()), "{edge}");
        needed.extend(edge["dependsOn"].as_array().unwrap().iter().map(|one| one.as_str().unwrap()));
    }
    assert_eq!(known.difference(&needed).count(), 1, "{:?}", known.difference(&needed));
    assert!(needed.is_subset(&known));
}

#[test]
fn a_second_version_of_a_crate_needs_a_reason_in_deny_toml() {
    let (lock, deny) = (read("Cargo.lock"), read("deny.toml"));
    let text = |line: &str, key: &str| {
        line.split_once(&format!("{key} = \"")).and_then(|(_, rest)| Some(rest.split_once('"')?.0.to_owned()))
    };
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let entries = lock.split("[[package]]").skip(1);
    for entry in entries {
        let field =
            |key: &str| entry.lines().find(|line| line.starts_with(key)).and_then(|line| text(line, key));
        versions.entry(field("name").unwrap()).or_default().insert(field("version").unwrap());
    }
    assert!(deny.contains("\nmultiple-versions = \"deny\"\n"));
    let skipped: BTreeSet<String> = deny
        .lines()
        .filter(|line| line.contains('@'))
        .map(|line| {
            assert!(text(line, "reason").is_some_and(|reason| reason.len() > 4), "{line}");
            text(line, "crate").unwrap()
        })
        .collect();
    for (name, versions) in &versions {
        let open = versions.iter().filter(|version| !skipped.contains(&format!("{name}@{version}"))).count();
        assert!(
            open <= 1,
            "{name} has the versions {versions:?}: unite them, or give one a reason in deny.toml"
        );
    }
    for skip in &skipped {
        let (name, version) = skip.split_once('@').unwrap();
        let found = versions.get(name).filter(|versions| versions.len() > 1 && versions.contains(version));
        assert!(found.is_some(), "deny.toml skips {skip}, and Cargo.lock does not need that any more");
    }
}
