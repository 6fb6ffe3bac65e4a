//! InferenceModelRewrites: rules that replace the model of a request.

use std::collections::HashMap;

/// One InferenceModelRewrite resource.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelRewrite {
    /// Resource name, used as metric label.
    pub name: String,
    /// Creation time in seconds since the Unix epoch; the oldest resource wins.
    pub created: i64,
    /// Rules in document order.
    pub rules: Vec<RewriteRule>,
}

/// Longest name of a target model in bytes. Bodies grow by this name, so it needs a bound.
pub const MAX_TARGET_NAME: usize = 1024;

/// A rule: the models that it matches, and the target models of their requests.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RewriteRule {
    /// Exact model names. An empty list matches every model; an empty name matches none.
    pub models: Vec<String>,
    /// Weighted targets.
    pub targets: Vec<RewriteTarget>,
}

/// A target model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RewriteTarget {
    /// Name that the model server knows. A name of more than [`MAX_TARGET_NAME`] bytes is never drawn.
    pub model: String,
    /// Relative share of the requests. A target without a weight is never drawn if another target has one.
    pub weight: Option<u32>,
}

impl RewriteRule {
    /// The target for a draw `u` in 0..1. The weights decide; if no target has a weight, all are equally likely. `None`
    /// without targets.
    pub fn draw(&self, u: f64) -> Option<&str> {
        let total: u64 = self.targets.iter().map(|target| u64::from(target.weight.unwrap_or(0))).sum();
        if total == 0 {
            let index = (u * self.targets.len() as f64) as usize;
            return self.targets.get(index).or(self.targets.last()).map(|target| target.model.as_str());
        }
        let mut left = (u * total as f64) as u64;
        for target in &self.targets {
            let weight = u64::from(target.weight.unwrap_or(0));
            if left < weight {
                return Some(&target.model);
            }
            left -= weight;
        }
        self.targets.iter().rev().find(|target| target.weight.is_some()).map(|target| target.model.as_str())
    }
}

/// All rules of the pool, ready for lookup.
#[derive(Clone, Debug, Default)]
pub struct Rewrites {
    rules: Vec<(String, RewriteRule)>,
    exact: HashMap<String, usize>,
    generic: Option<usize>,
}

impl Rewrites {
    /// Orders resources by age (ties by name) and indexes their rules.
    pub fn new(mut resources: Vec<ModelRewrite>) -> Self {
        resources.sort_by(|a, b| a.created.cmp(&b.created).then_with(|| a.name.cmp(&b.name)));
        let mut rewrites = Self::default();
        for resource in resources {
            for mut rule in resource.rules {
                rule.targets.retain(|target| target.model.len() <= MAX_TARGET_NAME);
                let index = rewrites.rules.len();
                for model in rule.models.iter().filter(|model| !model.is_empty()) {
                    rewrites.exact.entry(model.clone()).or_insert(index);
                }
                if rule.models.is_empty() && rewrites.generic.is_none() {
                    rewrites.generic = Some(index);
                }
                rewrites.rules.push((resource.name.clone(), rule));
            }
        }
        rewrites
    }

    /// True if there are no rules.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// True if some rule matches every model.
    pub fn matches_all(&self) -> bool {
        self.generic.is_some()
    }

    /// Resource name and rule for `model`: an exact match, or else the oldest rule that matches every model.
    pub fn find(&self, model: &str) -> Option<(&str, &RewriteRule)> {
        let index = self.exact.get(model).copied().or(self.generic)?;
        self.rules.get(index).map(|(name, rule)| (name.as_str(), rule))
    }

    /// Every rule with the name of its resource, the oldest resource first.
    pub fn listed(&self) -> impl Iterator<Item = (&str, &RewriteRule)> {
        self.rules.iter().map(|(name, rule)| (name.as_str(), rule))
    }

    /// Every model name in the rules. Limits of labels must not fold these names.
    pub fn models(&self) -> impl Iterator<Item = &str> {
        self.rules.iter().flat_map(|(_, rule)| {
            rule.models
                .iter()
                .map(String::as_str)
                .chain(rule.targets.iter().map(|target| target.model.as_str()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(model: &str, weight: Option<u32>) -> RewriteTarget {
        RewriteTarget { model: model.into(), weight }
    }

    fn rule(models: &[&str], targets: Vec<RewriteTarget>) -> RewriteRule {
        RewriteRule { models: models.iter().map(|&model| model.into()).collect(), targets }
    }

    #[test]
    fn weights_share_the_draw_in_order() {
        let rule = rule(&[], vec![target("a", Some(1)), target("b", Some(3)), target("c", None)]);
        let drawn: Vec<_> = [0.0, 0.24, 0.25, 0.99].iter().map(|&u| rule.draw(u)).collect();
        assert_eq!(drawn, [Some("a"), Some("a"), Some("b"), Some("b")]);
    }

    #[test]
    fn targets_without_weights_are_drawn_uniformly() {
        let rule = rule(&[], vec![target("a", None), target("b", None)]);
        assert_eq!((rule.draw(0.49), rule.draw(0.5), rule.draw(0.999)), (Some("a"), Some("b"), Some("b")));
        assert_eq!(RewriteRule::default().draw(0.5), None);
    }

    #[test]
    fn a_match_without_a_name_matches_no_request() {
        let resource = |name: &str, rule| ModelRewrite { name: name.into(), created: 0, rules: vec![rule] };
        let nameless = resource("nameless", rule(&[""], vec![target("x", None)]));
        let rewrites = Rewrites::new(vec![nameless.clone()]);
        assert_eq!((rewrites.find(""), rewrites.find("m")), (None, None));
        let beside = resource("some", rule(&["", "m"], vec![target("y", None)]));
        let rewrites = Rewrites::new(vec![nameless, beside]);
        assert_eq!(rewrites.find(""), None);
        assert_eq!(rewrites.find("m").map(|(name, _)| name), Some("some"));
    }

    #[test]
    fn a_target_whose_name_is_too_long_is_never_drawn() {
        let long = "x".repeat(MAX_TARGET_NAME + 1);
        let rule = rule(&["m"], vec![target(&long, Some(1)), target("short", Some(1))]);
        let rewrites = Rewrites::new(vec![ModelRewrite { rules: vec![rule], ..ModelRewrite::default() }]);
        let (_, rule) = rewrites.find("m").unwrap();
        assert_eq!((rule.draw(0.0), rule.draw(0.9)), (Some("short"), Some("short")));
    }

    #[test]
    fn an_exact_rule_beats_a_generic_one_and_the_oldest_resource_wins() {
        let resource = |name: &str, created, rules| ModelRewrite { name: name.into(), created, rules };
        let rewrites = Rewrites::new(vec![
            resource("new", 2, vec![rule(&["m"], vec![target("new", None)])]),
            resource("generic", 0, vec![rule(&[], vec![target("any", None)])]),
            resource("old", 1, vec![rule(&["m"], vec![target("old", None)])]),
        ]);
        assert_eq!(rewrites.find("m").map(|(name, _)| name), Some("old"));
        assert_eq!(rewrites.find("other").map(|(name, _)| name), Some("generic"));
    }
}
