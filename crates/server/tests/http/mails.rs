//! Mails that were given up, on the admin listener.

use std::time::Duration;

use doorward_core::{
    effects::{Effects, NewMail},
    id::MailId,
    user::Email,
};
use doorward_store::Failure;
use doorward_testkit::wire::{Answer, Wire};
use serde_json::{Value, json};

use crate::world::{Setup, World, json as body, outcome};

const ADA: &str = "ada@example.com";

/// A mail that was given up; whether its text was kept.
async fn dead(world: &World, failure: Failure) -> MailId {
    let at = world.clock.now().wall;
    let mail = NewMail {
        id: MailId::mint(at, world.clock.random()),
        to: Email::parse(ADA).unwrap(),
        kind: "email_changed",
        subject: "s".into(),
        text: "t".into(),
        html: "h".into(),
        created_at: at,
        give_up_at: at.plus(Duration::from_secs(60)),
    };
    let id = mail.id;
    world.store().append(Effects::default().with_mail(mail)).await.unwrap();
    world.store().claim_mail(at, Duration::from_secs(60), 10).await.unwrap();
    world.store().mail_failed(id, 1, failure, "550 no such mailbox".to_owned(), Effects::default()).await.unwrap();
    id
}

async fn ask(world: &World, method: &str, path: &str, fields: &str, body: &str) -> Answer {
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:8081\r\n{fields}Content-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    );
    Wire::ask(world.running.admin, &request).await
}

async fn retry(world: &World, wish: &Value) -> Answer {
    ask(world, "POST", "/mails/retry", "Content-Type: application/json\r\n", &wish.to_string()).await
}

#[tokio::test]
async fn the_admin_listener_shows_dead_letters_and_tries_one_again() {
    let world = Setup::of("").without_mail().start().await;
    let empty = ask(&world, "GET", "/mails", "", "").await;
    assert_eq!(body(&empty), json!({ "mails": [] }), "{empty:?}");
    let (kept, gone) = (dead(&world, Failure::Park).await, dead(&world, Failure::GiveUp).await);
    let listed = body(&ask(&world, "GET", "/mails", "", "").await);
    let find = |id: MailId| listed["mails"].as_array().unwrap().iter().find(|mail| mail["id"] == json!(id)).unwrap();
    assert_eq!(
        (&find(kept)["to"], &find(kept)["error"], &find(kept)["can_be_tried_again"]),
        (&json!(ADA), &json!("550 no such mailbox"), &json!(true))
    );
    assert_eq!(find(gone)["can_be_tried_again"], false);

    world.advance(Duration::from_secs(3600)).await;
    let answer = retry(&world, &json!({ "id": kept })).await;
    assert_eq!((outcome(&answer), body(&answer)), ((200, None), json!({ "queued": kept })));
    let queued = world.store().claim_mail(world.clock.now().wall, Duration::from_secs(60), 10).await.unwrap();
    let [queued] = &queued[..] else { panic!("one mail: {queued:?}") };
    assert_eq!((queued.mail.id, queued.mail.text.as_str(), queued.attempts), (kept, "t", 2));
    assert_eq!(queued.mail.give_up_at, world.clock.now().wall.plus(Duration::from_hours(24)));

    assert_eq!(outcome(&retry(&world, &json!({ "id": kept })).await), (404, Some("not_found")), "it is not dead now");
    assert_eq!(outcome(&retry(&world, &json!({ "id": gone })).await), (400, Some("request_malformed")));
    for wish in [json!({}), json!({ "id": "x" }), json!({ "id": kept, "all": true })] {
        assert_eq!(outcome(&retry(&world, &wish).await), (400, Some("request_malformed")), "{wish}");
    }
    let get = ask(&world, "GET", "/mails/retry", "", "").await;
    assert_eq!(outcome(&get), (405, Some("method_not_allowed")));
    let foreign = "Content-Type: application/json\r\nOrigin: https://evil.example\r\n";
    let wish = json!({ "id": gone }).to_string();
    assert_eq!(outcome(&ask(&world, "POST", "/mails/retry", foreign, &wish).await), (403, Some("cross_site")));

    let rows = world.store().audit_tail(0, 1000).await.unwrap();
    let [row] = &rows.iter().filter(|row| row.kind == "mail.retried").collect::<Vec<_>>()[..] else {
        panic!("{rows:?}")
    };
    let detail = row.detail.as_deref().unwrap();
    assert!(
        detail.contains(&kept.to_string()) && detail.contains("admin listener") && !detail.contains('@'),
        "{detail}"
    );
}
