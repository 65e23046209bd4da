//! From the outbox to a mail server made by others.

use std::time::Duration;

use doorward_core::{
    effects::{Effects, NewMail},
    id::MailId,
    user::Email,
};
use doorward_gate::{
    clock::Clock,
    mail::{Mailbox, Mailer, SmtpMailer, outbox::Outbox},
};
use doorward_store::{OutboxCounts, Store};
use doorward_testkit::{mail::MailSink, port};

use super::house::{Browser, House, LINK_TTL, START, token_in, until, within};

const ANNA: &str = "anna@example.com";

async fn house_mailing_to(url: &str) -> House {
    let mailer = Mailer::Smtp(SmtpMailer::new(url, "Example <login@example.com>").unwrap());
    let house = House::with(Store::memory(), Clock::manual(START), mailer, Mailbox::new()).await;
    house.user(ANNA).await;
    house
}

#[tokio::test]
async fn a_link_from_a_real_mail_server_signs_in() {
    let Some(sink) = MailSink::start().await else { return };
    let house = house_mailing_to(&sink.url()).await;
    let mut browser = Browser::at("192.0.2.1");
    browser.ask(&house, ANNA, "/").await;
    let mails = sink.arrived(1).await;
    let mail = &mails[0];
    assert_eq!((mail.from.as_str(), mail.to.as_slice()), ("login@example.com", &[ANNA.to_owned()][..]));
    assert_eq!(mail.subject, "Sign in to app.example.com");
    assert_eq!(mail.headers["From"], "Example <login@example.com>");
    assert_eq!(mail.headers["Auto-Submitted"], "auto-generated");
    let token = token_in(mail.text.as_deref().unwrap());
    assert!(mail.html.as_deref().unwrap().contains(&token), "the link survives the encoding of both parts");
    assert!(browser.confirm(&house, &token).await.is_ok());
    until("the outbox to be empty", || house.outbox.stats().sent == 1).await;
}

#[tokio::test]
async fn a_refused_mail_is_tried_again_and_keeps_its_message_id() {
    let Some(sink) = MailSink::start().await else { return };
    sink.refuse(451, 2).await;
    let house = house_mailing_to(&sink.url()).await;
    Browser::at("192.0.2.1").ask(&house, ANNA, "/").await;
    for attempts in 1..=2 {
        until("a failed attempt", || house.outbox.stats().retried == attempts).await;
        house.outbox.wake();
        assert!(sink.mails().await.is_empty(), "not before its time");
        house.clock.advance(Duration::from_secs(20));
        house.outbox.wake();
    }
    let mail = sink.arrived(1).await.remove(0);
    until("the success to be counted", || house.outbox.stats().sent == 1).await;
    let id = mail.message_id.unwrap();
    assert!(id.starts_with('<') && id.ends_with("@example.com>"), "{id}");
    assert_eq!(sink.mails().await.len(), 1);
    assert_eq!(sink.refusals_left().await, 0);
}

#[tokio::test]
async fn a_mail_that_is_refused_for_good_is_given_up_and_audited() {
    let Some(sink) = MailSink::start().await else { return };
    sink.refuse(550, 1).await;
    let house = house_mailing_to(&sink.url()).await;
    Browser::at("192.0.2.1").ask(&house, ANNA, "/").await;
    until("the end of the mail", || house.outbox.stats().given_up == 1).await;
    given_up(&house).await;
    assert!(sink.mails().await.is_empty());
}

#[tokio::test]
async fn a_mail_server_that_is_down_delays_nobody_and_a_late_link_is_not_sent_any_more() {
    let url = format!("smtp://127.0.0.1:{}", port::free());
    let house = house_mailing_to(&url).await;
    let mailer = SmtpMailer::new(&url, "login@example.com").unwrap();
    let down = Mailer::Smtp(mailer).ping().await.unwrap_err();
    assert!(!down.is_permanent && down.note.contains("127.0.0.1"), "{down}");
    for n in 0..3 {
        Browser::at(&format!("192.0.2.{n}")).ask(&house, ANNA, "/").await;
    }
    until("the requests", || house.sign_in.stats().mailed == 3).await;
    until("failed attempts", || house.outbox.stats().retried >= 3).await;
    assert_eq!(house.store.outbox_counts().await.unwrap(), OutboxCounts { pending: 3, dead: 0 });
    house.clock.advance(LINK_TTL);
    house.outbox.wake();
    until("the end of the mails", || house.outbox.stats().given_up == 3).await;
    given_up(&house).await;
}

#[tokio::test]
async fn no_mail_leaves_in_the_clear_where_tls_is_required() {
    let Some(sink) = MailSink::start().await else { return };
    let house = house_mailing_to(&format!("{}?tls=required", sink.url())).await;
    Browser::at("192.0.2.1").ask(&house, ANNA, "/").await;
    until("a failed attempt", || house.outbox.stats().retried == 1).await;
    assert!(sink.mails().await.is_empty());
    let wrapped = SmtpMailer::new(&sink.url().replace("smtp:", "smtps:"), "login@example.com").unwrap();
    assert!(Mailer::Smtp(wrapped).ping().await.is_err(), "the server speaks no TLS");
    let plain = SmtpMailer::new(&sink.url(), "login@example.com").unwrap();
    assert_eq!(Mailer::Smtp(plain).ping().await, Ok(()));
}

#[tokio::test]
async fn a_backlog_is_sent_whole_and_a_stop_waits_for_one_batch_only() {
    let mailbox = Mailbox::new();
    let house = House::with(Store::memory(), Clock::manual(START), Mailer::Memory(mailbox.clone()), mailbox).await;
    let other = Store::memory();
    let stopped = Outbox::new(other.clone(), Mailer::Memory(Mailbox::new()), house.clock.clone());
    for n in 0..20 {
        let mail = NewMail {
            id: MailId::mint(START, [n; 10]),
            to: Email::parse(ANNA).unwrap(),
            kind: "magic_link",
            subject: "s".into(),
            text: "t".into(),
            html: "h".into(),
            created_at: START,
            give_up_at: START.plus(LINK_TTL),
        };
        for store in [&house.store, &other] {
            store.append(Effects::default().with_mail(mail.clone())).await.unwrap();
        }
    }
    within("the backlog", house.mailbox.arrived(20)).await;
    within("the stop", stopped.run(std::future::ready(()))).await;
    assert_eq!(stopped.stats().sent, 8);
}

/// Every mail is a dead letter with an audit row that names no person.
async fn given_up(house: &House) {
    let given_up = house.outbox.stats().given_up;
    let mut rows = Vec::new();
    for _ in 0..1_000 {
        rows = house.audited("mail.given_up").await;
        if rows.len() as u64 == given_up {
            break;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(rows.len() as u64, given_up);
    assert!(rows.iter().all(|row| !row.detail.as_deref().unwrap().contains('@')));
    let dead = house.store.outbox_counts().await.unwrap();
    assert_eq!(dead, OutboxCounts { pending: 0, dead: given_up });
}
