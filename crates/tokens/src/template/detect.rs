//! Detects the form of a message's content that a template expects, by the server's rules on the syntax tree.

use std::collections::HashMap;
use std::collections::HashSet;

use minijinja::machinery::ast::{Call, CallArg, Expr, Macro, Stmt};
use minijinja::machinery::parse;
use minijinja::syntax::SyntaxConfig;

use super::generation;

/// The form of a message's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ContentFormat {
    /// The content is one text.
    Text,
    /// The content is a list of parts.
    Parts,
}

/// The form that `source` expects. It is a list of parts if the template loops over the content of a message.
pub(super) fn content_format(source: &str) -> ContentFormat {
    let source = generation::without_generation_blocks(source);
    let Ok(tree) = parse(&source, "chat", SyntaxConfig::default()) else { return ContentFormat::Text };
    let mut nodes = Nodes::default();
    nodes.statement(&tree, None);
    if loops_over_content(&nodes) { ContentFormat::Parts } else { ContentFormat::Text }
}

/// The statements and calls of a template, in the order of the source.
#[derive(Default)]
struct Nodes<'a> {
    assignments: Vec<(&'a Expr<'a>, &'a Expr<'a>)>,
    /// For each loop: its target, the expression that it loops over, and the macro that contains it.
    loops: Vec<(&'a Expr<'a>, &'a Expr<'a>, Option<&'a str>)>,
    macros: Vec<&'a Macro<'a>>,
    calls: Vec<&'a Call<'a>>,
}

/// True if a loop goes over the content of a message.
fn loops_over_content(nodes: &Nodes<'_>) -> bool {
    let Some(messages) = message_lists(nodes) else { return false };
    let mut message = HashSet::new();
    for (target, over, _) in &nodes.loops {
        if messages.iter().any(|name| is_elements(over, name, None)) {
            let Some(name) = variable(target) else { return false };
            message.insert(name);
        }
    }
    let is_content = |expr: &Expr<'_>| message.iter().any(|name| is_elements(expr, name, Some("content")));
    let filled = parameters_filled(nodes, &is_content);
    for (target, over, within) in &nodes.loops {
        let parameter = within.is_some_and(|name| {
            filled.get(name).is_some_and(|names| names.iter().any(|name| is_elements(over, name, None)))
        });
        let plain = within.is_none() && is_elements(over, "content", None);
        if is_content(over) || parameter || plain {
            return variable(target).is_some();
        }
    }
    false
}

/// The names of `messages` and of the variables that are assigned from it. `None` if an assignment has another target
/// than a plain name.
fn message_lists<'a>(nodes: &Nodes<'a>) -> Option<Vec<&'a str>> {
    let mut names = vec!["messages"];
    let mut next = 0;
    while let Some(name) = names.get(next).copied() {
        for (target, value) in &nodes.assignments {
            if is_elements(value, name, None) {
                let target = variable(target)?;
                if !names.contains(&target) {
                    names.push(target);
                }
            }
        }
        next += 1;
    }
    Some(names)
}

/// The parameters of macros that a call fills with the content of a message.
fn parameters_filled<'a>(
    nodes: &Nodes<'a>,
    is_content: &dyn Fn(&Expr<'_>) -> bool,
) -> HashMap<&'a str, HashSet<&'a str>> {
    let mut filled: HashMap<&str, HashSet<&str>> = HashMap::new();
    for call in &nodes.calls {
        let Some(name) = variable(&call.expr) else { continue };
        for definition in nodes.macros.iter().filter(|definition| definition.name == name) {
            for (index, argument) in call.args.iter().enumerate() {
                let parameter = match argument {
                    CallArg::Pos(value) if is_content(value) => definition.args.get(index).and_then(variable),
                    CallArg::Kwarg(name, value) if is_content(value) => Some(*name),
                    _ => None,
                };
                filled.entry(definition.name).or_default().extend(parameter);
            }
        }
    }
    filled
}

fn variable<'a>(expr: &Expr<'a>) -> Option<&'a str> {
    if let Expr::Var(variable) = expr { Some(variable.id) } else { None }
}

/// True for the variable `name`, or its attribute `key`, possibly through filters, tests and slices.
fn is_elements(expr: &Expr<'_>, name: &str, key: Option<&str>) -> bool {
    match expr {
        Expr::Filter(filter) => filter.expr.as_ref().is_some_and(|inner| is_elements(inner, name, key)),
        Expr::Test(test) => is_elements(&test.expr, name, key),
        Expr::Slice(slice) => is_elements(&slice.expr, name, key),
        Expr::Var(variable) => key.is_none() && variable.id == name,
        Expr::GetAttr(attribute) => key == Some(attribute.name) && variable(&attribute.expr) == Some(name),
        Expr::GetItem(item) => {
            let wanted = match &item.subscript_expr {
                Expr::Const(value) => value.value.as_str(),
                _ => None,
            };
            key.is_some() && wanted == key && variable(&item.expr) == Some(name)
        }
        _ => false,
    }
}

