//! Scheduling profiles: references, defaults, weights.

use std::sync::Arc;

use super::instance::Instance;
use super::instances::{InstanceId, Instances};
use super::reference::Reference;
use super::resolver::Resolver;
use super::schema::ProfileEntry;
use crate::document::Problems;
use crate::metrics::{ExtensionPoint, Metrics};
use crate::plugins::profiles::{by_header, disagg, disagg_headers, pd, single};
use crate::scheduling::{Profile, ProfileFault, Scheduler, WeightedScorer};

const DEFAULT_PICKER: &str = crate::plugins::pickers::max_score::TYPE.name;
const DEFAULT_HANDLER: &str = single::TYPE.name;

/// Profiles with everything resolved to instances.
#[derive(Debug)]
pub(super) struct ResolvedProfiles {
    handler: InstanceId,
    profiles: Vec<Resolved>,
}

#[derive(Debug)]
struct Resolved {
    name: String,
    line: u32,
    path: String,
    filters: Vec<InstanceId>,
    scorers: Vec<(InstanceId, f64)>,
    picker: Option<InstanceId>,
    /// A row of it is at fault, so nothing follows from what it lacks.
    incomplete: bool,
}

impl Resolver<'_> {
    /// Resolves `schedulingProfiles`; what is missing is filled in. `None` if no handler could be found, which has been
    /// said.
    pub(super) fn profiles(&mut self, entries: &[ProfileEntry]) -> Option<ResolvedProfiles> {
        let mut profiles: Vec<Resolved> = Vec::new();
        for entry in entries {
            if let Some(first) =
                profiles.iter().find(|profile| profile.name == entry.name && !entry.name.is_empty())
            {
                let message =
                    format!("the name \"{}\" is taken by the profile in line {}", entry.name, first.line);
                self.problems.error(entry.line, format!("{}.name", entry.path), message);
            }
            profiles.push(self.listed(entry));
        }
        if entries.is_empty() {
            profiles.push(self.of_everything());
        }
        self.default_pickers(&mut profiles);
        for profile in profiles.iter().filter(|profile| profile.scorers.is_empty() && !profile.incomplete) {
            let message = format!("profile \"{}\" has no scorer: all endpoints count the same", profile.name);
            self.problems.note(profile.line, &profile.path, message);
        }
        let handler = self.handler(&profiles)?;
        Some(ResolvedProfiles { handler, profiles })
    }

    /// The one profile that holds when none is listed.
    fn of_everything(&mut self) -> Resolved {
        let mut profile = Resolved::new("default", 0, "");
        for index in self.instances.which(Instance::schedules) {
            profile.add(index, None, None, self);
        }
        self.problems.note(
            0,
            "",
            "no profile is listed: one named \"default\" uses every filter, scorer and picker",
        );
        profile
    }

    fn listed(&mut self, entry: &ProfileEntry) -> Resolved {
        let mut profile = Resolved::new(&entry.name, entry.line, &entry.path);
        for row in &entry.plugins {
            let Some(index) = self.named(&row.plugin) else {
                profile.incomplete = true;
                continue;
            };
            let instance = &self.instances[index];
            if !instance.broken && instance.missing.is_none() && !instance.schedules() {
                let message =
                    format!("\"{}\" has no effect in a profile: {}", row.plugin.name, instance.abilities());
                self.problems.warning(row.plugin.line, &row.plugin.path, message);
            }
            profile.add(index, Some(&row.plugin), row.weight, self);
        }
        let sum: f64 = profile.scorers.iter().map(|(_, weight)| weight.abs()).sum();
        if !sum.is_finite() {
            let message = format!(
                "the weights of profile \"{}\" have no finite sum; expected weights near 1",
                profile.name
            );
            self.problems.error(profile.line, &profile.path, message);
        }
        profile
    }

    /// Each profile without a picker gets the first one there is, else the default one.
    fn default_pickers(&mut self, profiles: &mut [Resolved]) {
        if profiles.iter().all(|profile| profile.picker.is_some()) {
            return;
        }
        let pickers = self.instances.which(|instance| instance.roles.picker.is_some());
        let picker = match pickers.as_slice() {
            [] => {
                for profile in profiles.iter().filter(|profile| profile.picker.is_none() && profile.line > 0)
                {
                    let message =
                        format!("profile \"{}\" names no picker; it uses \"{DEFAULT_PICKER}\"", profile.name);
                    self.problems.note(profile.line, &profile.path, message);
                    self.problems.mend(format!(
                        "`- type: {DEFAULT_PICKER}` in `plugins`, and `- pluginRef: {DEFAULT_PICKER}` in the profile"
                    ));
                }
                self.ensure(DEFAULT_PICKER, "a profile names no picker")
            }
            [first, rest @ ..] => {
                let name = Arc::clone(&self.instances[*first].name);
                for profile in profiles.iter().filter(|profile| profile.picker.is_none()) {
                    let several = if rest.is_empty() { "" } else { ", the first of several" };
                    let message =
                        format!("profile \"{}\" names no picker; it uses \"{name}\"{several}", profile.name);
                    if rest.is_empty() {
                        self.problems.note(profile.line, &profile.path, message);
                    } else {
                        self.problems.warning(profile.line, &profile.path, message);
                    }
                    self.problems.mend(format!("`- pluginRef: {name}` in the profile"));
                }
                Some(*first)
            }
        };
        let Some(picker) = picker else { return };
        self.instances.mark_used(picker);
        for profile in profiles.iter_mut().filter(|profile| profile.picker.is_none()) {
            profile.picker = Some(picker);
        }
    }

    /// The one profile handler.
    fn handler(&mut self, profiles: &[Resolved]) -> Option<InstanceId> {
        let handlers = self.instances.which(|instance| instance.roles.profile_handler.is_some());
        let index = match handlers.as_slice() {
            // A handler that failed to be built may have been meant.
            [] if profiles.len() > 1 && self.instances.iter().any(|instance| instance.broken) => return None,
            [] if profiles.len() > 1 => {
                let message =
                    format!("{} profiles need a profile handler plugin, and there is none", profiles.len());
                self.problems.error(profiles[1].line, "schedulingProfiles", message);
                let stages = profiles.iter().any(|profile| ["prefill", "decode"].contains(&&*profile.name));
                let handler = if stages { disagg::TYPE.name } else { by_header::TYPE.name };
                self.problems.mend(format!("`- type: {handler}` in `plugins`"));
                return None;
            }
            [] => self.ensure(DEFAULT_HANDLER, "there is one profile and no profile handler")?,
            [one] => *one,
            [first, others @ ..] => {
                let first = Arc::clone(&self.instances[*first].name);
                for other in others {
                    let other = &self.instances[*other];
                    let message = format!(
                        "\"{}\" is a second profile handler beside \"{first}\"; there is one",
                        other.name
                    );
                    self.problems.error(other.line, &other.path, message);
                }
                return None;
            }
        };
        self.instances.mark_used(index);
        let handler = &self.instances[index];
        if handler.kind == DEFAULT_HANDLER && profiles.len() > 1 {
            let message = format!("\"{}\" runs one profile, and there are {}", handler.name, profiles.len());
            self.problems.error(handler.line, &handler.path, message);
        }
        review(handler, profiles, &mut self.problems);
        let writes = |instance: &Instance| instance.reports_as == disagg_headers::TYPE.reports_as;
        if handler.kind == pd::TYPE.name && !self.instances.iter().any(writes) {
            let message = format!(
                "no plugin writes the prefill server that \"{}\" chooses into a header; add `- type: {}`, or use `{}`",
                handler.name,
                disagg_headers::TYPE.name,
                disagg::TYPE.name
            );
            self.problems.warning(handler.line, &handler.path, message);
        }
        Some(index)
    }
}

