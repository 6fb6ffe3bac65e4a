//! Chat templates, which are compiled once and rendered for each request within bounds.
//!
//! The environment is that of Hugging Face's `apply_chat_template`, as far as the templates in use need it. A template
//! that needs more fails, and the request then has no exact tokens. No part of a prompt is left out silently.

mod detect;
mod dump;
mod functions;
mod generation;
mod methods;
mod print;
mod value;

use std::io::{self, Write};

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, UndefinedBehavior};

pub(crate) use detect::ContentFormat;
pub(crate) use methods::is_space;
pub(crate) use value::{Dict, from_json};

use crate::encoder::Stop;
use crate::unsupported::Unsupported;

/// The name of the only template of an environment.
const NAME: &str = "chat";
/// The deepest nesting of macros, loops and blocks.
const RECURSION: usize = 150;
/// The fuel of a render, besides that for its input. An instruction costs one unit, and so do 64 bytes of output.
const FUEL: u64 = 500_000;
/// The bytes of input that add one unit of fuel.
const BYTES_PER_FUEL: usize = 4;

/// The rules for white space around tags.
fn syntax() -> SyntaxConfig {
    // Only wrong delimiters make the builder fail, and these are the usual ones.
    SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().unwrap_or_default()
}

/// A compiled template.
pub(crate) struct ChatTemplate {
    environment: Environment<'static>,
    /// The form of a message's content that the template expects.
    pub(crate) format: ContentFormat,
    /// True if the template names the role `developer` in quotes.
    pub(crate) knows_developer: bool,
}

impl ChatTemplate {
    /// Compiles a template. `format` overrides the form that its syntax shows.
    ///
    /// # Errors
    /// Returns a sentence that says what is wrong with the template.
    pub(crate) fn new(source: &str, format: Option<ContentFormat>) -> Result<Self, String> {
        let detected = format.unwrap_or_else(|| detect::content_format(source));
        let rewritten = generation::without_generation_blocks(source).into_owned();
        let mut environment = Environment::new();
        environment.set_syntax(syntax());
        environment.set_undefined_behavior(UndefinedBehavior::Lenient);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_recursion_limit(RECURSION);
        environment.set_formatter(print::write_value);
        environment.set_unknown_method_callback(methods::call);
        functions::add(&mut environment);
        environment
            .add_template_owned(NAME, rewritten)
            .map_err(|error| format!("the template is not compiled: {error:#}"))?;
        let knows_developer = source.contains("\"developer\"") || source.contains("'developer'");
        Ok(Self { environment, format: detected, knows_developer })
    }

    /// Renders the template with `context`. `input` is the size of the client's body in bytes, which bounds time and
    /// memory.
    ///
    /// # Errors
    /// Returns [`Unsupported::Template`] if the template raises an error or costs too much, and an error if `stop` ends
    /// it.
    pub(crate) fn render(
        &self,
        context: Dict,
        input: usize,
        most: usize,
        stop: Stop<'_>,
    ) -> Result<String, Unsupported> {
        let mut environment = self.environment.clone();
        environment.set_fuel(Some(FUEL + (input / BYTES_PER_FUEL) as u64));
        let failed = |error: minijinja::Error| Unsupported::Template(short(&error));
        let template = environment.get_template(NAME).map_err(failed)?;
        let mut output = Bounded { text: Vec::with_capacity(input.min(most) + 1024), most, stop, why: None };
        let rendered =
            template.render_captured_to(minijinja::Value::from_object(context), &mut output).map(drop);
        if let Some(why) = output.why {
            return Err(why);
        }
        rendered.map_err(failed)?;
        String::from_utf8(output.text).map_err(|_| Unsupported::Template("its output is no UTF-8".to_owned()))
    }
}

/// The text of an error, without the template's source and the values of its variables.
fn short(error: &minijinja::Error) -> String {
    let detail = error.detail().unwrap_or_default();
    let line = error.line().map(|line| format!(" (line {line})")).unwrap_or_default();
    let mut text = format!("{}: {detail}", error.kind());
    if let Some((end, _)) = text.char_indices().nth(200) {
        text.truncate(end);
    }
    text + &line
}

/// The output of a render. It ends when it is too long or is not needed any more.
struct Bounded<'a> {
    text: Vec<u8>,
    most: usize,
    stop: Stop<'a>,
    why: Option<Unsupported>,
}

impl Write for Bounded<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.text.len().saturating_add(bytes.len());
        if length > self.most {
            self.why = Some(Unsupported::TooLarge {
                what: "the rendered chat in bytes",
                got: length,
                most: self.most,
            });
            return Err(io::Error::other("too long"));
        }
        if let Err(error) = self.stop.check() {
            self.why = Some(error.into());
            return Err(io::Error::other("stopped"));
        }
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
