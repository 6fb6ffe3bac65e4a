//! What differs between two configurations, line by line.

/// Lines in the middle of two texts up to which the least difference is looked for.
const COMPARED: usize = 1000;
/// Most lines of a difference.
const MOST: usize = 500;

/// The lines that are in one of the texts alone: `- ` before those that went, `+ ` before those that came.
pub fn line_changes(old: &str, new: &str) -> Vec<String> {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let same = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let (old, new) = (&old[same..], &new[same..]);
    let tail = old.iter().rev().zip(new.iter().rev()).take_while(|(a, b)| a == b).count();
    let (old, new) = (&old[..old.len() - tail], &new[..new.len() - tail]);
    let mut changes = if old.len() > COMPARED || new.len() > COMPARED {
        let gone = old.iter().map(|line| format!("- {line}"));
        gone.chain(new.iter().map(|line| format!("+ {line}"))).collect()
    } else {
        least(old, new)
    };
    if changes.len() > MOST {
        let more = changes.len() - MOST;
        changes.truncate(MOST);
        changes.push(format!("… and {more} more lines"));
    }
    changes
}

/// The least difference, by the longest common subsequence.
fn least(old: &[&str], new: &[&str]) -> Vec<String> {
    let width = new.len() + 1;
    // Length of the longest common subsequence of what is left of both.
    let mut common = vec![0u16; (old.len() + 1) * width];
    for (i, a) in old.iter().enumerate().rev() {
        for (j, b) in new.iter().enumerate().rev() {
            common[i * width + j] = if a == b {
                common[(i + 1) * width + j + 1] + 1
            } else {
                common[(i + 1) * width + j].max(common[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j, mut changes) = (0, 0, Vec::new());
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            (i, j) = (i + 1, j + 1);
        } else if j == new.len()
            || (i < old.len() && common[(i + 1) * width + j] >= common[i * width + j + 1])
        {
            changes.push(format!("- {}", old[i]));
            i += 1;
        } else {
            changes.push(format!("+ {}", new[j]));
            j += 1;
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_came_and_what_went_is_told_and_nothing_else() {
        assert_eq!(line_changes("a\nb\nc\nd", "a\nx\nc\nd\ne"), ["- b", "+ x", "+ e"]);
        assert!(line_changes("a\nb", "a\nb").is_empty());
        assert_eq!(line_changes("", "a"), ["+ a"]);
        assert_eq!(line_changes("a\nb\na", "a"), ["- b", "- a"]);
    }

    proptest! {
        #[test]
        fn the_changes_make_one_text_of_the_other(old in "[ab\n]{0,40}", new in "[ab\n]{0,40}") {
            let changes = line_changes(&old, &new);
            let count = |sign: &str| changes.iter().filter(|line| line.starts_with(sign)).count();
            let kept = old.lines().count() - count("- ");
            prop_assert_eq!(kept, new.lines().count() - count("+ "));
        }
    }
}
