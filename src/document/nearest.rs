//! "Did you mean": the valid name that is closest to a misspelt one.

/// The candidate most like `name`, if one is like it at all. Letter case counts for nothing.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A name longer than any real one can only be a mistake of another kind, and comparing costs time by its square.
    if name.len() > 128 {
        return None;
    }
    let lower = name.to_ascii_lowercase();
    let mut best: Option<(f64, &str)> = None;
    for candidate in candidates {
        let other = candidate.to_ascii_lowercase();
        let mut likeness = strsim::normalized_damerau_levenshtein(&lower, &other);
        if lower.len() >= 4 && (other.starts_with(&lower) || lower.starts_with(&other)) {
            likeness = likeness.max(0.7);
        }
        if likeness >= 0.6 && best.is_none_or(|(known, _)| likeness > known) {
            best = Some((likeness, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// The tail of an error text: the nearest name, or all names if they are few and none is near.
pub fn hint(name: &str, candidates: &[&str]) -> String {
    if let Some(near) = nearest(name, candidates.iter().copied()) {
        return format!("; did you mean `{near}`?");
    }
    match candidates {
        [] => String::new(),
        few if few.len() <= 8 => format!("; valid are {}", listed(few)),
        _ => String::new(),
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
}
