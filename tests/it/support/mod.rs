//! What tests run bearerd against: servers that can be told what to do, and a client that hides nothing.

pub mod admin;
pub mod bearerd;
pub mod client;
pub mod collector;
pub mod events;
pub mod frames;
pub mod http;
pub mod http2;
pub mod jwt;
pub mod process;
pub mod protocols;
pub mod server;
pub mod stage;
pub mod tls;
pub mod token_service;
pub mod upstream;
