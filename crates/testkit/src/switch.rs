//! An address that leads to one server now and to another one later, as a name or a proxy in front of databases does.

use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// A switch on loopback. Dropping it closes its port; what goes through stays until one of both ends it.
pub struct Switch {
    port: u16,
    target: Arc<AtomicU16>,
    task: JoinHandle<()>,
}

impl Switch {
    /// One that leads to a port of the loopback address.
    ///
    /// # Panics
    /// If it cannot listen.
    pub async fn to(port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let target = Arc::new(AtomicU16::new(port));
        let leads_to = Arc::clone(&target);
        let task = tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let port = leads_to.load(Ordering::SeqCst);
                tokio::spawn(async move {
                    if let Ok(mut far) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
                        copy_bidirectional(&mut near, &mut far).await.ok();
                    }
                });
            }
        });
        Self { port: own, target, task }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Leads to another port from now on. Connections that are open stay where they are.
    pub fn lead_to(&self, port: u16) {
        self.target.store(port, Ordering::SeqCst);
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.task.abort();
    }
}
