//! Typed per-candidate data that producers write and scorers read: a table, not a map of strings.

use std::any::Any;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

/// Handle of a column of `T`, handed out at configuration time.
pub struct Column<T> {
    index: u16,
    kind: PhantomData<fn() -> T>,
}

impl<T> Column<T> {
    /// The column with this index. Indexes are handed out by the configuration resolver, one per (type, producer).
    pub fn new(index: u16) -> Self {
        Self { index, kind: PhantomData }
    }

    /// Index in the table.
    pub fn index(self) -> u16 {
        self.index
    }
}

impl<T> Clone for Column<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Column<T> {}

impl<T> fmt::Debug for Column<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Column({})", self.index)
    }
}

/// One column's cells on their way from a producer into the table.
pub struct Produced {
    index: u16,
    cells: Arc<dyn Any + Send + Sync>,
}

impl fmt::Debug for Produced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Produced({})", self.index)
    }
}

impl Produced {
    /// One cell per candidate, in slot order; or one cell in all for a fact about the request.
    pub fn new<T: Send + Sync + 'static>(column: Column<T>, cells: Vec<T>) -> Self {
        Self { index: column.index, cells: Arc::new(cells) }
    }
}

/// The columns of one request. A column whose producer did not run is absent.
#[derive(Clone, Default)]
pub struct Columns {
    cells: Vec<Option<Arc<dyn Any + Send + Sync>>>,
}

impl fmt::Debug for Columns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Columns({})", self.cells.iter().flatten().count())
    }
}

impl Columns {
    /// A table without cells.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a column in, replacing an earlier one.
    pub fn insert(&mut self, produced: Produced) {
        let index = usize::from(produced.index);
        if self.cells.len() <= index {
            self.cells.resize_with(index + 1, || None);
        }
        self.cells[index] = Some(produced.cells);
    }

    /// A column's cells, one per candidate slot.
    pub fn slice<T: 'static>(&self, column: Column<T>) -> Option<&[T]> {
        self.cells.get(usize::from(column.index))?.as_ref()?.downcast_ref::<Vec<T>>().map(Vec::as_slice)
    }
}
