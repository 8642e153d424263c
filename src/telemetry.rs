//! What bearerd tells about itself: logs and metrics. A leaf: everything may use it, it uses nothing of the request path.

pub mod logs;
pub mod metrics;
