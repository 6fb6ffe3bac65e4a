//! What the status of an objective or a rewrite should say. Pure.
//!
//! `Accepted`: the object can be used as it is written. `Ready`: it is in force now.

use super::resources::{Condition, ObjectiveFacts, RewriteFacts, Written};
use crate::pool::{MAX_TARGET_NAME, ModelRewrite, Rewrites};

/// One condition, without its history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    holds: bool,
    reason: &'static str,
    message: String,
}

/// Both conditions of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Findings {
    /// The finding whether the object can be used.
    pub(super) accepted: Finding,
    /// The finding whether the object is in force.
    pub(super) ready: Finding,
}

fn holds(reason: &'static str, message: String) -> Finding {
    Finding { holds: true, reason, message }
}

fn fails(reason: &'static str, message: String) -> Finding {
    Finding { holds: false, reason, message }
}

fn ready(pool: &str, has_pool: bool, message: String) -> Finding {
    if has_pool {
        holds("Ready", message)
    } else {
        fails("PoolNotFound", format!("InferencePool {pool} does not exist"))
    }
}

/// The findings about an objective.
pub(super) fn objective(facts: &ObjectiveFacts, pool: &str, has_pool: bool) -> Findings {
    let message =
        format!("requests to pool {pool} that name this objective have priority {}", facts.priority);
    let accepted = accepted(facts.written.fault.as_slice());
    Findings { accepted, ready: unread(&facts.written).unwrap_or_else(|| ready(pool, has_pool, message)) }
}

/// The finding about an object that cannot be read: it is not in force.
fn unread(written: &Written) -> Option<Finding> {
    written.fault.as_ref().map(|fault| fails("Invalid", fault.clone()))
}

fn accepted(faults: &[String]) -> Finding {
    if faults.is_empty() {
        holds("Accepted", "valid".to_owned())
    } else {
        fails("Invalid", faults.join("; "))
    }
}

/// The findings about a rewrite, beside all the others that are in force.
pub(super) fn rewrite(facts: &RewriteFacts, all: &Rewrites, pool: &str, has_pool: bool) -> Findings {
    let mut faults = faults(&facts.rewrite);
    faults.extend(facts.written.fault.clone());
    let accepted = accepted(&faults);
    let rewrite = &facts.rewrite;
    let (mut mine, mut others) = (0, Vec::new());
    for rule in &rewrite.rules {
        // An empty list of models stands for all that no other rule names; no model has an empty name.
        let models: Vec<&str> = if rule.models.is_empty() {
            vec![""]
        } else {
            rule.models.iter().map(String::as_str).filter(|model| !model.is_empty()).collect()
        };
        for model in models {
            match all.find(model) {
                Some((owner, _)) if owner != rewrite.name => {
                    let model = if model.is_empty() { "all other models" } else { model };
                    others.push(format!("{model} by {owner}"));
                }
                _ => mine += 1,
            }
        }
    }
    let ready = if others.is_empty() {
        ready(pool, has_pool, format!("{} rules are in force in pool {pool}", rewrite.rules.len()))
    } else if mine == 0 {
        fails("Shadowed", format!("older rewrites have all its models: {}", others.join(", ")))
    } else {
        ready(pool, has_pool, format!("in force, but older rewrites have: {}", others.join(", ")))
    };
    Findings { accepted, ready: unread(&facts.written).unwrap_or(ready) }
}

/// The findings about an object of the former group while the current group has an object of the same name.
pub(super) fn twin() -> Findings {
    let message = "the object of this name in group llm-d.ai counts instead".to_owned();
    Findings { accepted: holds("Accepted", "valid".to_owned()), ready: fails("Shadowed", message) }
}

fn faults(rewrite: &ModelRewrite) -> Vec<String> {
    let mut faults = Vec::new();
    for (index, rule) in rewrite.rules.iter().enumerate() {
        if rule.models.iter().any(String::is_empty) {
            faults.push(format!("spec.rules[{index}].matches: one without model.value matches nothing"));
        }
        if let Some(long) = rule.targets.iter().find(|target| target.model.len() > MAX_TARGET_NAME) {
            faults.push(format!(
                "spec.rules[{index}].targets: a modelRewrite of {} bytes is never chosen, expected at most {MAX_TARGET_NAME}",
                long.model.len()
            ));
        }
        let weighted = rule.targets.iter().filter(|target| target.weight.is_some()).count();
        if rule.targets.is_empty() {
            faults.push(format!("spec.rules[{index}].targets is empty: it rewrites to nothing"));
        } else if weighted != 0 && weighted != rule.targets.len() {
            faults.push(format!("spec.rules[{index}].targets: those without a weight are never chosen"));
        }
    }
    faults
}

/// The conditions to write at time `now` (RFC 3339), if the object does not say so already.
pub(super) fn to_write(findings: &Findings, written: &Written, now: &str) -> Option<Vec<Condition>> {
    let mut changed = false;
    let conditions = [("Accepted", &findings.accepted), ("Ready", &findings.ready)].map(|(kind, finding)| {
        let before = written.conditions.iter().find(|condition| condition.kind == kind);
        let status = if finding.holds { "True" } else { "False" };
        let since = before.filter(|before| before.status == status);
        let condition = Condition {
            kind: kind.to_owned(),
            status: status.to_owned(),
            reason: finding.reason.to_owned(),
            message: cut(&finding.message),
            last_transition_time: since
                .map_or_else(|| now.to_owned(), |before| before.last_transition_time.clone()),
            observed_generation: written.generation,
        };
        changed |= before != Some(&condition);
        condition
    });
    changed.then(|| conditions.into())
}

