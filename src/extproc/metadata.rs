//! Metadata of the proxy, in and out.

use bytes::Bytes;

use super::wire::{Field, Kind, Metadata, Struct, Value};
use crate::director::SubsetHint;
use crate::scheduling::Reported;

/// Namespace of load-balancing metadata.
const NAMESPACE: &str = "envoy.lb";
/// Namespace of the subset hint.
const HINT_NAMESPACE: &str = "envoy.lb.subset_hint";
/// Key of the subset hint.
const HINT_KEY: &str = "x-gateway-destination-endpoint-subset";
/// Key under which the proxy reports who served.
const SERVED_KEY: &str = "x-gateway-destination-endpoint-served";
/// Key of the destination.
const DESTINATION_KEY: &str = "x-gateway-destination-endpoint";
/// Key of the scores.
const SCORES_KEY: &str = "x-gateway-destination-endpoint-scores";

fn find<'a>(metadata: &'a Metadata, namespace: &str, key: &str) -> Option<&'a Value> {
    let fields =
        metadata.filter_metadata.iter().rev().find(|entry| entry.name == namespace)?.fields.as_ref()?;
    fields.fields.iter().rev().find(|field| field.name == key)?.value.as_ref()
}

/// The subset hint. A list of addresses, or one text with commas; anything else is malformed.
pub(super) fn subset_hint(metadata: &Metadata) -> SubsetHint {
    let Some(value) = find(metadata, HINT_NAMESPACE, HINT_KEY) else { return SubsetHint::Absent };
    match &value.kind {
        Some(Kind::List(list)) => {
            let entries = list.values.iter().map(|item| match &item.kind {
                Some(Kind::Text(text)) => Ok(String::from_utf8_lossy(text).into_owned()),
                other => Err(format!("an entry is {}, expected a text", kind_name(other.as_ref()))),
            });
            entries.collect::<Result<_, _>>().map_or_else(SubsetHint::Malformed, SubsetHint::Addresses)
        }
        Some(Kind::Text(text)) => {
            let text = String::from_utf8_lossy(text);
            let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
            SubsetHint::Addresses(entries.map(str::to_owned).collect())
        }
        other => SubsetHint::Malformed(format!("it is {}, expected a list", kind_name(other.as_ref()))),
    }
}

/// The address of the server that really served, as `ip:port`, where the proxy says so.
pub(super) fn served(metadata: &Metadata) -> Option<String> {
    match &find(metadata, NAMESPACE, SERVED_KEY)?.kind {
        Some(Kind::Text(text)) => Some(String::from_utf8_lossy(text).into_owned()),
        _ => None,
    }
}

/// `{"envoy.lb": {"x-gateway-destination-endpoint": target, …}}`.
pub(super) fn destination(target: &Bytes, scores: &[(String, f64)]) -> Struct {
    let mut fields = vec![field(DESTINATION_KEY, Kind::Text(target.clone()))];
    if !scores.is_empty() {
        let scores = scores.iter().map(|(endpoint, score)| Field {
            name: Bytes::copy_from_slice(endpoint.as_bytes()),
            value: Some(Value { kind: Some(Kind::Number(*score)) }),
        });
        fields.push(field(SCORES_KEY, Kind::Struct(Struct { fields: scores.collect() })));
    }
    Struct { fields: vec![field(NAMESPACE, Kind::Struct(Struct { fields }))] }
}

/// What plugins say of a response, by namespace; `None` for nothing.
pub(super) fn reported(figures: Vec<Reported>) -> Option<Struct> {
    let mut spaces: Vec<(Bytes, Vec<Field>)> = Vec::new();
    for figure in figures {
        let name = Bytes::copy_from_slice(figure.name.as_bytes());
        let field = Field { name, value: Some(Value { kind: Some(Kind::Number(figure.value)) }) };
        match spaces.iter_mut().find(|(space, _)| space == figure.namespace.as_bytes()) {
            Some((_, fields)) => fields.push(field),
            None => spaces.push((Bytes::copy_from_slice(figure.namespace.as_bytes()), vec![field])),
        }
    }
    let space =
        |(name, fields)| Field { name, value: Some(Value { kind: Some(Kind::Struct(Struct { fields })) }) };
    (!spaces.is_empty()).then(|| Struct { fields: spaces.into_iter().map(space).collect() })
}

fn field(name: &'static str, kind: Kind) -> Field {
    Field { name: Bytes::from_static(name.as_bytes()), value: Some(Value { kind: Some(kind) }) }
}

fn kind_name(kind: Option<&Kind>) -> &'static str {
    match kind {
        None => "nothing",
        Some(Kind::Null(_)) => "null",
        Some(Kind::Number(_)) => "a number",
        Some(Kind::Text(_)) => "a text",
        Some(Kind::Bool(_)) => "a boolean",
        Some(Kind::Struct(_)) => "an object",
        Some(Kind::List(_)) => "a list",
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire::{List, NamedStruct};
    use super::*;

    fn metadata(kind: Option<Kind>) -> Metadata {
        let field = Field { name: HINT_KEY.into(), value: Some(Value { kind }) };
        let entry = NamedStruct { name: HINT_NAMESPACE.into(), fields: Some(Struct { fields: vec![field] }) };
        Metadata { filter_metadata: vec![entry] }
    }

    fn list(items: &[&'static str]) -> Kind {
        let values = items.iter().map(|&item| Value { kind: Some(Kind::Text(item.into())) });
        Kind::List(List { values: values.collect() })
    }

    #[test]
    fn a_hint_is_a_list_of_addresses_or_a_text_with_commas() {
        let addresses =
            |items: &[&str]| SubsetHint::Addresses(items.iter().map(|&item| item.into()).collect());
        assert_eq!(subset_hint(&Metadata::default()), SubsetHint::Absent);
        assert_eq!(subset_hint(&metadata(Some(list(&["a", "b"])))), addresses(&["a", "b"]));
        assert_eq!(subset_hint(&metadata(Some(list(&[])))), addresses(&[]));
        assert_eq!(subset_hint(&metadata(Some(Kind::Text("a, b".into())))), addresses(&["a", "b"]));
    }

    #[test]
    fn a_malformed_hint_is_never_taken_for_an_absent_one() {
        for kind in
            [None, Some(Kind::Null(0)), Some(Kind::Number(1.0)), Some(Kind::Struct(Struct::default()))]
        {
            assert!(matches!(subset_hint(&metadata(kind)), SubsetHint::Malformed(_)));
        }
        let mixed = Kind::List(List { values: vec![Value { kind: Some(Kind::Bool(true)) }] });
        assert!(matches!(subset_hint(&metadata(Some(mixed))), SubsetHint::Malformed(_)));
    }
}
