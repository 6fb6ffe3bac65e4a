//! The document as written: every field typed, nothing resolved.

use super::data_layer::DataLayer;
use super::flow_control::{FlowControl, SaturationDetector};
use super::former::is_former_api_version;
use super::gates::FeatureGates;
use super::reference::{Reference, named, reference, references};
use crate::document::{Fields, Level, Node, NodeValue, Problems};

/// A row of `plugins`.
#[derive(Clone, Debug, PartialEq)]
pub struct PluginEntry {
    /// Instance name; the type if none is given.
    pub name: String,
    /// Type string.
    pub kind: String,
    /// Parameters, as written.
    pub parameters: Option<Node>,
    /// Line of the row.
    pub line: u32,
    /// Path of the row.
    pub path: String,
}

/// A row of a profile's `plugins`.
#[derive(Clone, Debug, PartialEq)]
pub struct ProfileRef {
    /// The plugin.
    pub plugin: Reference,
    /// Weight of a scorer and its line; any finite number.
    pub weight: Option<(f64, u32)>,
}

/// A row of `schedulingProfiles`.
#[derive(Clone, Debug, PartialEq)]
pub struct ProfileEntry {
    /// Name.
    pub name: String,
    /// Plugins, in order.
    pub plugins: Vec<ProfileRef>,
    /// Line of the row.
    pub line: u32,
    /// Path of the row.
    pub path: String,
}

/// An `EndpointPickerConfig` as written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Document {
    /// `featureGates`.
    pub gates: FeatureGates,
    /// Line of `featureGates`.
    pub gates_line: u32,
    /// `plugins`.
    pub plugins: Vec<PluginEntry>,
    /// `schedulingProfiles`.
    pub profiles: Vec<ProfileEntry>,
    /// `dataLayer`.
    pub data_layer: DataLayer,
    /// `requestHandler.parsers`, or the deprecated `parser`.
    pub parsers: Vec<Reference>,
    /// `flowControl`, with the deprecated `saturationDetector` moved in.
    pub flow_control: FlowControl,
}

const KIND: &str = "EndpointPickerConfig";
pub(super) const API_VERSION: &str = "llm-d.ai/v1alpha1";
const NEXT_API_VERSION: &str = "llm-d.ai/v1";

/// Reads the whole tree. What is wrong goes to `problems`, and the rest is read on.
pub(super) fn read(root: &Node, is_json: bool, problems: &mut Problems) -> Document {
    let mut document = Document::default();
    let Some(mut fields) = Fields::of(root, "", problems) else { return document };
    version(&mut fields, problems);
    document.gates_line = fields.line_of("featureGates");
    document.gates = FeatureGates::read(fields.list("featureGates", problems), "featureGates", problems);
    for (index, node) in fields.list("plugins", problems).iter().enumerate() {
        document.plugins.extend(plugin(node, format!("plugins[{index}]"), is_json, problems));
    }
    for (index, node) in fields.list("schedulingProfiles", problems).iter().enumerate() {
        document.profiles.extend(profile(node, format!("schedulingProfiles[{index}]"), problems));
    }
    if let Some(node) = fields.get("dataLayer") {
        document.data_layer = DataLayer::read(node, problems);
    }
    if let Some(node) = fields.get("flowControl") {
        document.flow_control = FlowControl::read(node, "flowControl", problems);
    }
    if let Some(node) = fields.get("requestHandler")
        && let Some(mut handler) = Fields::of(node, "requestHandler", problems)
    {
        document.parsers = references(&mut handler, "parsers", problems);
        if handler.boolean("propagatePriority", problems) == Some(true) {
            let field = "propagatePriority";
            let message = "has no effect: model servers are not told the priority of a request";
            problems.warning(handler.line_of(field), handler.path(field), message);
        }
        handler.finish(Level::Error, problems);
    }
    if let Some(node) = fields.get("parser") {
        let line = fields.line_of("parser");
        let parser = reference(node, "parser", problems);
        if document.parsers.is_empty() {
            problems.warning(line, "parser", "is deprecated; use `requestHandler.parsers`");
            document.parsers.extend(parser);
        } else {
            problems.warning(
                line,
                "parser",
                "is deprecated and has no effect beside `requestHandler.parsers`",
            );
        }
    }
    if let Some(node) = fields.get("saturationDetector") {
        let line = fields.line_of("saturationDetector");
        let detector = SaturationDetector::read(node, "saturationDetector", problems);
        if document.flow_control.saturation_detector.is_none() {
            problems.warning(
                line,
                "saturationDetector",
                "is deprecated; use `flowControl.saturationDetector`",
            );
            document.flow_control.saturation_detector = detector;
        } else {
            let message = "is deprecated and has no effect beside `flowControl.saturationDetector`";
            problems.warning(line, "saturationDetector", message);
        }
    }
    fields.finish(Level::Error, problems);
    document
}

