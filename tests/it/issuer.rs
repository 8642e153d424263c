//! The embedded token service: over HTTP on a port of its own, in process, and as commands.

mod commands;
mod credentials;
mod hostile;
mod in_process;
mod lifetimes;
mod operation;
mod rotation;
mod served;
mod statuses;
mod tokens;
