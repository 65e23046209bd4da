//! Callers over real sockets: programs and browsers, with the same verbs.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use doorward_gate::mail::Mailbox;
use doorward_testkit::wire::{Answer, Wire};
use serde_json::json;

use super::{HOST, Request, mail_to, outcome, request::json as body, set_cookies};

/// Somebody who asks. Each request has a connection of its own.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    address: SocketAddr,
    headers: Vec<(String, String)>,
    /// A browser's cookies; programs keep none.
    jar: Option<BTreeMap<String, String>>,
}

impl Caller {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self { address, headers: Vec::new(), jar: None }
    }

    /// The same with a header on every request.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(super) fn into_browser(mut self) -> Self {
        self.jar = Some(BTreeMap::new());
        self
    }

    /// A browser's cookie.
    pub(crate) fn cookie(&self, name: &str) -> Option<&str> {
        self.jar.as_ref()?.get(name).map(String::as_str)
    }

    /// A browser's whole `Cookie` header.
    pub(crate) fn cookies(&self) -> String {
        let pairs = self.jar.iter().flatten().map(|(name, value)| format!("{name}={value}"));
        pairs.collect::<Vec<_>>().join("; ")
    }

    /// `GET`.
    pub(crate) async fn get(&mut self, target: &str) -> Answer {
        self.ask(Request::get(target)).await
    }

    /// `POST` of JSON; a browser says that it comes from a page of ours.
    pub(crate) async fn post(&mut self, target: &str, value: &serde_json::Value) -> Answer {
        let request = Request::new("POST", target).with("Content-Type", "application/json").body(value.to_string());
        self.ask(request).await
    }

    /// `POST` of a form; a browser says that it comes from a page of ours.
    pub(crate) async fn post_form(&mut self, target: &str, form: &str) -> Answer {
        let kind = "application/x-www-form-urlencoded";
        self.ask(Request::new("POST", target).with("Content-Type", kind).body(form)).await
    }

    /// Any request, with the caller's headers and cookies added.
    pub(crate) async fn ask(&mut self, request: Request) -> Answer {
        let request = self.dressed(request);
        let mut wire = Wire::to(self.address).await;
        wire.send(request.bytes()).await;
        let answer = wire.answer_to(&request.method).await;
        self.keep_cookies(&answer);
        answer
    }

    /// `GET` with a credential or a license that is about to end: `None` where the answer was let out and is cut on its
    /// way.
    pub(crate) async fn try_get(&mut self, target: &str) -> Option<Answer> {
        let request = self.dressed(Request::get(target));
        let mut wire = Wire::to(self.address).await;
        wire.send(request.bytes()).await;
        let answer = wire.try_answer().await?;
        self.keep_cookies(&answer);
        Some(answer)
    }

    /// Asks until the answer has this status and reason. A request waits for a neighbour for a second at most; on a slow
    /// machine what the neighbour says comes afterwards.
    pub(crate) async fn until_outcome(&mut self, target: &str, wanted: (u16, Option<&str>)) -> Answer {
        let mut other = None;
        for _ in 0..1000 {
            match self.try_get(target).await {
                Some(answer) if outcome(&answer) == wanted => return answer,
                answer => other = answer,
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{wanted:?} did not come to pass: {other:?}");
    }

    fn keep_cookies(&mut self, answer: &Answer) {
        if let Some(jar) = &mut self.jar {
            for line in set_cookies(answer) {
                let (pair, attributes) = line.split_once(';').unwrap_or((line, ""));
                let (name, value) = pair.split_once('=').unwrap();
                if attributes.contains("Max-Age=0") {
                    jar.remove(name);
                } else {
                    jar.insert(name.to_owned(), value.to_owned());
                }
            }
        }
    }

    /// A request as this caller would send it. What the request says itself is left alone.
    pub(crate) fn dressed(&self, mut request: Request) -> Request {
        let mut add = |name: &str, value: &str| {
            if request.values(name).is_empty() {
                request.headers.push((name.to_owned(), value.into()));
            }
        };
        for (name, value) in &self.headers {
            add(name, value);
        }
        if self.jar.is_some() {
            let cookies = self.cookies();
            if !cookies.is_empty() {
                add("Cookie", &cookies);
            }
            add("Sec-Fetch-Site", "same-origin");
            add("Origin", &format!("https://{HOST}"));
        }
        request
    }

    /// Signs in by a link from the mailbox.
    pub(crate) async fn sign_in(&mut self, mailbox: &Mailbox, email: &str) {
        let token = self.ask_for_link(mailbox, email, "/").await;
        let answer = self.post("/auth/login/callback", &json!({ "token": token })).await;
        assert_eq!(outcome(&answer), (200, None), "{answer:?}");
        assert_eq!(body(&answer), json!({ "ok": true }));
        assert!(self.cookie("__Host-doorward_sid").is_some(), "{answer:?}");
    }

    /// Asks for a link and returns the token in it; nothing is consumed.
    pub(crate) async fn ask_for_link(&mut self, mailbox: &Mailbox, email: &str, return_to: &str) -> String {
        let known = mailbox.mails().iter().filter(|mail| mail.to.as_str() == email).count();
        let wish = json!({ "email": email, "return_to": return_to });
        let answer = self.post("/auth/login/request-link", &wish).await;
        assert_eq!(outcome(&answer), (200, None), "{answer:?}");
        let text = mail_to(mailbox, email, known).await;
        let (_, token) = text.split_once("/auth/login/callback?token=").unwrap_or_else(|| panic!("no link: {text}"));
        token.split_whitespace().next().unwrap().to_owned()
    }
}
