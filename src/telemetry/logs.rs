//! Logs: placeholder.
