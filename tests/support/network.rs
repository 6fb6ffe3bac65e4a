//! A network of this test's own, with a second host that can be cut off: packets to it vanish without a word, as when
//! its node dies.
//!
//! The test starts itself once more inside of new namespaces (user, network, mount), which needs no root. There the
//! second host is one more network namespace at the other end of a virtual cable.

use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;

/// Set inside of the namespaces.
const INSIDE: &str = "POINTSMAN_TEST_INSIDE_NETWORK";
/// Prefix of a command that runs on the second host.
pub(crate) const ON_THE_NODE: [&str; 2] = ["nsenter", "--net=/run/netns/node"];
/// The first host's address on the cable.
pub(crate) const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1));
/// The second host's address.
pub(crate) const NODE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 2));

/// The cable between the two hosts.
pub(crate) struct Network {
    /// Name of its far end.
    far: &'static str,
}

impl Network {
    /// Inside: lays the cable. Outside: runs the test called `name` inside, fails if it fails there, and gives nothing.
    pub(crate) fn of_test(name: &str) -> Option<Self> {
        if std::env::var_os(INSIDE).is_some() {
            lay();
            return Some(Self { far: "far" });
        }
        let out = Command::new("unshare")
            .args(["--user", "--map-root-user", "--net", "--mount", "--"])
            .arg(std::env::current_exe().expect("the test's own program"))
            .args(["--exact", name, "--nocapture"])
            .env(INSIDE, "1")
            .output()
            .expect("unshare, of the package util-linux, can be started");
        let (said, failed) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        assert!(
            out.status.success() && said.contains("1 passed"),
            "inside of its own network:\n{said}{failed}"
        );
        eprint!("{failed}");
        None
    }

    /// From now on packets in both directions vanish.
    pub(crate) fn cut(&self) {
        ip(&format!("-n node link set {} down", self.far));
    }
}

fn lay() {
    let mounted = Command::new("mount").args(["-t", "tmpfs", "tmpfs", "/run"]).status();
    assert!(mounted.is_ok_and(|status| status.success()), "cannot mount a folder for namespaces");
    for command in [
        "link set lo up",
        "netns add node",
        "link add near type veth peer name far netns node",
        "addr add 10.77.0.1/24 dev near",
        "link set near up",
        "-n node addr add 10.77.0.2/24 dev far",
        "-n node link set far up",
        "-n node link set lo up",
    ] {
        ip(command);
    }
}

fn ip(command: &str) {
    let status = Command::new("ip").args(command.split(' ')).status();
    let status =
        status.unwrap_or_else(|error| panic!("cannot start ip ({error}): install the package iproute2"));
    assert!(status.success(), "ip {command}");
}
