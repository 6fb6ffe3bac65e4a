//! The list of all rules.

use super::{Rule, cluster, configuration, engines, envoy, monitoring, picker, pods, replicas};

/// All rules, grouped by file.
pub const RULES: &[&[&Rule]] = &[
    picker::RULES,
    configuration::RULES,
    engines::RULES,
    replicas::RULES,
    cluster::RULES,
    pods::RULES,
    envoy::RULES,
    monitoring::RULES,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_has_a_name_of_its_own_and_says_in_sentences_what_it_finds_and_why_that_matters() {
        let mut names = Vec::new();
        for rule in RULES.iter().copied().flatten() {
            assert!(!names.contains(&rule.name), "{} is there twice", rule.name);
            assert!(rule.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "{}", rule.name);
            assert!(rule.finds.ends_with('.') && rule.why.ends_with('.'), "{}", rule.name);
            names.push(rule.name);
        }
        assert!(names.len() > 30, "{}", names.len());
    }
}
