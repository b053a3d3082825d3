//! A table of objects by namespace and name, with one secondary index.
//!
//! Reads hand out shared pointers, so a pass sees each object whole although watches go on writing. The
//! index answers "which objects name this?" without a scan, which keeps a pass independent of how many objects exist.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock};

use super::ObjectId;

type Index<T> = fn(&T) -> Vec<String>;

/// Objects of one kind.
pub struct Table<T> {
    index: Index<T>,
    rows: RwLock<Rows<T>>,
}

struct Rows<T> {
    by_id: BTreeMap<ObjectId, Arc<T>>,
    by_term: BTreeMap<String, BTreeSet<ObjectId>>,
}

impl<T> Table<T> {
    /// An empty table whose index holds what `index` returns for each object.
    pub fn new(index: Index<T>) -> Self {
        Self {
            index,
            rows: RwLock::new(Rows {
                by_id: BTreeMap::new(),
                by_term: BTreeMap::new(),
            }),
        }
    }

    /// Puts an object in; returns the one that was there.
    pub fn put(&self, id: ObjectId, object: Arc<T>) -> Option<Arc<T>> {
        let mut rows = self.rows.write().unwrap_or_else(PoisonError::into_inner);
        let old = rows.by_id.insert(id.clone(), Arc::clone(&object));
        if let Some(old) = &old {
            rows.forget(&id, (self.index)(old));
        }
        for term in (self.index)(&object) {
            rows.by_term.entry(term).or_default().insert(id.clone());
        }
        old
    }

    /// Takes an object out.
    pub fn remove(&self, id: &ObjectId) -> Option<Arc<T>> {
        let mut rows = self.rows.write().unwrap_or_else(PoisonError::into_inner);
        let old = rows.by_id.remove(id)?;
        rows.forget(id, (self.index)(&old));
        Some(old)
    }

    /// The object with this namespace (empty for cluster-scoped kinds) and name.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<T>> {
        self.by_id(&ObjectId::new(namespace, name))
    }

    /// The object with this id.
    pub fn by_id(&self, id: &ObjectId) -> Option<Arc<T>> {
        self.read(|rows| rows.by_id.get(id).cloned())
    }

    /// The objects of a namespace, by name.
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<T>> {
        let start = ObjectId::new(namespace, "");
        self.read(|rows| {
            rows.by_id
                .range((Bound::Included(start), Bound::Unbounded))
                .take_while(|(id, _)| id.namespace == namespace)
                .map(|(_, object)| Arc::clone(object))
                .collect()
        })
    }

    /// The objects whose index holds a term.
    pub fn with_term(&self, term: &str) -> Vec<Arc<T>> {
        self.read(|rows| {
            let ids = rows.by_term.get(term).into_iter().flatten();
            ids.filter_map(|id| rows.by_id.get(id).cloned()).collect()
        })
    }

    /// How many objects' index holds a term.
    pub fn count_term(&self, term: &str) -> usize {
        self.read(|rows| rows.by_term.get(term).map_or(0, BTreeSet::len))
    }

    /// All objects, by namespace and name.
    pub fn all(&self) -> Vec<Arc<T>> {
        self.read(|rows| rows.by_id.values().cloned().collect())
    }

    /// The ids of all objects.
    pub fn ids(&self) -> Vec<ObjectId> {
        self.read(|rows| rows.by_id.keys().cloned().collect())
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.read(|rows| rows.by_id.len())
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn read<R>(&self, f: impl FnOnce(&Rows<T>) -> R) -> R {
        f(&self.rows.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<T> Rows<T> {
    fn forget(&mut self, id: &ObjectId, terms: Vec<String>) {
        for term in terms {
            if let Some(ids) = self.by_term.get_mut(&term) {
                ids.remove(id);
                if ids.is_empty() {
                    self.by_term.remove(&term);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_follows_changes_and_removals() {
        let table = Table::new(|text: &String| vec![text.clone()]);
        let id = ObjectId::new("a", "x");
        table.put(id.clone(), Arc::new("one".to_owned()));
        table.put(id.clone(), Arc::new("two".to_owned()));
        assert_eq!(table.count_term("one"), 0);
        assert_eq!(table.count_term("two"), 1);
        table.remove(&id);
        assert_eq!(table.count_term("two"), 0);
        assert!(table.is_empty());
    }

    #[test]
    fn a_namespace_holds_only_its_own() {
        let table = Table::new(|_: &u8| Vec::new());
        for (namespace, name) in [("a", "z"), ("a-b", "x"), ("b", "a")] {
            table.put(ObjectId::new(namespace, name), Arc::new(0));
        }
        assert_eq!(table.in_namespace("a").len(), 1);
        assert_eq!(table.in_namespace("a-b").len(), 1);
    }
}
