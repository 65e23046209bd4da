//! From the outbox to a mail API over HTTP, played byte by byte.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use doorward_core::{
    effects::{Effects, NewMail},
    id::MailId,
    secret::Secret,
    user::Email,
};
use doorward_gate::{
    clock::Clock,
    mail::{HttpMailer, Mailer, outbox::Outbox},
};
use doorward_store::{DeadMail, OutboxCounts, Store};
use doorward_testkit::{port, upstream::RawUpstream};
use serde_json::{Value, json};

use super::house::{START, within};

const KEY: &str = "only for this test";
const OK: &str = "HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\n{}";

/// An API that gives these answers, one after the other, and then accepts everything. An empty one hangs up.
async fn api(answers: &[&str]) -> RawUpstream {
    let answers: VecDeque<String> = answers.iter().map(|&answer| answer.to_owned()).collect();
    let answers = Arc::new(Mutex::new(answers));
    RawUpstream::with(move |mut conversation| {
        let answers = Arc::clone(&answers);
        async move {
            while conversation.request().await.is_some() {
                let answer = answers.lock().unwrap().pop_front().unwrap_or_else(|| OK.to_owned());
                if answer.is_empty() {
                    return conversation.hang_up().await;
                }
                conversation.say(answer).await;
            }
        }
    })
    .await
}

fn says(status: &str, fields: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{fields}\r\n{body}", body.len())
}

/// The requests that an API heard, in order of their arrival on one connection or several.
fn requests(api: &RawUpstream) -> Vec<(String, Value)> {
    let text = api.text();
    let parts = text.split("POST /").skip(1);
    let read = |part: &str| {
        let (head, body) = part.split_once("\r\n\r\n").unwrap();
        (format!("POST /{head}\r\n"), serde_json::from_str(body).unwrap())
    };
    parts.map(read).collect()
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = head.lines().filter_map(|line| line.split_once(": "));
    fields.find_map(|(field, value)| field.eq_ignore_ascii_case(name).then_some(value))
}

/// An outbox with one mail in it.
struct Post {
    store: Store,
    clock: Clock,
    outbox: Outbox,
    mail: NewMail,
}

impl Post {
    async fn through(base: &str, kind: &'static str) -> Self {
        let (store, clock) = (Store::memory(), Clock::manual(START));
        let mailer = HttpMailer::new(base, &Secret::new(KEY.to_owned()), "Example <login@example.com>").unwrap();
        let mail = NewMail {
            id: MailId::mint(START, clock.random()),
            to: Email::parse("anna@example.com").unwrap(),
            kind,
            subject: "Sign in \u{2014} \"now\"".into(),
            text: "plain\nwords".into(),
            html: "<p>html words</p>".into(),
            created_at: START,
            give_up_at: START.plus(Duration::from_hours(2)),
        };
        store.append(Effects::default().with_mail(mail.clone())).await.unwrap();
        let outbox = Outbox::new(store.clone(), Mailer::Http(mailer), clock.clone());
        Self { store, clock, outbox, mail }
    }

    /// Tries what is due; how many mails that was.
    async fn send(&self) -> usize {
        within("the attempt", self.outbox.send_batch()).await.unwrap()
    }

    async fn counts(&self) -> (u64, u64) {
        let OutboxCounts { pending, dead } = self.store.outbox_counts().await.unwrap();
        (pending, dead)
    }

    /// What the last attempt met, of a mail that was given up.
    async fn dead(&self) -> DeadMail {
        self.store.dead_mails(1).await.unwrap().remove(0)
    }
}

#[tokio::test]
async fn a_mail_is_posted_whole_with_our_key_and_its_id() {
    let api = api(&[]).await;
    let post = Post::through(&format!("{}/mail/", api.url()), "magic_link").await;
    assert_eq!((post.send().await, post.counts().await), (1, (0, 0)));
    let [(head, body)] = &requests(&api)[..] else { panic!("one request: {}", api.text()) };
    assert!(head.starts_with("POST /mail/v1/messages/send HTTP/1.1\r\n"), "{head}");
    assert_eq!((field(head, "x-api-key"), field(head, "content-type")), (Some(KEY), Some("application/json")));
    assert_eq!(field(head, "idempotency-key"), Some(post.mail.id.to_string().as_str()));
    assert_eq!(
        *body,
        json!({
            "from": "Example <login@example.com>", "to": "anna@example.com", "subject": "Sign in \u{2014} \"now\"",
            "text": "plain\nwords", "html": "<p>html words</p>",
        })
    );
}

#[tokio::test]
async fn a_busy_api_is_asked_again_no_sooner_than_it_says_and_under_the_same_id() {
    let busy = [
        says("429 Too Many Requests", "Retry-After: 300\r\n", ""),
        says("503 Service Unavailable", "Retry-After: Fri, 15 Jan 2027 08:15:00 GMT\r\n", ""),
        says("500 Internal Server Error", "", "no idea"),
        String::new(),
    ];
    let api = api(&busy.each_ref().map(String::as_str)).await;
    let post = Post::through(&api.url(), "magic_link").await;
    // START is 08:00:00.
    for (after, what) in [(300, "429"), (600, "503 with a date")] {
        assert_eq!(post.send().await, 1);
        post.clock.advance(Duration::from_secs(after - 1));
        assert_eq!(post.send().await, 0, "sooner than the API said: {what}");
        post.clock.advance(Duration::from_secs(1));
    }
    for _ in 0..2 {
        assert_eq!((post.send().await, post.counts().await), (1, (1, 0)));
        post.clock.advance(Duration::from_secs(60));
    }
    assert_eq!((post.send().await, post.counts().await), (1, (0, 0)), "taken in the end");
    let sent = requests(&api);
    let ids: Vec<_> = sent.iter().filter_map(|(head, _)| field(head, "idempotency-key")).collect();
    assert_eq!(ids, vec![post.mail.id.to_string(); 5], "an API that took it and lost its answer does not send twice");
    assert_eq!((post.outbox.stats().sent, post.outbox.stats().retried), (1, 4));
}

