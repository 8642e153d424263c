//! TLS on both sides: certificates and keys read from files, checked before they are used, and read again when they change.

pub mod client;
pub mod client_certificate;
pub mod expiry;
pub mod files;
pub mod server;
