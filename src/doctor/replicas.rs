//! Compares several replicas of one pool's picker.

use super::{Family, Finding, Rule};

const FAMILY: Family = Family::Replicas;

/// The smallest difference between clocks, in seconds, that is reported.
const SKEW: f64 = 5.0;

/// The facts of one replica.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReplicaFacts {
    /// The address at which doctor asked the replica.
    pub url: String,
    /// The digest of the replica's effective configuration.
    pub digest: Option<String>,
    /// The pool, as `namespace/name`.
    pub pool: String,
    /// How far the replica's clock is ahead of this machine's, in seconds. `None` if the replica does not tell its
    /// time.
    pub ahead: Option<f64>,
}

const DIGESTS: Rule = Rule::error(
    "configurations-differ",
    FAMILY,
    "Replicas of one pool run different configurations.",
    "The decision for a request depends on the replica that gets it.",
);
const CLOCKS: Rule = Rule::warning(
    "clock-skew",
    FAMILY,
    "The clock of a replica differs from another's, or from this machine's, by more than 5 s.",
    "Leases of the election run out early or late, and logs and records cannot be put in order.",
);

/// The rules of this file.
pub const RULES: &[&Rule] = &[&DIGESTS, &CLOCKS];

/// Returns what is wrong between replicas.
pub fn findings(replicas: &[ReplicaFacts]) -> Vec<Finding> {
    let mut found = Vec::new();
    for (place, one) in replicas.iter().enumerate() {
        let other = replicas[..place]
            .iter()
            .find(|other| other.pool == one.pool && other.digest.is_some() && one.digest.is_some());
        if let Some(other) = other.filter(|other| other.digest != one.digest) {
            let text = |replica: &ReplicaFacts| replica.digest.clone().unwrap_or_default();
            found.push(DIGESTS.found(
                format!("{}, {}", other.url, one.url),
                format!("their configurations have the digests {} and {}", text(other), text(one)),
                "the same `--config-file` for all replicas, and `curl -X POST …/-/reload` where the older one runs",
            ));
        }
    }
    found.extend(replicas.iter().filter_map(|replica| {
        let ahead = replica.ahead.filter(|ahead| ahead.abs() > SKEW)?;
        let way = if ahead > 0.0 { "ahead of" } else { "behind" };
        Some(CLOCKS.found(
            replica.url.clone(),
            format!("its clock is {:.0} s {way} this machine's", ahead.abs()),
            "`systemctl enable --now chronyd` (or systemd-timesyncd) on the node of that replica, or on this machine",
        ))
    }));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_of_one_pool_are_compared_and_clocks_with_this_machines() {
        let replica = |url: &str, digest: &str, ahead: f64| ReplicaFacts {
            url: url.into(),
            digest: Some(digest.into()),
            pool: "n/p".into(),
            ahead: Some(ahead),
        };
        let names = |replicas: &[ReplicaFacts]| -> Vec<&'static str> {
            findings(replicas).iter().map(|finding| finding.rule.name).collect()
        };
        assert_eq!(names(&[replica("a", "1", 0.5), replica("b", "1", -4.0)]), [""; 0]);
        assert_eq!(names(&[replica("a", "1", 0.0), replica("b", "2", 0.0)]), ["configurations-differ"]);
        let other_pool = ReplicaFacts { pool: "n/q".into(), ..replica("b", "2", 0.0) };
        assert_eq!(names(&[replica("a", "1", 0.0), other_pool]), [""; 0]);
        assert_eq!(names(&[replica("a", "1", 61.0)]), ["clock-skew"]);
    }
}
