//! The variables of a template, except for messages and tools.

use std::sync::Arc;

use indexmap::IndexMap;
use minijinja::Value;

use crate::json::{Json, Map, present};
use crate::model::Model;
use crate::request::flag;
use crate::template::{Dict, from_json};
use crate::unsupported::Unsupported;

/// The variables by name. A later value overrides an earlier one, unless it is a default.
pub(super) struct Variables(IndexMap<Arc<str>, Value>);

/// The keys of `chat_template_kwargs` that are parameters of the server's functions, and not variables.
const PARAMETERS: [&str; 11] = [
    "chat_template",
    "conversation",
    "tokenize",
    "padding",
    "truncation",
    "max_length",
    "return_tensors",
    "return_dict",
    "return_assistant_tokens_mask",
    "tokenizer_kwargs",
    "processor_kwargs",
];

/// The variables that a body and the server's flags set.
pub(super) fn of(model: &Model, body: &Map) -> Result<Variables, Unsupported> {
    const KWARGS: &str = "chat_template_kwargs";
    let request = match present(body, KWARGS) {
        None => None,
        Some(kwargs) => Some(kwargs.map().ok_or_else(|| Unsupported::refused(KWARGS, "is no object"))?),
    };
    let kwargs = || model.profile.default_kwargs.map().into_iter().chain(request);
    if kwargs().flat_map(Map::keys).any(|key| PARAMETERS.contains(&&**key)) {
        return Err(Unsupported::field(KWARGS, "holds a parameter of the server's functions"));
    }
    let mut variables = Variables(IndexMap::new());
    for (name, token) in &model.special {
        variables.set(name, Value::from(Arc::clone(token)));
    }
    for layer in kwargs() {
        for (key, value) in layer.iter().filter(|(_, value)| counts(value)) {
            variables.set(key, from_json(value));
        }
    }
    let generation = flag(body, "add_generation_prompt", true)?;
    let continued = flag(body, "continue_final_message", false)?;
    if generation && continued {
        return Err(Unsupported::refused("continue_final_message", "needs add_generation_prompt false"));
    }
    variables.set("add_generation_prompt", Value::from(generation));
    variables.set("continue_final_message", Value::from(continued));
    if let Some(documents) = present(body, "documents").filter(|documents| counts(documents)) {
        let documents = documents.list().ok_or_else(|| Unsupported::refused("documents", "is no list"))?;
        variables.set("documents", from_json(&Json::List(documents.to_vec())));
    }
    if let Some(effort) = present(body, "reasoning_effort") {
        let effort = effort.text().ok_or_else(|| Unsupported::refused("reasoning_effort", "is no text"))?;
        if &**effort != "auto" {
            variables.set("reasoning_effort", Value::from(Arc::clone(effort)));
        }
        if !request.is_some_and(|kwargs| kwargs.contains_key("enable_thinking")) {
            variables.set("enable_thinking", Value::from(&**effort != "none"));
        }
    }
    variables.set_default("documents", Value::from(()));
    Ok(variables)
}

/// False for a value that does not override an earlier one.
fn counts(value: &Json) -> bool {
    !value.is_null() && value.text().is_none_or(|text| &**text != "auto")
}

impl Variables {
    fn set(&mut self, name: &str, value: Value) {
        self.0.insert(Arc::from(name), value);
    }

    /// Sets a variable unless it is set already.
    pub(super) fn set_default(&mut self, name: &str, value: Value) {
        self.0.entry(Arc::from(name)).or_insert(value);
    }

    /// The variables in the form that the template gets.
    pub(super) fn into_context(self) -> Dict {
        Dict::new(self.0)
    }
}
