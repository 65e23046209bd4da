//! Request smuggling: bytes in which two programs could see different requests never reach an app.
//!
//! Every case is sent over a raw socket; the app behind records the exact bytes that it hears.

mod h1;
mod h2;

use doorward_testkit::{upstream::RawUpstream, wire::Wire};

use crate::door::Door;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A request that should never be seen by itself: the one that a vector tries to get through.
const HIDDEN: &str = "GET /admin HTTP/1.1\r\nHost: x\r\n\r\n";

/// Sends `bytes`, expects a refusal that ends the connection, and that the app heard nothing.
async fn assert_refused(bytes: impl AsRef<[u8]>) {
    let shown = bytes.as_ref().escape_ascii().to_string();
    let app = RawUpstream::answering(OK).await;
    let door = Door::before(app.url()).await;
    let mut wire = Wire::to(door.address).await;
    wire.send(&bytes).await;
    let answer = wire.answer().await;
    let got = (answer.status, answer.header("x-doorward-reason"), answer.header("connection"));
    assert_eq!(got, (400, Some("request_malformed"), Some("close")), "{shown}");
    wire.assert_closed().await;
    assert_eq!(app.text(), "", "{shown}");
    assert_eq!(door.seen(), 0, "{shown}");
}
