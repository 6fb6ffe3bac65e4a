//! Reads query strings as Python's `parse_qs` does.

/// The values of the parameter `name`, in order. Empty values do not count.
pub(crate) fn values(query: &str, name: &str) -> Vec<String> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .filter(|(key, _)| decode(key) == name)
        .map(|(_, value)| decode(value))
        .filter(|value| !value.is_empty())
        .collect()
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        let hex = match after {
            [high, low, ..] if *first == b'%' => digit(*high).zip(digit(*low)),
            _ => None,
        };
        if let Some((high, low)) = hex {
            bytes.push(high * 16 + low);
            rest = after.get(2..).unwrap_or_default();
        } else {
            bytes.push(if *first == b'+' { b' ' } else { *first });
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn digit(character: u8) -> Option<u8> {
    char::from(character).to_digit(16).map(|digit| digit as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_may_be_escaped_and_empty_values_do_not_count() {
        let query = "name[]=a&name%5B%5D=vllm%3Ab&name[]=&name=c&other&name[]=d+e&name[]=%zz%4";
        assert_eq!(values(query, "name[]"), ["a", "vllm:b", "d e", "%zz%4"]);
        assert!(values("", "name[]").is_empty());
    }
}