#[tokio::test]
async fn a_mail_that_the_api_refuses_is_given_up_at_once_and_what_it_said_is_kept_short() {
    let long = format!("{{\"error\":\"no such mailbox\u{1b}[31m\"}}{}", "x".repeat(100_000));
    for (status, kind, is_kept) in
        [("422 Unprocessable Content", "magic_link", false), ("400 Bad Request", "email_changed", true)]
    {
        let api = api(&[&says(status, "", &long)]).await;
        let post = Post::through(&api.url(), kind).await;
        assert_eq!((post.send().await, post.counts().await), (1, (0, 1)), "{status}");
        let dead = post.dead().await;
        let error = dead.error.unwrap();
        assert!(
            error.starts_with(&format!("127.0.0.1 answered {}: {{\"error\":\"no such mailbox ", &status[..3])),
            "{error}"
        );
        assert!(error.len() < 300 && !error.contains('\u{1b}'), "{error}");
        assert_eq!(dead.whole, is_kept, "a link is not kept, a notice is: {kind}");
        assert!(!format!("{:?}", post.store.audit_tail(0, 10).await.unwrap()).contains("mailbox"));
    }
}

#[tokio::test]
async fn what_the_operator_can_mend_waits_for_it_and_no_redirect_is_followed() {
    let elsewhere = api(&[]).await;
    let moved = format!("Location: {}/v1/messages/send\r\n", elsewhere.url());
    for (answer, expected) in [
        (says("401 Unauthorized", "", "bad key"), "401 (it does not take this key): bad key"),
        (says("403 Forbidden", "", ""), "403 (it does not take this key)"),
        (says("404 Not Found", "", ""), "404 (there is no such API at this address)"),
        (says("409 Conflict", "", "in progress"), "409: in progress"),
        (says("307 Temporary Redirect", &moved, ""), "307 (redirects are not followed)"),
        (says("302 Found", &moved, ""), "302 (redirects are not followed)"),
    ] {
        let api = api(&[&answer, &answer]).await;
        let post = Post::through(&api.url(), "magic_link").await;
        assert_eq!((post.send().await, post.counts().await), (1, (1, 0)), "{answer}");
        let mailer = HttpMailer::new(&api.url(), &Secret::new(KEY.to_owned()), "login@example.com").unwrap();
        let said = Mailer::Http(mailer).ping().await;
        match expected.starts_with("409") {
            true => assert!(said.is_err()),
            false => assert_eq!(said.unwrap_err().note, format!("127.0.0.1 answered {expected}")),
        }
    }
    assert_eq!(elsewhere.text(), "", "neither the key nor a mail goes anywhere else");
}

#[tokio::test]
async fn an_api_that_is_down_or_never_ends_costs_an_attempt_and_a_taken_mail_stays_taken() {
    let post = Post::through(&format!("http://127.0.0.1:{}", port::free()), "magic_link").await;
    assert_eq!((post.send().await, post.counts().await), (1, (1, 0)));
    // A success whose body never ends: the status says all there is to know.
    let endless = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    let api = api(&[endless]).await;
    let post = Post::through(&api.url(), "magic_link").await;
    assert_eq!((post.send().await, post.counts().await), (1, (0, 0)));
}

#[tokio::test]
async fn the_doctor_asks_without_sending() {
    let api = api(&[&says("422 Unprocessable Content", "", "{\"error\":\"`to` is missing\"}")]).await;
    let mailer = HttpMailer::new(&api.url(), &Secret::new(KEY.to_owned()), "login@example.com").unwrap();
    assert_eq!(Mailer::Http(mailer).ping().await, Ok(()), "the API takes the key and complains about the rest");
    let [(head, body)] = &requests(&api)[..] else { panic!("one request: {}", api.text()) };
    assert_eq!((field(head, "x-api-key"), field(head, "idempotency-key"), body), (Some(KEY), None, &json!({})));
}

#[tokio::test]
async fn what_failed_with_one_mailer_is_handed_to_the_next_one_at_once() {
    let (refusing, taking) = (api(&[&says("401 Unauthorized", "", "bad key")]).await, api(&[]).await);
    let post = Post::through(&refusing.url(), "magic_link").await;
    assert_eq!((post.send().await, post.counts().await), (1, (1, 0)));
    let same = HttpMailer::new(&refusing.url(), &Secret::new(KEY.to_owned()), "Example <login@example.com>").unwrap();
    post.outbox.use_mailer(Mailer::Http(same));
    assert_eq!(post.send().await, 0, "it waits out its pause");
    let mailer = HttpMailer::new(&taking.url(), &Secret::new(KEY.to_owned()), "login@example.com").unwrap();
    post.outbox.use_mailer(Mailer::Http(mailer));
    assert_eq!((post.send().await, post.counts().await), (1, (0, 0)));
    assert_eq!((requests(&refusing).len(), requests(&taking).len()), (1, 1));
}
