//! What bearerd needs to call servers itself, token services and key sets: connections, trust, and what a failure means.

pub mod connect;
pub mod failure;