fn version(fields: &mut Fields<'_>, problems: &mut Problems) {
    // Templates write empty strings for what they do not set.
    let version = fields.text("apiVersion", problems).filter(|version| !version.is_empty());
    let line = fields.line_of("apiVersion");
    match version {
        None | Some(API_VERSION | NEXT_API_VERSION) => {}
        Some(former) if is_former_api_version(former) => {
            let message = format!("\"{former}\" is a former group; write \"{API_VERSION}\"");
            problems.warning(line, "apiVersion", message);
        }
        Some(other) => {
            let message = format!("got \"{other}\", expected \"{API_VERSION}\" or \"{NEXT_API_VERSION}\"");
            problems.error(line, "apiVersion", message);
        }
    }
    let kind = fields.text("kind", problems);
    if let Some(other) = kind.filter(|kind| !kind.is_empty() && *kind != KIND) {
        problems.error(fields.line_of("kind"), "kind", format!("got \"{other}\", expected \"{KIND}\""));
    }
}

fn plugin(node: &Node, path: String, is_json: bool, problems: &mut Problems) -> Option<PluginEntry> {
    let mut fields = Fields::of(node, &path, problems)?;
    let kind = fields.text("type", problems).filter(|kind| !kind.is_empty());
    let name = fields.text("name", problems).filter(|name| !name.is_empty());
    let parameters = fields.get("parameters").cloned();
    if kind.is_none() && fields.get("type").is_none_or(|node| node.as_text() == Some("")) {
        problems.error(fields.line(), fields.path("type"), "is required");
    }
    if let Some(parameters) = &parameters {
        repeated(parameters, &fields.path("parameters"), is_json, problems);
    }
    fields.finish(Level::Error, problems);
    let kind = kind?.to_owned();
    let name = name.map_or_else(|| kind.clone(), str::to_owned);
    Some(PluginEntry { name, kind, parameters, line: node.line, path })
}

/// Keys given twice below a plugin's parameters. The reference's YAML reader refuses them, its JSON reader takes the
/// last.
fn repeated(node: &Node, path: &str, is_json: bool, problems: &mut Problems) {
    match &node.value {
        NodeValue::List(list) => {
            for (index, element) in list.iter().enumerate() {
                repeated(element, &format!("{path}[{index}]"), is_json, problems);
            }
        }
        NodeValue::Map(map) => {
            for (index, (key, value)) in map.iter().enumerate() {
                let at = format!("{path}.{}", key.text);
                repeated(value, &at, is_json, problems);
                let Some((first, _)) = map[..index].iter().find(|(earlier, _)| earlier.text == key.text)
                else {
                    continue;
                };
                if is_json {
                    let message =
                        format!("is given twice (first in line {}); the last one counts", first.line);
                    problems.warning(key.line, at, message);
                } else {
                    problems.error(key.line, at, format!("is given twice; first in line {}", first.line));
                }
            }
        }
        _ => {}
    }
}

fn profile(node: &Node, path: String, problems: &mut Problems) -> Option<ProfileEntry> {
    let mut fields = Fields::of(node, &path, problems)?;
    let name = fields.text("name", problems).unwrap_or_default().to_owned();
    if name.is_empty() && fields.get("name").is_none_or(|node| node.as_text().is_some()) {
        problems.error(fields.line(), fields.path("name"), "is required");
    }
    let at = fields.path("plugins");
    let mut plugins = Vec::new();
    for (index, node) in fields.list("plugins", problems).iter().enumerate() {
        let Some(mut row) = Fields::of(node, &format!("{at}[{index}]"), problems) else { continue };
        let plugin = named(&mut row, problems);
        let weight = row.number("weight", problems).map(|weight| (weight, row.line_of("weight")));
        row.finish(Level::Error, problems);
        plugins.extend(plugin.map(|plugin| ProfileRef { plugin, weight }));
    }
    fields.finish(Level::Error, problems);
    Some(ProfileEntry { name, plugins, line: node.line, path })
}
