//! Flags that do not fit each other: ports that collide, and bounds that no request can reach.

use super::{ServeFlags, peer_flags};
use crate::extproc::BodyMode;

/// Room in a message beside the body.
pub(super) const MESSAGE_FRAME: usize = 64 << 10;

/// Ports that two services cannot share. Port 0 is another one each time.
pub(super) fn collisions(flags: &ServeFlags) -> Vec<String> {
    let ports = [
        ("--grpc-port", Some(flags.grpc_port)),
        ("--grpc-health-port", Some(flags.grpc_health_port)),
        ("--metrics-port", Some(flags.metrics_port)),
        ("--keda-scaler-port", flags.keda_scaler_port),
        ("--page-port", flags.page_port),
        ("--peer-port", peer_flags::is_wanted(flags).then_some(flags.peer_port)),
    ];
    let given: Vec<(&str, u16)> =
        ports.into_iter().filter_map(|(flag, port)| Some((flag, port.filter(|port| *port != 0)?))).collect();
    let mut problems = Vec::new();
    for (place, (flag, port)) in given.iter().enumerate() {
        for (other, same) in &given[place + 1..] {
            if same == port {
                problems.push(format!("{flag} and {other} are both {port}, expected a port for each"));
            }
        }
    }
    problems
}

/// Bounds on bodies of which one makes another unreachable.
pub(super) fn warnings(flags: &ServeFlags) -> Vec<String> {
    let mut warnings = Vec::new();
    let (body, all) = (flags.max_request_body, flags.max_buffered_bodies);
    let whole = if body == 0 { "no bound".to_owned() } else { format!("{body} bytes") };
    if all != 0 && (body == 0 || body > all) {
        warnings.push(format!(
            "--max-request-body ({whole}) is above --max-buffered-bodies ({all} bytes), which holds all bodies at once: a request with a \
             larger body than that is always refused with 503"
        ));
    }
    let in_one_message = matches!(flags.request_body_mode, BodyMode::Buffered | BodyMode::BufferedPartial);
    if let Some(receive) = flags.grpc_max_recv_msg_size.0 {
        let needed = (body != 0).then(|| body.saturating_add(MESSAGE_FRAME as u64));
        if needed.is_none_or(|needed| needed > receive as u64) {
            let who = if in_one_message { "the proxy sends" } else { "a proxy in a buffered mode sends" };
            warnings.push(format!(
                "--grpc-max-recv-msg-size ({receive} bytes) holds no body of --max-request-body ({whole}): {who} the body in one message, \
                 and one that does not fit fails; leave the flag out to have it fit"
            ));
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use clap::{Args, Command, FromArgMatches};

    use super::*;

    fn flags(line: &str) -> ServeFlags {
        let words = std::iter::once("pointsman").chain(line.split_whitespace());
        let matches = ServeFlags::augment_args(Command::new("pointsman")).get_matches_from(words);
        ServeFlags::from_arg_matches(&matches).unwrap()
    }

    #[test]
    fn ports_that_are_equal_are_refused_by_the_names_of_both_flags() {
        for (line, expected) in [
            (
                "--grpc-port 9003",
                "--grpc-port and --grpc-health-port are both 9003, expected a port for each",
            ),
            ("--metrics-port 9002", "--grpc-port and --metrics-port are both 9002, expected a port for each"),
            (
                "--keda-scaler-port 9090",
                "--metrics-port and --keda-scaler-port are both 9090, expected a port for each",
            ),
        ] {
            assert_eq!(collisions(&flags(line)), [expected], "{line}");
        }
        let all = "--grpc-port 1 --grpc-health-port 1 --metrics-port 1 --keda-scaler-port 1";
        assert_eq!(collisions(&flags(all)).len(), 6);
        let chosen = "--grpc-port 0 --grpc-health-port 0 --metrics-port 0 --keda-scaler-port 0";
        assert!(collisions(&flags(chosen)).is_empty() && collisions(&flags("")).is_empty());
    }

    #[test]
    fn bounds_that_no_request_can_reach_are_warned_of() {
        assert!(warnings(&flags("")).is_empty());
        let warned = |line: &str| warnings(&flags(line)).join("\n");
        assert!(
            warned("--max-request-body 2Gi --max-buffered-bodies 1Gi")
                .contains("--max-buffered-bodies (1073741824")
        );
        assert!(warned("--max-request-body 0").contains("--max-request-body (no bound)"));
        assert!(warned("--max-request-body 2Gi --max-buffered-bodies 0").is_empty());
        assert!(warned("--max-request-body 1Gi --max-buffered-bodies 1Gi").is_empty());
        assert!(warned("--grpc-max-recv-msg-size 4MiB").contains("a proxy in a buffered mode"));
        let buffered = "--grpc-max-recv-msg-size 4MiB --request-body-mode buffered";
        assert!(warned(buffered).contains("--grpc-max-recv-msg-size (4194304 bytes)"));
        assert!(warned("--grpc-max-recv-msg-size 4MiB --max-request-body 4MiB").contains("one message"));
        assert!(warned("--grpc-max-recv-msg-size 5MiB --max-request-body 4MiB").is_empty());
    }
}
