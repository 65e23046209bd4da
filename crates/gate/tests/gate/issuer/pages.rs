//! A web server that says exactly what a test tells it to, path by path.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use doorward_testkit::upstream::RawUpstream;
use serde_json::Value;

#[derive(Clone)]
struct Page {
    head: String,
    body: String,
    tag: Option<String>,
}

/// Pages by path; what is not there is a 404.
pub(super) struct Pages {
    upstream: RawUpstream,
    pages: Arc<Mutex<HashMap<String, Page>>>,
}

impl Pages {
    pub(super) async fn start() -> Self {
        let pages: Arc<Mutex<HashMap<String, Page>>> = Arc::default();
        let shown = Arc::clone(&pages);
        let upstream = RawUpstream::with(move |mut conversation| {
            let pages = Arc::clone(&shown);
            async move {
                while let Some(request) = conversation.request().await {
                    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
                    let page = pages.lock().unwrap().get(&path).cloned();
                    let answer = match page {
                        None => "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned(),
                        Some(Page { tag: Some(tag), .. }) if request.contains(&format!("if-none-match: {tag}\r\n")) => {
                            format!("HTTP/1.1 304 Not Modified\r\nETag: {tag}\r\n\r\n")
                        }
                        Some(Page { head, body, tag }) => {
                            let tag = tag.map(|tag| format!("ETag: {tag}\r\n")).unwrap_or_default();
                            format!("HTTP/1.1 {head}\r\n{tag}Content-Length: {}\r\n\r\n{body}", body.len())
                        }
                    };
                    conversation.say(answer).await;
                }
            }
        })
        .await;
        Self { upstream, pages }
    }

    pub(super) fn url(&self) -> String {
        self.upstream.url()
    }

    /// Shows a document.
    pub(super) fn show(&self, path: &str, document: &Value) {
        self.set(path, "200 OK", document.to_string(), None);
    }

    /// Shows a document with an `ETag`.
    pub(super) fn show_tagged(&self, path: &str, document: &Value, tag: &str) {
        self.set(path, "200 OK", document.to_string(), Some(tag.to_owned()));
    }

    /// Answers with this status line, and further header lines behind it.
    pub(super) fn say(&self, path: &str, head: &str) {
        self.set(path, head, String::new(), None);
    }

    pub(super) fn remove(&self, path: &str) {
        self.pages.lock().unwrap().remove(path);
    }

    fn set(&self, path: &str, head: &str, body: String, tag: Option<String>) {
        self.pages.lock().unwrap().insert(path.to_owned(), Page { head: head.to_owned(), body, tag });
    }

    /// How often `path` was asked for.
    pub(super) fn asked(&self, path: &str) -> usize {
        self.upstream.text().matches(&format!("GET {path} HTTP/1.1\r\n")).count()
    }

    /// Everything that was asked.
    pub(super) fn heard(&self) -> String {
        self.upstream.text()
    }
}