impl<'a> Nodes<'a> {
    fn statements(&mut self, statements: &'a [Stmt<'a>], within: Option<&'a str>) {
        for each in statements {
            self.statement(each, within);
        }
    }

    fn statement(&mut self, statement: &'a Stmt<'a>, within: Option<&'a str>) {
        match statement {
            Stmt::Template(template) => self.statements(&template.children, within),
            Stmt::EmitExpr(emit) => self.expression(&emit.expr),
            Stmt::ForLoop(each) => {
                self.loops.push((&each.target, &each.iter, within));
                self.expression(&each.iter);
                self.statements(&each.body, within);
                self.statements(&each.else_body, within);
            }
            Stmt::IfCond(condition) => {
                self.expression(&condition.expr);
                self.statements(&condition.true_body, within);
                self.statements(&condition.false_body, within);
            }
            Stmt::WithBlock(block) => self.statements(&block.body, within),
            Stmt::Set(set) => {
                self.assignments.push((&set.target, &set.expr));
                self.expression(&set.expr);
            }
            Stmt::SetBlock(set) => self.statements(&set.body, within),
            Stmt::AutoEscape(block) => self.statements(&block.body, within),
            Stmt::FilterBlock(block) => self.statements(&block.body, within),
            Stmt::Block(block) => self.statements(&block.body, within),
            Stmt::Macro(definition) => {
                self.macros.push(definition);
                self.statements(&definition.body, Some(definition.name));
            }
            Stmt::CallBlock(block) => {
                self.calls.push(&block.call);
                self.statements(&block.macro_decl.body, within);
            }
            Stmt::Do(call) => self.calls.push(&call.call),
            _ => {}
        }
    }

    fn expression(&mut self, expr: &'a Expr<'a>) {
        match expr {
            Expr::Call(call) => {
                self.calls.push(call);
                self.expression(&call.expr);
                self.arguments(&call.args);
            }
            Expr::Filter(filter) => {
                filter.expr.iter().for_each(|inner| self.expression(inner));
                self.arguments(&filter.args);
            }
            Expr::Test(test) => self.expression(&test.expr),
            Expr::Slice(slice) => self.expression(&slice.expr),
            Expr::UnaryOp(unary) => self.expression(&unary.expr),
            Expr::BinOp(binary) => {
                self.expression(&binary.left);
                self.expression(&binary.right);
            }
            Expr::IfExpr(condition) => {
                self.expression(&condition.true_expr);
                condition.false_expr.iter().for_each(|inner| self.expression(inner));
            }
            Expr::GetAttr(attribute) => self.expression(&attribute.expr),
            Expr::GetItem(item) => self.expression(&item.expr),
            Expr::List(list) => list.items.iter().for_each(|item| self.expression(item)),
            _ => {}
        }
    }

    fn arguments(&mut self, arguments: &'a [CallArg<'a>]) {
        for argument in arguments {
            match argument {
                CallArg::Pos(value)
                | CallArg::Kwarg(_, value)
                | CallArg::PosSplat(value)
                | CallArg::KwargSplat(value) => self.expression(value),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ContentFormat::{Parts, Text};
    use super::*;

    #[test]
    fn a_loop_over_the_content_of_a_message_asks_for_parts() {
        let cases = [
            ("{% for m in messages %}{{ m.content }}{% endfor %}", Text),
            ("{% for m in messages %}{% for c in m.content %}{% endfor %}{% endfor %}", Parts),
            ("{% for m in messages[1:] %}{% for c in m['content'] | list %}{% endfor %}{% endfor %}", Parts),
            (
                "{% set ms = messages[1:] %}{% set l = ms %}{% for m in l %}{% for c in m.content %}{% endfor %}{% endfor %}",
                Parts,
            ),
            (
                "{% set ms = ms2 %}{% set ms2 = ms %}{% for m in ms %}{% for c in m.content %}{% endfor %}{% endfor %}",
                Text,
            ),
            (
                "{% for m in messages %}{% set parts = m.content %}{% for c in parts %}{% endfor %}{% endfor %}",
                Text,
            ),
            ("{% for m in messages %}{% for t in m.tool_calls %}{% endfor %}{% endfor %}", Text),
            (
                "{% for m in messages %}{% set content = m.content %}{% for c in content %}{% endfor %}{% endfor %}",
                Parts,
            ),
            ("{% macro r(content) %}{% for c in content %}{% endfor %}{% endmacro %}{{ r('a') }}", Text),
            (
                "{% macro r(x) %}{% for c in x %}{% endfor %}{% endmacro %}{% for m in messages %}{{ r(m.content) }}{% endfor %}",
                Parts,
            ),
            (
                "{% macro r(x) %}{% for c in x %}{% endfor %}{% endmacro %}{% for m in messages %}{{ r(x=m.content) }}{% endfor %}",
                Parts,
            ),
            ("{% for a, b in messages %}{% endfor %}{% for c in content %}{% endfor %}", Text),
            (
                "{% set ns = namespace() %}{% set ns.m = messages %}{% for m in messages %}{% for c in m.content %}{% endfor %}{% endfor %}",
                Text,
            ),
            (
                "{% for m in messages %}{% generation %}{% for c in m.content %}{% endfor %}{% endgeneration %}{% endfor %}",
                Parts,
            ),
            ("{% for m in messages %}{% for c in m.content %}", Text),
        ];
        for (source, format) in cases {
            assert_eq!(content_format(source), format, "{source}");
        }
    }
}
