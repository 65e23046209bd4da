//! Apps behind the door: one that speaks in raw bytes and records what it hears, one that echoes.

use std::{
    future::Future,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::timeout,
};

/// Longest wait for bytes in a script; a test that needs longer has hung.
const PATIENCE: Duration = Duration::from_mins(1);

/// The bytes of one connection.
type Heard = Arc<Mutex<Vec<u8>>>;

/// An upstream that records the exact bytes of every connection and follows a script.
pub struct RawUpstream {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<Heard>>>,
    task: JoinHandle<()>,
}

impl RawUpstream {
    /// Follows `script` on each connection.
    pub async fn with<F, Fut>(script: F) -> Self
    where
        F: Fn(Conversation) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&heard);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = socket.accept().await {
                let heard = Arc::new(Mutex::new(Vec::new()));
                all.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&heard));
                tokio::spawn(script(Conversation { stream, heard, unread: Vec::new() }));
            }
        });
        Self { address, heard, task }
    }

    /// Answers every whole request with the same bytes and keeps the connection.
    pub async fn answering(answer: &'static [u8]) -> Self {
        Self::with(move |mut conversation| async move {
            while conversation.request().await.is_some() {
                conversation.say(answer).await;
            }
        })
        .await
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The bytes heard so far, by connection.
    pub fn heard(&self) -> Vec<Vec<u8>> {
        let all = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().map(|one| one.lock().unwrap_or_else(PoisonError::into_inner).clone()).collect()
    }

    /// All bytes heard so far as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.heard().concat()).into_owned()
    }
}

impl Drop for RawUpstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One connection of a [`RawUpstream`].
pub struct Conversation {
    stream: TcpStream,
    heard: Heard,
    unread: Vec<u8>,
}

impl Conversation {
    /// The next request, head and body as they came; `None` at the end of the connection. Its length is
    /// told naively: `content-length`, or the last chunk.
    pub async fn request(&mut self) -> Option<String> {
        let head = self.until(b"\r\n\r\n").await?;
        let head = String::from_utf8_lossy(&head).into_owned();
        let field = |name: &str| {
            let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let body = if let Some(length) = field("content-length:") {
            self.exactly(length.parse().ok()?).await?
        } else if field("transfer-encoding:").is_some() {
            let mut body = self.until(b"0\r\n").await?;
            while !body.ends_with(b"\r\n\r\n") {
                body.extend(self.until(b"\r\n").await?);
            }
            body
        } else {
            Vec::new()
        };
        Some(head + &String::from_utf8_lossy(&body))
    }

    /// Bytes up to and with `mark`; `None` if the connection ends before.
    pub async fn until(&mut self, mark: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self.unread.windows(mark.len()).position(|bytes| bytes == mark) {
                return Some(self.unread.drain(..at + mark.len()).collect());
            }
            self.more().await?;
        }
    }

    /// So many bytes; `None` if the connection ends before.
    pub async fn exactly(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.unread.len() < count {
            self.more().await?;
        }
        Some(self.unread.drain(..count).collect())
    }

    /// Resolves when the other end has hung up.
    pub async fn end(&mut self) {
        while self.more().await.is_some() {}
    }

    async fn more(&mut self) -> Option<()> {
        self.unread.reserve(16 * 1024);
        let before = self.unread.len();
        let count = timeout(PATIENCE, self.stream.read_buf(&mut self.unread)).await.ok()?.ok()?;
        if count == 0 {
            return None;
        }
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&self.unread[before..]);
        Some(())
    }

    /// Writes; a client that is gone does not matter.
    pub async fn say(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = timeout(PATIENCE, self.stream.write_all(bytes.as_ref())).await;
    }

    /// Hangs up.
    pub async fn hang_up(mut self) {
        let _ = self.stream.shutdown().await;
    }
}

/// An app that tells what reached it: `{method, target, version, headers: [[name, value]], body}`.
pub struct EchoApp {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl EchoApp {
    /// Starts it on a free port.
    pub async fn start() -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = socket.accept().await {
                let _ = stream.set_nodelay(true);
                tokio::spawn(async move {
                    let builder = auto::Builder::new(TokioExecutor::new());
                    let _ = builder.serve_connection(TokioIo::new(stream), service_fn(echo)).await;
                });
            }
        });
        Self { address, task }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for EchoApp {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn echo(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers: Vec<_> = parts.headers.iter().map(|(name, value)| [name.to_string(), text(value)]).collect();
    let said = json!({
        "method": parts.method.as_str(),
        "target": parts.uri.to_string(),
        "version": format!("{:?}", parts.version),
        "headers": headers,
        "body": String::from_utf8_lossy(&body),
    });
    let answer = Response::new(Full::from(said.to_string()));
    Ok(answer)
}
