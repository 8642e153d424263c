//! What bearerd tells about itself: logs, metrics and traces. A leaf: everything may use it, it uses nothing of the request path.

pub mod logs;
pub mod metrics;
pub mod traces;