impl Resolved {
    fn new(name: &str, line: u32, path: &str) -> Self {
        let (filters, scorers) = (Vec::new(), Vec::new());
        Self {
            name: name.to_owned(),
            line,
            path: path.to_owned(),
            filters,
            scorers,
            picker: None,
            incomplete: false,
        }
    }

    /// Puts the instance into each slot it fits.
    fn add(
        &mut self,
        index: InstanceId,
        reference: Option<&Reference>,
        weight: Option<(f64, u32)>,
        resolver: &mut Resolver<'_>,
    ) {
        let Resolver { instances, problems, .. } = resolver;
        let instance = &instances[index];
        let name = Arc::clone(&instance.name);
        let (line, path) = match reference {
            Some(reference) => (reference.line, reference.path.clone()),
            None => (instance.line, instance.path.clone()),
        };
        let roles = &instance.roles;
        let (filters, scores, picks) =
            (roles.filter.is_some(), roles.scorer.is_some(), roles.picker.is_some());
        let broken = instance.broken || instance.missing.is_some();
        self.incomplete |= broken;
        if filters {
            self.filters.push(index);
        }
        if scores {
            check_weight(&name, weight, &path, problems);
            if self.scorers.iter().any(|(earlier, _)| *earlier == index) {
                problems.warning(line, &path, format!("\"{name}\" is listed twice: its weights add up"));
            }
            self.scorers.push((index, weight.map_or(1.0, |(weight, _)| weight)));
        } else if let Some((_, line)) = weight
            && !broken
        {
            let message = format!("has no effect: \"{name}\" is no scorer");
            problems.warning(line, weight_path(&path), message);
        }
        if picks {
            match self.picker {
                None => self.picker = Some(index),
                Some(first) => {
                    let first = &instances[first].name;
                    let message =
                        format!("\"{name}\" is a second picker beside \"{first}\"; a profile has one");
                    problems.error(line, &path, message);
                }
            }
        }
        instances.mark_used(index);
    }
}

