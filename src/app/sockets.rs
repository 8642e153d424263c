//! The sockets that bearerd listens on, bound before anything starts.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};

use super::Error;
use crate::config::Config;

/// Every listening socket, bound before anything starts, so that a conflict is told at once.
pub struct Sockets {
    pub(super) callers: Vec<TcpListener>,
    pub(super) admin: TcpListener,
    pub(super) metrics: TcpListener,
    pub(super) issuers: BTreeMap<String, TcpListener>,
}

/// Where the sockets listen: the configured addresses, with port 0 replaced by what the system chose.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// In the order of `listeners`.
    pub callers: Vec<SocketAddr>,
    /// The admin listener.
    pub admin: SocketAddr,
    /// The metrics listener.
    pub metrics: SocketAddr,
}

impl Sockets {
    /// Binds every address of `config`.
    ///
    /// # Errors
    /// The first that cannot be bound, with its key.
    pub fn bind(config: &Config) -> Result<Self, Error> {
        let callers =
            config.listeners.iter().enumerate().map(|(place, listener)| bind(listener.address, || format!("listeners[{place}].address")));
        let issuers = config.embedded().filter_map(|(name, embedded)| embedded.address.map(|address| (name, address)));
        Ok(Self {
            callers: callers.collect::<Result<_, _>>()?,
            admin: bind(config.admin.address, || "admin.address".to_owned())?,
            metrics: bind(config.metrics.address, || "metrics.address".to_owned())?,
            issuers: issuers
                .map(|(name, address)| Ok((name.to_owned(), bind(address, || format!("token_services.{name}.address"))?)))
                .collect::<Result<_, Error>>()?,
        })
    }

    /// Where they listen.
    ///
    /// # Errors
    /// When the system cannot tell.
    pub fn addresses(&self) -> Result<Addresses, Error> {
        Ok(Addresses {
            callers: self.callers.iter().map(TcpListener::local_addr).collect::<Result<_, _>>()?,
            admin: self.admin.local_addr()?,
            metrics: self.metrics.local_addr()?,
        })
    }
}

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;

/// Binds one address. `SO_REUSEADDR`: connections of a process that has just ended do not keep the next from starting.
///
/// # Errors
/// [`Error::Bind`], with the key that `key` names.
pub fn bind(address: SocketAddr, key: impl FnOnce() -> String) -> Result<TcpListener, Error> {
    let bound = || {
        let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    bound().map_err(|cause| Error::Bind { address, key: key(), cause })
}
