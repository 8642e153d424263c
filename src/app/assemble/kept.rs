//! Parts that look after themselves in the background for as long as a configuration wants them.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio_util::task::AbortOnDropHandle;

/// A part, and the task that keeps it up to date: it ends with the last configuration that has the part.
pub(in crate::app) struct Kept<T> {
    pub(in crate::app) part: Arc<T>,
    _task: Option<Arc<AbortOnDropHandle<()>>>,
}

impl<T> Kept<T> {
    pub(in crate::app) fn new(part: &Arc<T>, runtime: &Handle, keep: impl Future<Output = ()> + Send + 'static) -> Self {
        Self { part: Arc::clone(part), _task: Some(Arc::new(AbortOnDropHandle::new(runtime.spawn(keep)))) }
    }

    /// A part that needs no looking after.
    pub(in crate::app) fn at_rest(part: &Arc<T>) -> Self {
        Self { part: Arc::clone(part), _task: None }
    }
}

impl<T> Clone for Kept<T> {
    fn clone(&self) -> Self {
        Self { part: Arc::clone(&self.part), _task: self._task.clone() }
    }
}

/// Parts by what they are made from, each made once, however many use it and however often the configuration is loaded.
pub(in crate::app) struct Shelf<K, T> {
    wanted: BTreeMap<K, Kept<T>>,
    /// Those of the configuration before that nobody has asked for yet.
    former: BTreeMap<K, Kept<T>>,
}

impl<K: Clone + Ord, T> Shelf<K, T> {
    pub(in crate::app) fn after(former: Option<&Self>) -> Self {
        Self { wanted: BTreeMap::new(), former: former.map(|former| former.wanted.clone()).unwrap_or_default() }
    }

    /// The part that is there, or the one that `make` makes.
    pub(in crate::app) fn of<E>(&mut self, key: K, make: impl FnOnce(&K) -> Result<Kept<T>, E>) -> Result<Arc<T>, E> {
        let kept = match self.wanted.get(&key).or_else(|| self.former.get(&key)) {
            Some(kept) => kept.clone(),
            None => make(&key)?,
        };
        self.wanted.insert(key, kept.clone());
        Ok(kept.part)
    }

    /// Goes on with a part of the configuration before, where it had one.
    pub(in crate::app) fn go_on(&mut self, key: &K) {
        self.wanted.extend(self.former.get_key_value(key).map(|(key, kept)| (key.clone(), kept.clone())));
    }

    /// Everybody has asked by now: what nobody wants ends with the configuration before.
    pub(in crate::app) fn settle(&mut self) {
        self.former.clear();
    }
}

impl<K, T> Default for Shelf<K, T> {
    fn default() -> Self {
        Self { wanted: BTreeMap::new(), former: BTreeMap::new() }
    }
}
