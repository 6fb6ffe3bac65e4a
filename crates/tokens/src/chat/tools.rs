//! The tools of a request, in the form that the server gives to templates.

use std::sync::Arc;

use crate::json::{Json, Map, present};
use crate::profile::ServerProfile;
use crate::unsupported::Unsupported;

/// The variable `tools`; `None` if the request has no tools.
pub(super) fn of(body: &Map, profile: &ServerProfile) -> Result<Option<Json>, Unsupported> {
    let Some(tools) = present(body, "tools") else { return Ok(None) };
    let tools = tools.list().ok_or_else(|| Unsupported::refused("tools", "is no list"))?;
    if tools.is_empty() {
        return Err(Unsupported::refused("tools", "is an empty list"));
    }
    let none = body.get("tool_choice").and_then(Json::text).is_some_and(|choice| &**choice == "none");
    if none && profile.exclude_tools_when_none {
        return Ok(None);
    }
    Ok(Some(Json::List(tools.iter().map(tool).collect::<Result<_, _>>()?)))
}

/// A tool with its known fields, in the server's order.
fn tool(tool: &Json) -> Result<Json, Unsupported> {
    let tool = tool.map().ok_or_else(|| Unsupported::refused("tools", "has an item that is no object"))?;
    match tool.get("type") {
        None => {}
        Some(Json::Text(kind)) if &**kind == "function" => {}
        Some(_) => return Err(Unsupported::field("tools", "has a tool that is no function")),
    }
    let function = tool.get("function").and_then(Json::map);
    let function = function.ok_or_else(|| Unsupported::refused("tools", "has a tool without function"))?;
    let name = function.get("name").and_then(Json::text);
    let name = name.ok_or_else(|| Unsupported::refused("tools", "has a function without name"))?;
    let mut dumped = Map::new();
    let mut set = |key: &str, value: Json| dumped.insert(Arc::from(key), value);
    set("name", Json::Text(Arc::clone(name)));
    set("description", field(function, "description", |value| value.text().is_some())?);
    set("parameters", field(function, "parameters", |value| value.map().is_some())?);
    for name in ["strict", "defer_loading"] {
        if present(function, name).is_some() {
            set(name, field(function, name, |value| matches!(value, Json::Bool(_)))?);
        }
    }
    let mut whole = Map::new();
    whole.insert(Arc::from("type"), Json::from_text("function"));
    whole.insert(Arc::from("function"), Json::Map(dumped));
    if present(tool, "defer_loading").is_some() {
        whole.insert(
            Arc::from("defer_loading"),
            field(tool, "defer_loading", |value| matches!(value, Json::Bool(_)))?,
        );
    }
    Ok(Json::Map(whole))
}

/// The value of a tool's field; `null` if it is absent.
fn field(map: &Map, name: &str, fits: impl Fn(&Json) -> bool) -> Result<Json, Unsupported> {
    match present(map, name) {
        None => Ok(Json::Null),
        Some(value) if fits(value) => Ok(value.clone()),
        Some(_) => Err(Unsupported::refused("tools", "has a field of another type")),
    }
}