/// Longest message; the API takes 32 KiB, people less.
const LONGEST_MESSAGE: usize = 1000;

fn cut(message: &str) -> String {
    match message.char_indices().nth(LONGEST_MESSAGE) {
        None => message.to_owned(),
        Some((end, _)) => format!("{}…", message.get(..end).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::{RewriteRule, RewriteTarget};

    const PENDING: &str = "1970-01-01T00:00:00Z";
    const NOW: &str = "2026-01-01T00:00:00Z";

    fn pending(kind: &str) -> Condition {
        Condition {
            kind: kind.into(),
            status: "Unknown".into(),
            reason: "Pending".into(),
            message: "Waiting for controller".into(),
            last_transition_time: PENDING.into(),
            observed_generation: None,
        }
    }

    fn of(name: &str, created: i64, models: &[&str], targets: &[Option<u32>]) -> RewriteFacts {
        let targets =
            targets.iter().map(|weight| RewriteTarget { model: "t".into(), weight: *weight }).collect();
        let rule = RewriteRule { models: models.iter().map(|model| (*model).into()).collect(), targets };
        let rewrite = ModelRewrite { name: name.into(), created, rules: vec![rule] };
        RewriteFacts { rewrite, written: Written::default() }
    }

    fn said(facts: &RewriteFacts, all: &[&RewriteFacts]) -> [(bool, &'static str); 2] {
        let rewrites = Rewrites::new(all.iter().map(|facts| facts.rewrite.clone()).collect());
        let findings = rewrite(facts, &rewrites, "p", true);
        [&findings.accepted, &findings.ready].map(|finding| (finding.holds, finding.reason))
    }

    #[test]
    fn an_object_that_waits_for_a_controller_is_answered_once() {
        let written = Written { generation: Some(2), conditions: vec![pending("Ready")], fault: None };
        let facts = ObjectiveFacts { name: "o".into(), priority: 5, written };
        let findings = objective(&facts, "p", true);
        let conditions = to_write(&findings, &facts.written, NOW).unwrap();
        let shape = |condition: &Condition| {
            (condition.kind.clone(), condition.status.clone(), condition.observed_generation)
        };
        let expected =
            [("Accepted".into(), "True".into(), Some(2)), ("Ready".into(), "True".into(), Some(2))];
        assert_eq!(conditions.iter().map(shape).collect::<Vec<_>>(), expected);
        assert!(conditions[1].message.contains("priority 5"), "{conditions:?}");
        let written = Written { generation: Some(2), conditions, fault: None };
        assert_eq!(to_write(&findings, &written, "later"), None);
    }

    #[test]
    fn the_time_of_a_condition_is_that_of_its_last_change_of_status() {
        let facts = ObjectiveFacts { name: "o".into(), priority: 5, written: Written::default() };
        let first = to_write(&objective(&facts, "p", true), &facts.written, NOW).unwrap();
        let written = Written { generation: None, conditions: first, fault: None };
        let gone = to_write(&objective(&facts, "p", false), &written, "later").unwrap();
        assert_eq!(
            (gone[0].last_transition_time.as_str(), gone[1].last_transition_time.as_str()),
            (NOW, "later")
        );
        assert_eq!((gone[1].status.as_str(), gone[1].reason.as_str()), ("False", "PoolNotFound"));
    }

    #[test]
    fn a_long_message_is_cut() {
        let (long, short) = ("ä".repeat(5000), "short");
        assert_eq!((cut(&long).chars().count(), cut(short)), (LONGEST_MESSAGE + 1, short.to_owned()));
    }

    #[test]
    fn conditions_of_others_do_not_matter() {
        let facts = ObjectiveFacts { name: "o".into(), priority: 5, written: Written::default() };
        let findings = objective(&facts, "p", true);
        let mut conditions = to_write(&findings, &facts.written, NOW).unwrap();
        conditions.push(pending("TheirOwn"));
        assert_eq!(
            to_write(&findings, &Written { generation: None, conditions, fault: None }, "later"),
            None
        );
    }

    #[test]
    fn a_rewrite_says_what_is_wrong_with_its_rules() {
        let (sound, empty, mixed) =
            (of("a", 0, &["m"], &[Some(1)]), of("b", 0, &["n"], &[]), of("c", 0, &["o"], &[Some(1), None]));
        let accepted = |facts| said(facts, &[facts])[0];
        assert_eq!(accepted(&sound), (true, "Accepted"));
        assert_eq!(accepted(&empty), (false, "Invalid"));
        assert_eq!(accepted(&mixed), (false, "Invalid"));
        let nameless = of("d", 0, &["m", ""], &[None]);
        assert_eq!(accepted(&nameless), (false, "Invalid"));
        let mut unreadable = sound.clone();
        unreadable.written.fault = Some("spec: no".to_owned());
        assert_eq!(said(&unreadable, &[&unreadable]), [(false, "Invalid"); 2]);
    }

    #[test]
    fn a_rewrite_says_when_older_ones_have_its_models() {
        let (old, new, both) = (
            of("old", 1, &["m"], &[None]),
            of("new", 2, &["m"], &[None]),
            of("both", 3, &["m", "n"], &[None]),
        );
        let all = [&old, &new, &both];
        let ready = |facts| said(facts, &all)[1];
        assert_eq!(
            (ready(&old), ready(&new), ready(&both)),
            ((true, "Ready"), (false, "Shadowed"), (true, "Ready"))
        );
        let generic = (of("g1", 1, &[], &[None]), of("g2", 2, &[], &[None]));
        assert_eq!(said(&generic.1, &[&generic.0, &generic.1])[1], (false, "Shadowed"));
    }
}
