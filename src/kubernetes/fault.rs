//! Why bearerd cannot be put into a pod.

use super::edit::Path;

/// A mistake in one object: in which, where, what is wrong, what to do.
#[derive(Debug, thiserror::Error)]
#[error("{object}: `{at}`: {fault}")]
pub struct Error {
    /// The object's kind and name.
    pub object: String,
    /// Where in it.
    pub at: Path,
    /// What is wrong.
    pub fault: Fault,
}

/// What is wrong.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// An annotation under bearerd's name that it does not know.
    #[error("there is no such annotation, {help}")]
    Unknown {
        /// What may have been meant.
        help: String,
    },
    /// An annotation's value that is no text, or not of its form.
    #[error("{found} does not fit: {expected}")]
    Value {
        /// The value, as messages show it.
        found: String,
        /// What would.
        expected: String,
    },
    /// Annotations that ask for nothing: a pod that is left open by a slip is found late.
    #[error("it has no effect without `bearerd.dev/inject`: add `bearerd.dev/inject: \"true\"`, or \"false\" to leave this pod alone")]
    Pointless,
    /// An annotation of the workload itself, where its pods do not have it.
    #[error("annotations of a pod stand in `{place}`: move it there")]
    Misplaced {
        /// Where.
        place: Path,
    },
    /// It cannot be done without this annotation.
    #[error("`{annotation}` is missing: {help}")]
    Missing {
        /// The annotation.
        annotation: &'static str,
        /// What it is for.
        help: &'static str,
    },
    /// An annotation that another one makes meaningless.
    #[error("it goes with no {with}: {help}")]
    Unfit {
        /// What it stands beside.
        with: &'static str,
        /// What to do.
        help: &'static str,
    },
    /// Something of the pod already has what the sidecar needs.
    #[error("{what} is taken: {help}")]
    Taken {
        /// What the sidecar needs.
        what: String,
        /// What to do.
        help: String,
    },
    /// Loopback is not the pod's own.
    #[error(
        "all processes of the node would reach what bearerd has on loopback, and act with its key: bearerd goes only into pods with a network of their own"
    )]
    Shared,
    /// It says that it was injected, and was not.
    #[error("it is there, and no container named `bearerd` is: remove the annotation, and bearerd is put in")]
    Untrue,
    /// The pod is not described as Kubernetes would.
    #[error("{0}")]
    Malformed(&'static str),
}
