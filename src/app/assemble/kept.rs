//! Parts that look after themselves in the background for as long as a configuration wants them.

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
