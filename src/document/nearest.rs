//! "Did you mean": the valid name that is closest to a misspelt one.

/// A name longer than any real one can only be a mistake of another kind, and comparing costs time by its square.
const LONGEST_NAME: usize = 128;

/// Names that a hint lists in full; of more it names the nearest [`NEAREST`] and the number of the others.
const FEW: usize = 8;

/// Names of a hint that stand first, by likeness.
const NEAREST: usize = 3;

/// How alike two names are, from 0 to 1. Letter case counts for nothing.
fn likeness(lower: &str, candidate: &str) -> f64 {
    let other = candidate.to_ascii_lowercase();
    let likeness = strsim::normalized_damerau_levenshtein(lower, &other);
    if lower.len() >= 4 && (other.starts_with(lower) || lower.starts_with(&other)) {
        return likeness.max(0.7);
    }
    likeness
}

/// The candidate most like `name`, if one is like it at all. Letter case counts for nothing.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if name.len() > LONGEST_NAME {
        return None;
    }
    let lower = name.to_ascii_lowercase();
    let mut best: Option<(f64, &str)> = None;
    for candidate in candidates {
        let likeness = likeness(&lower, candidate);
        if likeness >= 0.6 && best.is_none_or(|(known, _)| likeness > known) {
            best = Some((likeness, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// The tail of an error text: the nearest name, or the valid ones with the nearest three first if none is near enough
/// to be meant.
pub fn hint(name: &str, candidates: &[&str]) -> String {
    if let Some(near) = nearest(name, candidates.iter().copied()) {
        return format!("; did you mean `{near}`?");
    }
    let mut names: Vec<&str> = Vec::with_capacity(candidates.len());
    for candidate in candidates {
        if !names.contains(candidate) {
            names.push(candidate);
        }
    }
    if name.len() <= LONGEST_NAME {
        let lower = name.to_ascii_lowercase();
        let mut by_likeness = names.clone();
        by_likeness.sort_by(|a, b| likeness(&lower, b).total_cmp(&likeness(&lower, a)));
        by_likeness.truncate(NEAREST);
        names.retain(|name| !by_likeness.contains(name));
        names.splice(0..0, by_likeness);
    }
    match names.as_slice() {
        [] => String::new(),
        few if few.len() <= FEW => format!("; valid are {}", listed(few)),
        [first, second, third, others @ ..] => {
            format!("; valid are {} and {} others", listed(&[*first, *second, *third]), others.len())
        }
        few => format!("; valid are {}", listed(few)),
    }
}

fn listed(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_name_and_a_stranger_finds_none() {
        let names = ["pluginRef", "weight", "schedulingProfiles"];
        assert_eq!(nearest("pluginref", names), Some("pluginRef"));
        assert_eq!(nearest("plugnRef", names), Some("pluginRef"));
        assert_eq!(nearest("schedulingProfile", names), Some("schedulingProfiles"));
        assert_eq!(nearest("colour", names), None);
    }

    #[test]
    fn the_old_data_key_points_to_the_data_layer() {
        assert_eq!(nearest("data", ["plugins", "dataLayer", "flowControl"]), Some("dataLayer"));
    }

    #[test]
    fn few_names_are_listed_when_none_is_near() {
        assert_eq!(hint("x", &["a1", "b2"]), "; valid are `a1`, `b2`");
        assert_eq!(hint("x", &[]), "");
    }

    #[test]
    fn no_name_is_listed_twice_and_the_nearest_three_stand_first() {
        assert_eq!(hint("x", &["a1", "a1"]), "; valid are `a1`");
        let names = ["zebra", "timeout", "maxWait", "colour", "waiting", "retries", "port", "path", "scheme"];
        assert_eq!(hint("wait", &names[..5]), "; did you mean `waiting`?");
        let hint = hint("retry", &names);
        assert!(hint.starts_with("; valid are `retries`, ") && hint.ends_with(" and 6 others"), "{hint}");
    }
}
