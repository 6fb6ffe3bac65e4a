//! How `token-producer` estimates media, in the form in which what belongs to a mode stood beside the mode.

use super::tree::{self, Map};
use crate::document::{Key, Node, NodeValue, Problems};

const TYPES: &[&str] = &["token-producer", "tokenizer"];

/// A section of the parameters, a field that stood there, and the section of its mode.
const MOVED: &[(&[&str], &str, &str)] = &[
    (&["estimate", "image"], "factor", "dynamic"),
    (&["estimate", "image"], "staticToken", "static"),
    (&["estimate", "video", "tokensPerFrame"], "factor", "dynamic"),
    (&["estimate", "video", "tokensPerFrame"], "numTokensPerFrame", "static"),
    (&["estimate", "video", "frames"], "sampleFPS", "sampled"),
    (&["estimate", "video", "frames"], "temporalPatchSize", "sampled"),
    (&["estimate", "video", "frames"], "defaultSourceFPS", "strided"),
    (&["estimate", "video", "frames"], "frameStride", "strided"),
];

/// Puts such fields below their mode.
pub(super) fn translate(row: &mut Map, path: &str, problems: &mut Problems) {
    if tree::text_of(row, "type").is_none_or(|kind| !TYPES.contains(&kind)) {
        return;
    }
    let Some(NodeValue::Map(parameters)) = tree::get_mut(row, "parameters").map(|node| &mut node.value)
    else {
        return;
    };
    for (sections, field, mode) in MOVED {
        let Some(section) = section_mut(parameters, sections) else { continue };
        let Some((key, node)) = tree::take_any_case(section, field) else { continue };
        let at = format!("{path}.parameters.{}.{}", sections.join("."), key.text);
        let Some(place) = mode_mut(section, key.line, mode) else { continue };
        if tree::has_any_case(place, field) {
            problems.warning(key.line, at, format!("has no effect beside `{mode}.{field}`, its name today"));
        } else {
            tree::put(place, key.line, field, node);
            problems.warning(key.line, at, format!("belongs to its mode; write `{mode}: {{{field}: …}}`"));
        }
    }
}

/// The mapping at a path of names, in any letter case.
fn section_mut<'m>(map: &'m mut Map, path: &[&str]) -> Option<&'m mut Map> {
    let Some((first, rest)) = path.split_first() else { return Some(map) };
    let (_, node) = map.iter_mut().rev().find(|(key, _)| key.text.eq_ignore_ascii_case(first))?;
    match &mut node.value {
        NodeValue::Map(section) => section_mut(section, rest),
        _ => None,
    }
}

/// The mapping of a mode, added empty if it is absent.
fn mode_mut<'m>(section: &'m mut Map, line: u32, mode: &str) -> Option<&'m mut Map> {
    let given = |(key, node): &(Key, Node)| key.text.eq_ignore_ascii_case(mode) && !node.is_null();
    if !section.iter().any(given) {
        tree::take_any_case(section, mode);
        tree::put(section, line, mode, Node { line, value: NodeValue::Map(Vec::new()) });
    }
    section_mut(section, &[mode])
}

#[cfg(test)]
mod tests {
    use super::super::tests::assert_translated;

    fn estimate(image: &str, frames: &str) -> String {
        let video = format!("{{tokensPerFrame: {image}, frames: {frames}}}");
        format!(
            "plugins:\n- type: token-producer\n  parameters: {{estimate: {{image: {image}, video: {video}}}}}\n\
             - type: approx-prefix-cache-producer\n- type: prefix-cache-scorer\n"
        )
    }

    #[test]
    fn fields_of_a_mode_may_stand_beside_it() {
        let said = ["belongs to its mode; write `dynamic: {factor: …}`"; 2];
        let rest = ["write `sampled: {sampleFPS: …}`", "write `sampled: {temporalPatchSize: …}`"];
        assert_translated(
            &estimate(
                "{mode: dynamic, factor: 512}",
                "{mode: sampled, sampleFPS: 3, temporalPatchSize: 2, minFrames: 4}",
            ),
            &estimate(
                "{mode: dynamic, dynamic: {factor: 512}}",
                "{mode: sampled, minFrames: 4, sampled: {sampleFPS: 3, temporalPatchSize: 2}}",
            ),
            &[&said[..], &rest[..]].concat(),
        );
    }

    #[test]
    fn beside_todays_form_the_older_one_has_no_effect() {
        assert_translated(
            &estimate("{}", "{mode: strided, FrameStride: 3, strided: {frameStride: 2}}"),
            &estimate("{}", "{mode: strided, strided: {frameStride: 2}}"),
            &["has no effect beside `strided.frameStride`"],
        );
    }
}
