//! Objects of the cluster that a source watches for plugins.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::{Value, json};

/// A kind of objects.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ObjectKind {
    /// API group; empty for the core group.
    pub group: String,
    /// API version.
    pub version: String,
    /// Kind.
    pub kind: String,
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { group, version, kind } = self;
        let gap = if group.is_empty() { "" } else { "/" };
        write!(f, "{kind} of {group}{gap}{version}")
    }
}

/// A watch of all objects of one kind, and what it found so far.
#[derive(Debug)]
pub struct ObjectSource {
    /// Instance name of the source.
    pub name: String,
    /// The kind.
    pub kind: ObjectKind,
    live: AtomicBool,
    objects: AtomicU64,
    changes: AtomicU64,
}

impl ObjectSource {
    /// A source of this name that has seen nothing yet.
    pub fn new(name: &str, kind: ObjectKind) -> Self {
        let (live, objects, changes) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
        Self { name: name.to_owned(), kind, live, objects, changes }
    }

    /// Whether the watch is live, and how many objects it knows.
    pub fn found(&self, live: bool, objects: usize) {
        self.live.store(live, Ordering::Relaxed);
        self.objects.store(objects as u64, Ordering::Relaxed);
    }

    /// An object came, changed or went.
    pub fn changed(&self) {
        self.changes.fetch_add(1, Ordering::Relaxed);
    }

    /// The state of the watch, for people.
    pub fn state(&self) -> Value {
        json!({
            "watches": self.kind.to_string(),
            "live": self.live.load(Ordering::Relaxed),
            "objects": self.objects.load(Ordering::Relaxed),
            "changes": self.changes.load(Ordering::Relaxed),
        })
    }
}

/// An object as the API writes it.
#[derive(Clone, Copy, Debug)]
pub struct ObjectView<'a> {
    /// Its name, unique among those that the source watches.
    pub name: &'a str,
    /// Everything but its type and its metadata, such as `spec` and `status`.
    pub content: &'a Value,
}

/// A plugin that hears of objects. Calls come one after the other, and must be short.
pub trait ObjectListener: Send + Sync {
    /// The kind that it listens to; a source of another kind cannot list it.
    fn listens_to(&self) -> ObjectKind;

    /// An object is new or has changed. It may come again unchanged.
    fn applied(&self, object: ObjectView<'_>);

    /// The object of this name is gone.
    fn removed(&self, name: &str);

    /// All objects there are have been told; those that `known` denies are gone.
    fn listed(&self, known: &dyn Fn(&str) -> bool);
}

/// A source, and the plugins that listen to it.
#[derive(Clone)]
pub struct ObjectReading {
    /// The source.
    pub source: Arc<ObjectSource>,
    /// The plugins, in the order of the configuration.
    pub listeners: Vec<Arc<dyn ObjectListener>>,
}

impl fmt::Debug for ObjectReading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectReading").field("source", &self.source).finish_non_exhaustive()
    }
}
