//! A client that writes the very bytes it is given, and reads answers without forgiving anything.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// Longest wait for bytes; a test that needs longer has hung.
const PATIENCE: Duration = Duration::from_secs(30);

/// A raw connection.
pub struct Wire<T = TcpStream> {
    stream: T,
    unread: Vec<u8>,
}

/// An answer as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The head, from the status line to the empty line, less the latter.
    pub head: String,
    /// The body, out of its chunks if it came in such.
    pub body: Vec<u8>,
    /// The trailer section.
    pub trailers: String,
}

impl Answer {
    /// The first field of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        field(&self.head, name)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

fn field<'a>(head: &'a str, wanted: &str) -> Option<&'a str> {
    let mut fields = head.lines().filter_map(|line| line.split_once(':'));
    fields.find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.trim())
}

impl Wire {
    /// Connects.
    pub async fn to(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(stream)
    }

    /// Connects, sends, and reads one answer.
    pub async fn ask(address: SocketAddr, bytes: impl AsRef<[u8]>) -> Answer {
        let mut wire = Self::to(address).await;
        wire.send(bytes).await;
        wire.answer().await
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Wire<T> {
    /// Over a stream that stands already.
    pub fn over(stream: T) -> Self {
        Self { stream, unread: Vec::new() }
    }

    /// Writes exactly these bytes.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // The other end may have hung up on what it was sent before; its answer is still to be read.
        let _ = timeout(PATIENCE, async {
            self.stream.write_all(bytes.as_ref()).await?;
            self.stream.flush().await
        })
        .await
        .unwrap();
    }

    /// Reads one answer to anything but HEAD.
    pub async fn answer(&mut self) -> Answer {
        self.answer_to("GET").await
    }

    /// Reads one answer to that method; informational ones before it are skipped.
    pub async fn answer_to(&mut self, method: &str) -> Answer {
        self.read_answer(method).await.unwrap_or_else(|end| panic!("{end}"))
    }

    /// Reads one answer to anything but HEAD; `None` if the connection ends in the middle of it, as it may where a
    /// credential ends while its answer is on its way. That something came is demanded still.
    pub async fn try_answer(&mut self) -> Option<Answer> {
        if self.unread.is_empty() {
            assert_ne!(self.more().await.unwrap(), 0, "cut off without a word");
        }
        self.read_answer("GET").await.ok()
    }

    /// One answer, or how the connection ended before it was whole.
    async fn read_answer(&mut self, method: &str) -> Result<Answer, String> {
        loop {
            let head = String::from_utf8(self.read_until(b"\r\n\r\n").await?).unwrap();
            let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
            let status: u16 = status.unwrap_or_else(|| panic!("not a status line: {head:?}"));
            if (100..=199).contains(&status) && status != 101 {
                continue;
            }
            let (mut body, mut trailers) = (Vec::new(), String::new());
            if method == "HEAD" || matches!(status, 101 | 204 | 304) {
            } else if let Some(length) = field(&head, "content-length") {
                body = self.read_exactly(length.parse().unwrap()).await?;
            } else if field(&head, "transfer-encoding") == Some("chunked") {
                loop {
                    let size = String::from_utf8(self.read_until(b"\r\n").await?).unwrap();
                    let size = usize::from_str_radix(size.trim_end(), 16).unwrap();
                    if size == 0 {
                        break;
                    }
                    body.extend(self.read_exactly(size).await?);
                    assert_eq!(self.read_exactly(2).await?, b"\r\n");
                }
                while !trailers.ends_with("\r\n\r\n") && trailers != "\r\n" {
                    trailers += &String::from_utf8(self.read_until(b"\r\n").await?).unwrap();
                }
            } else {
                body = self.rest().await;
            }
            let head = head.trim_end().to_owned();
            return Ok(Answer { status, head, body, trailers: trailers.trim_end().to_owned() });
        }
    }

    /// Bytes up to and with `mark`.
    pub async fn until(&mut self, mark: &[u8]) -> Vec<u8> {
        self.read_until(mark).await.unwrap_or_else(|end| panic!("{end}"))
    }

    async fn read_until(&mut self, mark: &[u8]) -> Result<Vec<u8>, String> {
        loop {
            if let Some(at) = self.unread.windows(mark.len()).position(|bytes| bytes == mark) {
                return Ok(self.unread.drain(..at + mark.len()).collect());
            }
            let read = self.more().await;
            if !matches!(read, Ok(count) if count > 0) {
                let (mark, unread) = (mark.escape_ascii(), self.unread.escape_ascii());
                return Err(format!("the connection ended before \"{mark}\": \"{unread}\" ({read:?})"));
            }
        }
    }

    /// So many bytes.
    pub async fn exactly(&mut self, count: usize) -> Vec<u8> {
        self.read_exactly(count).await.unwrap_or_else(|end| panic!("{end}"))
    }

    /// So many bytes; `None` if the connection ends before, however it ends.
    pub async fn try_exactly(&mut self, count: usize) -> Option<Vec<u8>> {
        self.read_exactly(count).await.ok()
    }

    async fn read_exactly(&mut self, count: usize) -> Result<Vec<u8>, String> {
        while self.unread.len() < count {
            let read = self.more().await;
            if !matches!(read, Ok(more) if more > 0) {
                return Err(format!("the connection ended {} bytes early ({read:?})", count - self.unread.len()));
            }
        }
        Ok(self.unread.drain(..count).collect())
    }

    /// Everything up to the end of the connection, however it ends.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.more().await.is_ok_and(|count| count > 0) {}
        std::mem::take(&mut self.unread)
    }

    /// Asserts that the other end hangs up without another byte.
    pub async fn assert_closed(&mut self) {
        let rest = self.rest().await;
        assert!(rest.is_empty(), "more came: {:?}", rest.escape_ascii().to_string());
    }

    async fn more(&mut self) -> io::Result<usize> {
        self.unread.reserve(16 * 1024);
        let Ok(read) = timeout(PATIENCE, self.stream.read_buf(&mut self.unread)).await else {
            panic!("nothing came for {PATIENCE:?}; so far: {:?}", self.unread.escape_ascii().to_string());
        };
        read
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_answer_that_ends_in_the_middle_is_none_where_that_is_asked_for_and_a_whole_one_is_read() {
        let whole = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        for (sent, expected) in [(whole, Some("ok")), (&whole[..whole.len() - 1], None), (&whole[..20], None)] {
            let (near, mut far) = tokio::io::duplex(1024);
            far.write_all(sent.as_bytes()).await.unwrap();
            drop(far);
            let answer = Wire::over(near).try_answer().await;
            assert_eq!(answer.map(|answer| answer.text()).as_deref(), expected, "{sent:?}");
        }
    }
}
