//! Ports for servers that cannot choose one themselves.

use std::{
    collections::HashSet,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::Mutex,
    time::Duration,
};

static GIVEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);

/// A port of the loopback address that nobody listened on a moment ago, never given out twice by this process.
///
/// Somebody else may take it before it is used: bind to port 0 wherever the server can.
///
/// # Panics
/// If the system has no free port.
pub fn free() -> u16 {
    let mut given = GIVEN.lock().unwrap();
    let given = given.get_or_insert_default();
    for _ in 0..100 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        if given.insert(port) {
            return port;
        }
    }
    panic!("no free port after 100 attempts");
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
    use super::*;

    #[test]
    fn a_free_port_can_be_bound_and_is_given_once() {
        let (one, other) = (free(), free());
        assert_ne!(one, other);
        TcpListener::bind((Ipv4Addr::LOCALHOST, one)).unwrap();
    }

    #[tokio::test]
    async fn an_open_port_is_seen_and_a_closed_one_is_given_up() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        assert!(opens(addr, Duration::from_secs(5)).await);
        drop(listener);
        assert!(!opens(addr, Duration::from_millis(50)).await);
    }
}
