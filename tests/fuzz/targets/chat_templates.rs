//! Chats through templates: any body through templates that are in use, and any template.

use std::path::Path;

use pointsman_tokens::{Model, ModelLimits, ServerProfile, Stop};

use super::{path, size_class};
use crate::engine::{Broken, Target, run};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/crates/tokens/tests/data");

const TEMPLATES: [&str; 2] = [
    include_str!("../../../crates/tokens/tests/data/templates/words.jinja"),
    include_str!("../../../crates/tokens/tests/data/templates/parts.jinja"),
];

const BODIES: [&str; 4] = [
    r#"{"messages":[{"role":"user","content":"hello"}]}"#,
    r#"{"messages":[{"role":"system","content":"s"},{"role":"user","content":[{"type":"text","text":"a"}]},{"role":"assistant","content":null,"tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{\"a\":1}"}}]},{"role":"tool","tool_call_id":"c","content":"r"}],"tools":[{"type":"function","function":{"name":"f","parameters":{}}}]}"#,
    r#"{"messages":[{"role":"user","content":"x"}],"add_generation_prompt":false,"continue_final_message":false,"chat_template_kwargs":{"enable_thinking":true},"truncate_prompt_tokens":5}"#,
    r#"{"system":"s","messages":[{"role":"user","content":[{"type":"text","text":"hi"}]}],"max_tokens":4}"#,
];

const WORDS: [&str; 26] = [
    "{% for m in messages %}",
    "{% endfor %}",
    "{{ m.content }}",
    "{{ messages | tojson }}",
    "{% macro a(x) %}{{ a(x) }}{% endmacro %}",
    "{{ a(1) }}",
    "{% set x = 'aaaaaaaaaaaaaaaa' %}",
    "{{ x * 1000000000 }}",
    "{% set x = x ~ x %}",
    "{{ range(1000000000) | list }}",
    "{{ 'a' | center(1000000000) }}",
    "{{ x.replace('a', x) }}",
    "{{ raise_exception('x') }}",
    "{% if true %}",
    "{% endif %}",
    "{%- generation -%}",
    "((((((((((((((((",
    "[[[[[[[[[[[[[[[[",
    "\"role\":\"user\",",
    "\"content\":",
    "{\"type\":\"text\",\"text\":\"",
    "\"tools\":[{}],",
    "\"chat_template_kwargs\":{",
    "\\u0000",
    "null",
    "[[",
];

fn limits() -> ModelLimits {
    ModelLimits { cache_bytes: 0, ..ModelLimits::default() }
}

fn model(template: &str) -> Option<Model> {
    let profile = ServerProfile { chat_template: Some(template.to_owned()), ..ServerProfile::default() };
    Model::load(Path::new(FOLDER), profile, limits()).ok()
}

/// Ids of a body through a model; 0 if it has none.
fn count(model: &Model, route: &str, body: &[u8]) -> Result<usize, Broken> {
    let made = model.prepare(route, body, Stop::NEVER);
    let count = made.as_ref().map_or(0, pointsman_tokens::Prompts::count);
    // Every id stands for a byte of the text at least, but for a few special ones.
    let most = (1 << 20) + 8 * body.len() + 16;
    if count > most {
        return Err(format!("{count} ids from a body of {} bytes", body.len()));
    }
    match made {
        Err(error) if error.to_string().len() > 2048 => Err("a long error".to_owned()),
        _ => Ok(count),
    }
}

#[test]
fn any_body_goes_through_templates_within_bounds() {
    let models: Vec<Model> = TEMPLATES.iter().map(|template| model(template).unwrap()).collect();
    let seeds = (0..4).flat_map(|kind| BODIES.iter().map(move |body| [&[kind], body.as_bytes()].concat()));
    let target = Target {
        name: "chats",
        seeds: seeds.collect(),
        words: &WORDS,
        memory_factor: 1000,
        memory_base: 48 << 20,
    };
    run(&target, |input| {
        let (&kind, body) = input.split_first().unwrap_or((&0, &[]));
        let route = if kind & 2 == 0 { "/v1/chat/completions" } else { "/v1/messages" };
        let count = count(&models[usize::from(kind & 1)], route, body)?;
        Ok(path((kind & 3, size_class(count))))
    });
}

#[test]
fn any_template_ends_within_bounds() {
    let seeds = TEMPLATES.iter().map(|template| template.as_bytes().to_vec());
    let own = [
        "{% macro a(x) %}{{ a(x) }}{% endmacro %}{{ a(1) }}",
        "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}",
        "{% set ns = namespace(x='aaaaaaaa') %}{% for i in range(200) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}",
        "{{ 'a' * 4000000000 }}",
        "{{ range(4000000000) | list | length }}",
    ];
    let target = Target {
        name: "templates",
        seeds: seeds.chain(own.iter().map(|text| text.as_bytes().to_vec())).collect(),
        words: &WORDS,
        memory_factor: 1000,
        memory_base: 48 << 20,
    };
    run(&target, |input| {
        let Ok(template) = std::str::from_utf8(input) else { return Ok(0) };
        let Some(model) = model(template) else { return Ok(1) };
        let count = count(&model, "/v1/chat/completions", BODIES[1].as_bytes())?;
        Ok(path(size_class(count)))
    });
}
