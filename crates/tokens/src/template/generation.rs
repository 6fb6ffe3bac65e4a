//! Handles `{% generation %}`, which marks the text of a model for training. In a prompt the block has no effect.

use std::borrow::Cow;

/// The template in which such blocks are replaced by blocks that only open a scope.
pub(super) fn without_generation_blocks(source: &str) -> Cow<'_, str> {
    if !source.contains("generation") {
        return Cow::Borrowed(source);
    }
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(open) = rest.find(['{']) {
        let (before, tag) = rest.split_at(open);
        out.push_str(before);
        let end = match tag.as_bytes().get(1) {
            Some(b'#') => tag.find("#}").map(|end| end + 2),
            Some(b'{') => tag_end(tag, "}}"),
            Some(b'%') => tag_end(tag, "%}"),
            _ => Some(1),
        };
        let Some(end) = end else {
            rest = tag;
            break;
        };
        let (tag, after) = tag.split_at(end);
        rest = after;
        let word = word_of(tag);
        match word {
            Some("generation") => out.push_str(&tag.replacen("generation", "with", 1)),
            Some("endgeneration") => out.push_str(&tag.replacen("endgeneration", "endwith", 1)),
            Some("raw") => {
                let raw = raw_length(rest);
                let (raw, after) = rest.split_at(raw);
                out.push_str(tag);
                out.push_str(raw);
                rest = after;
            }
            _ => out.push_str(tag),
        }
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// The only word of a block tag.
fn word_of(tag: &str) -> Option<&str> {
    let inside = tag.strip_prefix("{%")?.strip_suffix("%}")?;
    let inside = inside.strip_prefix(['-', '+']).unwrap_or(inside);
    Some(inside.strip_suffix(['-', '+']).unwrap_or(inside).trim())
}

/// The end of a tag that closes with `close` outside of quoted texts.
fn tag_end(tag: &str, close: &str) -> Option<usize> {
    let (mut quote, mut escaped) = (None, false);
    for (at, char) in tag.char_indices().skip(2) {
        match (quote, char) {
            (Some(_), _) if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(open), char) if open == char => quote = None,
            (None, '"' | '\'') => quote = Some(char),
            (None, _) if tag.get(at..)?.starts_with(close) => return Some(at + close.len()),
            (Some(_) | None, _) => {}
        }
    }
    None
}

/// The length of the text before the end of a raw block.
fn raw_length(text: &str) -> usize {
    let mut from = 0;
    while let Some(at) = text.get(from..).and_then(|text| text.find("{%")) {
        let tag = text.get(from + at..).unwrap_or_default();
        let end = tag.find("%}").map_or(tag.len(), |end| end + 2);
        if word_of(tag.get(..end).unwrap_or_default()) == Some("endraw") {
            return from + at;
        }
        from += at + 2;
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_renamed_with_their_modifiers_and_texts_comments_and_raw_blocks_stay() {
        let cases = [
            ("{% generation %}a{% endgeneration %}", "{% with %}a{% endwith %}"),
            ("{%- generation -%}a{%- endgeneration +%}", "{%- with -%}a{%- endwith +%}"),
            (
                "{{ '{% generation %}' }}{# {% generation %} #}",
                "{{ '{% generation %}' }}{# {% generation %} #}",
            ),
            ("{% set a = '%}' %}{% generation %}", "{% set a = '%}' %}{% with %}"),
            (
                "{% raw %}{% generation %}{%endraw%}{% generation %}",
                "{% raw %}{% generation %}{%endraw%}{% with %}",
            ),
            ("{% if add_generation_prompt %}{", "{% if add_generation_prompt %}{"),
            ("a generation {% generation", "a generation {% generation"),
        ];
        for (source, rewritten) in cases {
            assert_eq!(without_generation_blocks(source), rewritten);
        }
    }
}
