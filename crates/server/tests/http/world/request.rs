//! One request as bytes, and how its answer is read.

use doorward_testkit::wire::Answer;
use serde_json::Value;

use super::HOST;

/// A request, free of what a client library would forbid: target and values are bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Values of `Host`, usually one.
    pub(crate) hosts: Vec<Vec<u8>>,
    pub(crate) target: Vec<u8>,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    /// A request to the usual host.
    pub(crate) fn new(method: &str, target: impl AsRef<[u8]>) -> Self {
        Self {
            method: method.to_owned(),
            hosts: vec![HOST.into()],
            target: target.as_ref().to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    /// `GET`.
    pub(crate) fn get(target: impl AsRef<[u8]>) -> Self {
        Self::new("GET", target)
    }

    /// With one more header.
    pub(crate) fn with(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.to_owned(), value.as_ref().to_owned()));
        self
    }

    /// To another host.
    pub(crate) fn to(mut self, host: impl AsRef<[u8]>) -> Self {
        self.hosts = vec![host.as_ref().to_owned()];
        self
    }

    /// With a body; its length is told.
    pub(crate) fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = body.as_ref().to_owned();
        self
    }

    /// The values of a header, the name in any case.
    pub(crate) fn values(&self, name: &str) -> Vec<&[u8]> {
        self.headers.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| &**value).collect()
    }

    /// As HTTP/1.1 puts it on the wire; the connection ends behind the answer.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for part in [self.method.as_bytes(), b" ", &self.target, b" HTTP/1.1\r\n"] {
            bytes.extend_from_slice(part);
        }
        let hosts = self.hosts.iter().map(|host| ("Host", host));
        for (name, value) in hosts.chain(self.headers.iter().map(|(name, value)| (name.as_str(), value))) {
            for part in [name.as_bytes(), b": ", value, b"\r\n"] {
                bytes.extend_from_slice(part);
            }
        }
        // An upgrade needs `Connection` for itself.
        if self.values("connection").is_empty() {
            bytes.extend_from_slice(b"Connection: close\r\n");
        }
        if !self.body.is_empty() || !["GET", "HEAD", "OPTIONS"].contains(&self.method.as_str()) {
            bytes.extend_from_slice(format!("Content-Length: {}\r\n", self.body.len()).as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// Status and reason of an answer.
pub(crate) fn outcome(answer: &Answer) -> (u16, Option<&str>) {
    (answer.status, answer.header("x-doorward-reason"))
}

/// The body as JSON.
pub(crate) fn json(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
}

/// The `Set-Cookie` lines.
pub(crate) fn set_cookies(answer: &Answer) -> Vec<&str> {
    let fields = answer.head.lines().filter_map(|line| line.split_once(':'));
    fields.filter(|(name, _)| name.eq_ignore_ascii_case("set-cookie")).map(|(_, value)| value.trim()).collect()
}

/// What the app heard, as it says in its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The request line.
    pub(crate) line: String,
    /// Names as they came, and values.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Seen {
    /// Reads the answer of the world's own app.
    pub(crate) fn of(answer: &Answer) -> Self {
        Self::find(answer).unwrap_or_else(|| panic!("not the app's: {answer:?}"))
    }

    /// The same; `None` if it is not the app's.
    pub(crate) fn find(answer: &Answer) -> Option<Self> {
        answer.header("x-app")?;
        let text = answer.text();
        let (head, body) = text.split_once("\r\n\r\n")?;
        let (line, fields) = head.split_once("\r\n")?;
        let headers = fields.split("\r\n").filter_map(|field| field.split_once(':'));
        let headers = headers.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect();
        Some(Self { line: line.to_owned(), headers, body: body.to_owned() })
    }

    /// The first value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}
