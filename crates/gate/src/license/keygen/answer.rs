//! Questions to the account, and which answers are believed.

use doorward_core::{
    keygen::{Algorithm, ApiError, Message, Problem, claimed_date, verify_message},
    time::Timestamp,
};
use http::{HeaderMap, Method, StatusCode};
use serde_json::Value;

use super::{FRESHNESS, Inner, VERSION};
use crate::license::{http::Reply, trouble::Trouble};

/// What the account said, believed. Either it is there or it is not: every refusal is a [`Trouble`].
#[derive(Debug)]
pub(super) struct Said {
    /// `None`: there is no such thing.
    text: Option<String>,
    /// When it was signed; whole seconds.
    at: Timestamp,
    /// Not covered by the signature.
    pub(super) headers: HeaderMap,
}

impl Said {
    /// The document, if what was asked for is there, and when this was said.
    pub(super) fn found(self) -> (Option<String>, Timestamp) {
        (self.text, self.at)
    }
}

impl Inner {
    /// Asks, and believes the answer or not. `target` is the path with the query, encoded.
    pub(super) async fn say(&self, method: Method, target: &str, body: Option<&Value>) -> Result<Said, Trouble> {
        let wanted = format!("keyid=\"{}\", algorithm=\"{}\"", self.account, self.algorithm().as_str());
        let headers = [("keygen-version", VERSION.to_owned()), ("keygen-accept-signature", wanted)];
        let reply = self.connection.send(method.clone(), target, &headers, body).await?;
        self.believe(&method, target, reply)
    }

    /// The algorithm that answers are asked for in: the first with a pinned key.
    fn algorithm(&self) -> Algorithm {
        Algorithm::ALL.iter().copied().find(|algorithm| self.keys.has(*algorithm)).unwrap_or(Algorithm::Ed25519)
    }

    fn believe(&self, method: &Method, target: &str, reply: Reply) -> Result<Said, Trouble> {
        if let Some(failure) = reply.failure() {
            return Err(failure);
        }
        let status = reply.status.as_u16();
        let message = Message {
            method: method.as_str(),
            target,
            host: &self.connection.host,
            headers: &reply.headers,
            body: &reply.body,
        };
        let now = self.clock.now().wall;
        let signed = match verify_message(&message, &self.keys, &self.account, FRESHNESS, now) {
            Ok(signed) => signed,
            Err(Problem::Unsigned) if !reply.status.is_success() => {
                return Err(Trouble::RefusedUnsigned { status, error: ApiError::read(reply.text()) });
            }
            Err(problem) => {
                let skew = (problem == Problem::Stale).then(|| claimed_date(&reply.headers)).flatten();
                let skew = skew.map(|date| date.as_secs() - now.as_secs());
                return Err(Trouble::NotBelieved { problem, skew });
            }
        };
        let Reply { headers, body, .. } = reply;
        let text = String::from_utf8(body).map_err(|_| Trouble::Shape("the document"))?;
        match reply.status {
            status if status.is_success() => Ok(Said { text: Some(text), at: signed.at, headers }),
            StatusCode::NOT_FOUND => Ok(Said { text: None, at: signed.at, headers }),
            _ => Err(Trouble::Refused { status, error: ApiError::read(&text) }),
        }
    }
}
