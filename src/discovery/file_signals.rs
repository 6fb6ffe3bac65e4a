//! Reads the events of the endpoints file's folder: the file is whole, it may have changed, or somebody is writing it.

use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{Event, EventKind, RecursiveMode, Watcher};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// The link that a mounted ConfigMap's files go through.
const CONFIG_MAP_LINK: &str = "..data";

/// A writer that has neither written nor closed the file for this long is not waited for.
const WRITER_PATIENCE: Duration = Duration::from_secs(30);

/// An event of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signal {
    /// A writer closed the file, or another file took its place.
    Whole,
    /// Something changed, perhaps not for the last time.
    Maybe,
    /// Somebody is writing the file.
    Writing,
}

/// Events since they were asked for.
#[derive(Debug, Default)]
struct Pending {
    whole: bool,
    maybe: bool,
    /// Time of the last write by somebody who has not closed the file yet.
    written: Option<Instant>,
}

/// The events of one file, from the watcher to whoever reads the file.
#[derive(Debug)]
pub(super) struct Signals {
    path: PathBuf,
    pending: Mutex<Pending>,
    wake: Notify,
}

/// The way in which a change was announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Announced {
    /// The file is whole.
    Whole,
    /// The file may not be whole. It has to look the same twice.
    Maybe,
}

impl Signals {
    pub(super) fn new(path: &Path) -> Arc<Self> {
        Arc::new(Self { path: path.to_owned(), pending: Mutex::default(), wake: Notify::new() })
    }

    /// Watches the folder of the file. `None` if that cannot be; the content is looked at all the same.
    pub(super) fn watch(self: &Arc<Self>) -> Option<notify::RecommendedWatcher> {
        let folder = match self.path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        let signals = Arc::clone(self);
        let watcher = notify::recommended_watcher(move |event| signals.take(&event, Instant::now()))
            .and_then(|mut watcher| watcher.watch(&folder, RecursiveMode::NonRecursive).map(|()| watcher));
        watcher
            .map_err(|error| {
                tracing::warn!(folder = %folder.display(), %error, "folder cannot be watched, changes are found by looking");
            })
            .ok()
    }

    /// Resolves when the file changed and nobody is writing it.
    pub(super) async fn announced(&self) -> Announced {
        loop {
            let woken = self.wake.notified();
            if let Some(announced) = self.pending.lock().announced() {
                return announced;
            }
            woken.await;
        }
    }

    /// True while somebody writes the file.
    pub(super) fn is_being_written(&self, now: Instant) -> bool {
        let written = self.pending.lock().written;
        written.is_some_and(|at| now.saturating_duration_since(at) < WRITER_PATIENCE)
    }

    fn take(&self, event: &notify::Result<Event>, now: Instant) {
        let Some(signal) = self.signal(event) else { return };
        let mut pending = self.pending.lock();
        match signal {
            Signal::Whole => (pending.whole, pending.written) = (true, None),
            Signal::Maybe => pending.maybe = true,
            Signal::Writing => {
                pending.written = Some(now);
                return;
            }
        }
        drop(pending);
        self.wake.notify_one();
    }

    /// The meaning of an event for the file; `None` if the event is about other files.
    fn signal(&self, event: &notify::Result<Event>) -> Option<Signal> {
        // An error, and an event that stands for lost ones, may hide a change.
        let Some(event) = event.as_ref().ok().filter(|event| !event.need_rescan()) else {
            return Some(Signal::Maybe);
        };
        // Reading the file makes events too.
        let signal = match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write))
            | EventKind::Modify(ModifyKind::Name(_))
            | EventKind::Remove(_) => Signal::Whole,
            EventKind::Access(_) => return None,
            EventKind::Modify(ModifyKind::Data(_)) => Signal::Writing,
            _ => Signal::Maybe,
        };
        event.paths.iter().any(|path| self.concerns(path)).then_some(signal)
    }

    /// True for the file, and for the links beside it that lead to its content.
    fn concerns(&self, path: &Path) -> bool {
        let Some(name) = path.file_name() else { return false };
        self.path.file_name() == Some(name)
            || name == CONFIG_MAP_LINK
            || self.leads_through().as_deref() == Some(name)
    }

    /// Name beside the file that its link leads through, if it is a link to somewhere in its folder.
    fn leads_through(&self) -> Option<OsString> {
        let target = std::fs::read_link(&self.path).ok()?;
        match target.components().find(|component| *component != Component::CurDir)? {
            Component::Normal(first) => Some(OsStr::to_owned(first)),
            _ => None,
        }
    }
}

impl Pending {
    fn announced(&mut self) -> Option<Announced> {
        let (whole, maybe) = (std::mem::take(&mut self.whole), std::mem::take(&mut self.maybe));
        match (whole, maybe) {
            (true, _) => Some(Announced::Whole),
            (false, true) => Some(Announced::Maybe),
            (false, false) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use notify::event::{CreateKind, DataChange, MetadataKind, RemoveKind, RenameMode};

    use super::*;

    fn event(kind: EventKind, path: &str) -> Event {
        Event::new(kind).add_path(PathBuf::from("/folder").join(path))
    }

    #[test]
    fn events_of_other_files_say_nothing_and_those_of_the_file_what_they_are() {
        let signals = Signals::new(Path::new("/folder/endpoints.yaml"));
        let close = EventKind::Access(AccessKind::Close(AccessMode::Write));
        let rename = EventKind::Modify(ModifyKind::Name(RenameMode::To));
        let write = EventKind::Modify(ModifyKind::Data(DataChange::Any));
        let chmod = EventKind::Modify(ModifyKind::Metadata(MetadataKind::Any));
        let read = EventKind::Access(AccessKind::Close(AccessMode::Read));
        let cases = [
            (close, Some(Signal::Whole)),
            (rename, Some(Signal::Whole)),
            (EventKind::Remove(RemoveKind::File), Some(Signal::Whole)),
            (EventKind::Create(CreateKind::File), Some(Signal::Maybe)),
            (chmod, Some(Signal::Maybe)),
            (write, Some(Signal::Writing)),
            (read, None),
        ];
        for (kind, expected) in cases {
            assert_eq!(signals.signal(&Ok(event(kind, "endpoints.yaml"))), expected, "{kind:?}");
            assert_eq!(signals.signal(&Ok(event(kind, "other.yaml"))), None, "{kind:?}");
        }
        assert_eq!(signals.signal(&Ok(event(rename, "..data"))), Some(Signal::Whole));
        assert_eq!(signals.signal(&Err(notify::Error::generic("lost"))), Some(Signal::Maybe));
    }

    #[test]
    fn a_file_is_being_written_until_it_is_closed_or_its_writer_has_gone_silent() {
        let signals = Signals::new(Path::new("/folder/endpoints.yaml"));
        let start = Instant::now();
        let write = event(EventKind::Modify(ModifyKind::Data(DataChange::Any)), "endpoints.yaml");
        signals.take(&Ok(write), start);
        assert!(signals.is_being_written(start + Duration::from_secs(29)));
        assert!(!signals.is_being_written(start + WRITER_PATIENCE));
        assert_eq!(signals.pending.lock().announced(), None);
        signals.take(
            &Ok(event(EventKind::Access(AccessKind::Close(AccessMode::Write)), "endpoints.yaml")),
            start,
        );
        assert!(!signals.is_being_written(start));
        assert_eq!(signals.pending.lock().announced(), Some(Announced::Whole));
        assert_eq!(signals.pending.lock().announced(), None);
    }
}
