//! Ports for servers that cannot choose one themselves.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Mutex,
    time::Duration,
};

use tokio::net::TcpSocket;

static GIVEN: Mutex<Vec<TcpSocket>> = Mutex::new(Vec::new());

/// A port of the loopback address that is nobody else's while this process runs: the system gives it to no other socket,
/// neither as a port to listen on nor as the near end of a connection. A server that names it can listen on it.
///
/// # Panics
/// If the system has no free port.
pub fn free() -> u16 {
    let (socket, address) = hold((Ipv4Addr::LOCALHOST, 0).into());
    GIVEN.lock().unwrap().push(socket);
    address.port()
}

/// Keeps an address for whoever names it, as long as the socket lives: it is bound and does not listen, so connections are
/// refused until somebody does. That takes `SO_REUSEADDR`, which servers set.
pub(crate) fn hold(address: SocketAddr) -> (TcpSocket, SocketAddr) {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// Waits until something accepts connections at this address; `false` when nothing did in that time.
pub async fn opens(addr: SocketAddr, within: Duration) -> bool {
    let connected = async {
        while tokio::net::TcpStream::connect(addr).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(within, connected).await.is_ok()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_free_port_can_be_listened_on_again_and_again_and_is_given_once() {
        let (one, other) = (free(), free());
        assert_ne!(one, other);
        for _ in 0..3 {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, one)).unwrap();
            let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            drop((listener.accept().unwrap(), stream));
        }
        assert!(std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, one)).is_err(), "nobody listens");
        let others: Vec<_> = (0..500).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()).collect();
        let is_ours = |listener: &TcpListener| [one, other].contains(&listener.local_addr().unwrap().port());
        assert!(!others.iter().any(is_ours), "the system gives it to nobody else");
    }

    #[tokio::test]
    async fn an_open_port_is_seen_and_a_closed_one_is_given_up() {
        // Held, so that nobody else listens there afterwards.
        let (_held, addr) = hold((Ipv4Addr::LOCALHOST, 0).into());
        let listener = TcpListener::bind(addr).unwrap();
        assert!(opens(addr, Duration::from_mins(1)).await);
        drop(listener);
        assert!(!opens(addr, Duration::from_millis(50)).await);
    }
}