fn check_weight(name: &str, weight: Option<(f64, u32)>, path: &str, problems: &mut Problems) {
    let Some((weight, line)) = weight else { return };
    if weight == 0.0 {
        problems.warning(line, weight_path(path), format!("is 0: \"{name}\" has no influence"));
    } else if weight < 0.0 {
        let message =
            format!("is {weight}: below 0 makes \"{name}\" a penalty, and the endpoints it likes least win");
        problems.warning(line, weight_path(path), message);
    }
}

/// From the path of a `pluginRef` to that of the weight beside it.
fn weight_path(path: &str) -> String {
    path.strip_suffix("pluginRef").map_or_else(|| path.to_owned(), |row| format!("{row}weight"))
}

/// Reports the faults that the handler finds in the profiles.
fn review(handler: &Instance, profiles: &[Resolved], problems: &mut Problems) {
    let names: Vec<Arc<str>> = profiles.iter().map(|profile| profile.name.as_str().into()).collect();
    let faults = handler.roles.profile_handler.as_ref().map(|plugin| plugin.review(&names));
    for fault in faults.unwrap_or_default() {
        match fault {
            ProfileFault::Fatal(text) => {
                problems.error(handler.line, &handler.path, format!("\"{}\" {text}", handler.name));
            }
            ProfileFault::Idle(text, mend) => {
                problems.warning(handler.line, &handler.path, format!("\"{}\" {text}", handler.name));
                problems.mend(mend);
            }
        }
    }
}

impl ResolvedProfiles {
    /// The scheduler. `None` if something is missing, which has been said.
    pub(super) fn build(self, instances: &Instances, metrics: &Metrics) -> Option<Scheduler> {
        let mut profiles = Vec::with_capacity(self.profiles.len());
        for profile in self.profiles {
            let filters = profile.filters.iter();
            let scorers = profile.scorers.iter();
            profiles.push(Profile {
                name: profile.name.into(),
                filters: filters
                    .filter_map(|index| instances[*index].slot(metrics, |roles| roles.filter.clone()))
                    .collect(),
                scorers: scorers
                    .filter_map(|(index, weight)| {
                        let scorer = instances[*index].slot(metrics, |roles| roles.scorer.clone())?;
                        Some(WeightedScorer { scorer, weight: *weight })
                    })
                    .collect(),
                picker: instances[profile.picker?].slot(metrics, |roles| roles.picker.clone())?,
            });
        }
        let handler = &instances[self.handler];
        let conclude =
            metrics.plugin_timer(ExtensionPoint::ProcessProfilesResults, handler.reports_as, &handler.name);
        let handler = handler.slot(metrics, |roles| roles.profile_handler.clone())?;
        Some(Scheduler::new(profiles, handler, Some(Arc::new(conclude))))
    }
}
