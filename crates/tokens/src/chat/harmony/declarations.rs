//! Functions declared to gpt-oss, in the form of TypeScript that its library writes.
//!
//! The form was found out from the library, which is what the server calls. Schemas with other keys than those tried
//! here have no exact tokens.

use std::fmt::Write as _;

use crate::json::{Json, Map, present};
use crate::unsupported::Unsupported;

/// Deepest schema.
const MOST_LEVELS: usize = 16;
/// Keys that the library reads in a way that is not followed here.
const NOT_FOLLOWED: [&str; 3] = ["oneOf", "examples", "nullable"];

fn unknown(reason: &'static str) -> Unsupported {
    Unsupported::field("tools", reason)
}

/// The section with all functions.
pub(super) fn section(tools: &[Json]) -> Result<String, Unsupported> {
    let mut out = String::from("# Tools\n\n## functions\n\nnamespace functions {\n\n");
    for tool in tools {
        let function = tool.map().and_then(|tool| tool.get("function")).and_then(Json::map);
        let function = function.ok_or_else(|| unknown("has a tool that is no function"))?;
        declare(&mut out, function)?;
    }
    out.push_str("} // namespace functions");
    Ok(out)
}

fn declare(out: &mut String, function: &Map) -> Result<(), Unsupported> {
    let name = function.get("name").and_then(Json::text).map(|name| &**name).unwrap_or_default();
    let description = present(function, "description").and_then(Json::text);
    for line in description.iter().filter(|text| !text.is_empty()).flat_map(|text| text.split('\n')) {
        let _ = writeln!(out, "// {line}");
    }
    match present(function, "parameters").map(Json::map) {
        None => {
            let _ = write!(out, "type {name} = () => any;\n\n");
        }
        Some(schema) => {
            let schema = schema.ok_or_else(|| unknown("has parameters that are no object"))?;
            let _ = write!(out, "type {name} = (_: {}) => any;\n\n", kind(schema, 0, MOST_LEVELS)?);
        }
    }
    Ok(())
}

/// The type of a schema whose members stand behind `indent` spaces.
fn kind(schema: &Map, indent: usize, levels: usize) -> Result<String, Unsupported> {
    let levels = levels.checked_sub(1).ok_or_else(|| unknown("has a schema that is nested too deep"))?;
    if NOT_FOLLOWED.iter().any(|key| schema.contains_key(*key)) {
        return Err(unknown("has a schema with oneOf, examples or nullable"));
    }
    let name = match present(schema, "type") {
        Some(Json::Text(name)) => &**name,
        Some(Json::List(names)) => return alternatives(names),
        Some(_) => return Err(unknown("has a schema whose type is neither text nor a list")),
        None => return Ok("any".to_owned()),
    };
    Ok(match name {
        "object" => object(schema, indent, levels)?,
        "string" => string(schema),
        "number" | "integer" => "number".to_owned(),
        "boolean" => "boolean".to_owned(),
        "array" => match present(schema, "items") {
            None => "Array<any>".to_owned(),
            Some(items) => {
                let items = items.map().ok_or_else(|| unknown("has items that are no schema"))?;
                format!("{}[]", kind(items, indent, levels)?)
            }
        },
        _ => "any".to_owned(),
    })
}

fn alternatives(names: &[Json]) -> Result<String, Unsupported> {
    let names = names.iter().map(|name| match name.text().map(|name| &**name) {
        Some("integer" | "number") => Ok("number"),
        Some(name @ ("string" | "null" | "boolean")) => Ok(name),
        _ => Err(unknown("has a schema with a list of types that are not simple")),
    });
    Ok(names.collect::<Result<Vec<_>, _>>()?.join(" | "))
}

fn string(schema: &Map) -> String {
    let members = members(schema);
    if members.is_empty() { "string".to_owned() } else { members.join(" | ") }
}

/// Texts of an enumeration, in quotes.
fn members(schema: &Map) -> Vec<String> {
    let members = present(schema, "enum").and_then(Json::list).unwrap_or_default();
    members.iter().filter_map(Json::text).map(|text| format!("\"{text}\"")).collect()
}

fn object(schema: &Map, indent: usize, levels: usize) -> Result<String, Unsupported> {
    let space = " ".repeat(indent);
    let mut out = String::new();
    if let Some(description) = present(schema, "description").and_then(Json::text) {
        let _ = writeln!(out, "{space}// {description}");
    }
    out.push_str("{\n");
    let required = present(schema, "required").and_then(Json::list).unwrap_or_default();
    let properties = present(schema, "properties").and_then(Json::map);
    for (name, property) in properties.into_iter().flatten() {
        let property = property.map().ok_or_else(|| unknown("has a property that is no schema"))?;
        if let Some(title) = present(property, "title").and_then(Json::text) {
            let _ = write!(out, "{space}// {title}\n{space}//\n");
        }
        if let Some(description) = present(property, "description").and_then(Json::text) {
            let _ = writeln!(out, "{space}// {description}");
        }
        let optional = required.iter().all(|one| one.text().is_none_or(|one| one != name));
        let (mark, kind) = (if optional { "?" } else { "" }, kind(property, indent + 4, levels)?);
        let _ = write!(out, "{space}{name}{mark}: {kind},");
        if let Some(default) = property.get("default") {
            let _ = write!(out, " // default: {}", default_value(default, property)?);
        }
        out.push('\n');
    }
    let _ = write!(out, "{space}}}");
    Ok(out)
}

/// A default as the library prints it: texts as they are, in quotes unless they are of an enumeration.
fn default_value(default: &Json, property: &Map) -> Result<String, Unsupported> {
    Ok(match default {
        Json::Null => "null".to_owned(),
        Json::Bool(flag) => flag.to_string(),
        Json::Int(number) if i64::try_from(*number).is_ok() => number.to_string(),
        Json::Text(text) if !members(property).is_empty() => match present(property, "type") {
            Some(Json::Text(kind)) if &**kind == "string" => text.to_string(),
            _ => return Err(unknown("has a default of an enumeration that is not of texts")),
        },
        Json::Text(text) => format!("\"{text}\""),
        _ => return Err(unknown("has a default that is not simple")),
    })
}
