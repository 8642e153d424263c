//! What a caller has taken, by what the system knows: that a socket can be written to again says little, since a third of its buffer, which may have
//! megabytes, has to be free for it. And whether what was written is still on its way: closed before it has come, a connection is reset by whatever its
//! caller sends, and the rest is lost.

use std::sync::Arc;
use std::time::Duration;

use pingora::protocols::SocketDigest;

/// The time between two looks.
pub(super) const LOOK: Duration = Duration::from_secs(1);
/// Looks in a row at which nothing more has come, before the caller is given up.
const IN_VAIN: u16 = 5;
/// Looks in all, however little comes at each.
const LOOKS: u16 = 600;

/// What the system has not handed over.
pub(super) struct Arrival {
    socket: Arc<SocketDigest>,
    /// Bytes that had come at the last look.
    come: u64,
    /// Looks since then at which no more had.
    in_vain: u16,
    looks: u16,
}

/// Bytes that the other side has acknowledged; none where the system does not tell, as Linux before 6.2 does not tell pingora, which wants to know more.
pub(super) fn acknowledged(socket: &SocketDigest) -> Option<u64> {
    Some(socket.tcp_info()?.tcpi_bytes_acked)
}

impl Arrival {
    pub(super) fn over(socket: Arc<SocketDigest>) -> Self {
        Self { socket, come: 0, in_vain: 0, looks: 0 }
    }

    /// Looks again, and tells whether it is to be waited for: there is something on its way, and of late some has come.
    pub(super) fn goes_on(&mut self) -> bool {
        let Some(system) = self.socket.tcp_info() else { return false };
        self.saw(u64::from(system.tcpi_unacked) + u64::from(system.tcpi_notsent_bytes), system.tcpi_bytes_acked)
    }

    fn saw(&mut self, on_its_way: u64, come: u64) -> bool {
        self.in_vain = if come > self.come { 0 } else { self.in_vain + 1 };
        self.come = come;
        self.looks += 1;
        on_its_way > 0 && self.in_vain < IN_VAIN && self.looks < LOOKS
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    fn arrival() -> Arrival {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        Arrival::over(Arc::new(SocketDigest::from_raw_fd(socket.as_raw_fd())))
    }

    #[test]
    fn what_has_come_is_not_waited_for() {
        assert!(!arrival().saw(0, 100));
    }

    #[test]
    fn a_caller_is_given_up_when_nothing_comes_for_five_looks() {
        let mut arrival = arrival();
        assert!(arrival.saw(1000, 100));
        for _ in 0..4 {
            assert!(arrival.saw(1000, 100));
        }
        assert!(arrival.saw(900, 101), "some has come");
        for _ in 0..4 {
            assert!(arrival.saw(900, 101));
        }
        assert!(!arrival.saw(900, 101));
    }

    #[test]
    fn a_byte_at_a_time_is_not_waited_for_without_end() {
        let mut arrival = arrival();
        assert_eq!((1..1000).take_while(|come| arrival.saw(1000, *come)).count(), 599);
    }

    #[test]
    fn a_socket_that_tells_nothing_is_not_waited_for() {
        assert!(!arrival().goes_on());
    }
}
