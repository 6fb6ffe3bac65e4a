//! All plugin instances of a configuration.

use std::any::TypeId;
use std::collections::HashMap;
use std::ops::Index;
use std::sync::Arc;

use super::instance::Instance;
use crate::plugins::ColumnKey;
use crate::scheduling::Column;

/// Which of the [`Instances`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct InstanceId(usize);

/// All plugin instances: the listed ones in document order, then those added.
#[derive(Debug, Default)]
pub(super) struct Instances {
    list: Vec<Instance>,
    by_name: HashMap<Arc<str>, InstanceId>,
    /// All columns that plugins write or read.
    pub(super) columns: Vec<ColumnKey>,
}

impl Instances {
    pub(super) fn iter(&self) -> impl Iterator<Item = &Instance> {
        self.list.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Instance> {
        self.list.iter_mut()
    }

    /// The instances that `fit`, in order.
    pub(super) fn which(&self, fit: impl Fn(&Instance) -> bool) -> Vec<InstanceId> {
        let all = self.list.iter().enumerate();
        all.filter(|(_, instance)| fit(instance)).map(|(index, _)| InstanceId(index)).collect()
    }

    /// The instance of this name.
    pub(super) fn find(&self, name: &str) -> Option<InstanceId> {
        self.by_name.get(name).copied()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.list.iter().map(|instance| &*instance.name)
    }

    /// The column of `T` that the instance `producer` writes, if there is one.
    pub(super) fn column<T: 'static>(&self, producer: &str) -> Option<Column<T>> {
        let written = |key: &ColumnKey| key.data == TypeId::of::<T>() && key.producer == producer;
        let exists = self.list.iter().any(|instance| instance.produced.iter().any(written));
        let index = self.columns.iter().position(written).filter(|_| exists)?;
        Some(Column::new(index as u16))
    }

    /// The column of `T` that the first instance writes which writes one.
    pub(super) fn any_column<T: 'static>(&self) -> Option<Column<T>> {
        let written = self.list.iter().flat_map(|instance| &instance.produced);
        let key = written.into_iter().find(|key| key.data == TypeId::of::<T>())?;
        let index = self.columns.iter().position(|column| column == key)?;
        Some(Column::new(index as u16))
    }

    /// Something refers to the instance in a role it has.
    pub(super) fn mark_used(&mut self, id: InstanceId) {
        if let Some(instance) = self.list.get_mut(id.0) {
            instance.used = true;
        }
    }

    pub(super) fn push(&mut self, instance: Instance) -> InstanceId {
        let id = InstanceId(self.list.len());
        self.by_name.insert(Arc::clone(&instance.name), id);
        self.list.push(instance);
        id
    }
}

impl Index<InstanceId> for Instances {
    type Output = Instance;

    fn index(&self, id: InstanceId) -> &Instance {
        &self.list[id.0]
    }
}
