//! Chooses the template with which a chat is rendered. Requests with tools may have a template of their own.

use std::sync::Arc;

use super::{LoadError, ModelFiles};
use crate::template::{ChatTemplate, ContentFormat};

/// The templates of a model.
#[derive(Default)]
pub(crate) struct Templates {
    /// The template for requests without tools.
    pub(crate) plain: Option<Arc<ChatTemplate>>,
    /// The template for requests with tools.
    pub(crate) tools: Option<Arc<ChatTemplate>>,
}

/// Compiles the templates of a model. `given` is the template that the server was started with; it replaces all others.
///
/// # Errors
/// Returns [`LoadError`] for a template that does not compile.
pub(crate) fn templates(
    files: &ModelFiles,
    given: Option<&str>,
    format: Option<ContentFormat>,
) -> Result<Templates, LoadError> {
    let compile = |file: &str, field: &str, source: &str| {
        let template = ChatTemplate::new(source, format);
        template
            .map(|template| Some(Arc::new(template)))
            .map_err(|reason| LoadError::new(file, field, reason))
    };
    if let Some(source) = given {
        let template = compile("the configured chat template", "(whole file)", source)?;
        return Ok(Templates { plain: template.clone(), tools: template });
    }
    let (default, tool_use) = if let Some(source) = &files.template {
        let default = compile("chat_template.jinja", "(whole file)", source)?;
        let tool_use = match &files.tool_template {
            Some(source) => compile("additional_chat_templates/tool_use.jinja", "(whole file)", source)?,
            None => None,
        };
        (default, tool_use)
    } else {
        let named = |name: &str| {
            let found = files.config.templates.iter().find(|(each, _)| each == name);
            found.map_or(Ok(None), |(_, source)| compile("tokenizer_config.json", "chat_template", source))
        };
        (named("default")?, named("tool_use")?)
    };
    let processor = match &files.processor_template {
        Some(source) if files.processor && files.template.is_none() => {
            compile("chat_template.json", "chat_template", source)?
        }
        _ => None,
    };
    Ok(Templates { plain: processor.or_else(|| default.clone()), tools: tool_use.or(default) })
}
