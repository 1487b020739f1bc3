//! The items of a context, in runs that the contexts after it share: to keep one more response costs what is new in it, however long
//! its history is.
//!
//! Knows nothing of what an item is.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

/// Items in order, each its JSON as served. A copy is a pointer for each run.
#[derive(Clone, Default)]
pub struct Items(Vec<Arc<Vec<Bytes>>>);

impl Items {
    /// Of runs, one after the other.
    #[must_use]
    pub fn new(runs: Vec<Arc<Vec<Bytes>>>) -> Self {
        Self(runs)
    }

    pub(crate) fn runs(&self) -> &[Arc<Vec<Bytes>>] {
        &self.0
    }

    /// These, then those.
    #[must_use]
    pub fn and(mut self, items: Vec<Bytes>) -> Self {
        self.0.push(Arc::new(items));
        self
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.0.iter().map(|run| run.len()).sum()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Bytes> + Clone {
        self.0.iter().flat_map(|run| run.iter())
    }

    #[must_use]
    pub fn to_vec(&self) -> Vec<Bytes> {
        self.iter().cloned().collect()
    }
}

impl From<Vec<Bytes>> for Items {
    fn from(items: Vec<Bytes>) -> Self {
        Self(vec![Arc::new(items)])
    }
}

impl FromIterator<Bytes> for Items {
    fn from_iter<T: IntoIterator<Item = Bytes>>(items: T) -> Self {
        Self::from(items.into_iter().collect::<Vec<_>>())
    }
}

/// In whichever runs they are.
impl PartialEq for Items {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Items {}

impl fmt::Debug for Items {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Items({})", self.len())
    }
}
