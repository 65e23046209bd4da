//! `check`, the doctor, against neighbours that live and that do not.

use doorward_testkit::{issuer::Issuer, mail::MailSink, port, upstream::EchoApp};

use super::{Installation, all};

fn rest(mail: &str, app: &str, issuer: &str, jwks_url: &str) -> String {
    format!(
        "[mail]\nurl = \"{mail}\"\nfrom = \"Doorward <login@example.com>\"\n[apps.web]\nupstream = \"{app}\"\n\
         [[rules]]\npath = \"/*\"\nallow = [\"session\", \"bearer\"]\napp = \"web\"\n[[issuers]]\nname = \"main\"\n\
         issuer = \"{issuer}\"\naudiences = [\"app\"]\nkeys = {{ jwks_url = \"{jwks_url}\" }}\n"
    )
}

#[tokio::test]
async fn it_is_content_with_living_neighbours_and_names_each_dead_one_with_a_remedy() {
    let Some(sink) = MailSink::start().await else { return };
    let (app, mut issuer) = (EchoApp::start().await, Issuer::start().await);
    let living = rest(&sink.url(), &app.url(), &issuer.url(), &issuer.jwks_url());
    let installation = Installation::with(&living);
    let fine = installation.run(&["check"]).await;
    assert_eq!(fine.status.code(), Some(0), "{}", all(&fine));

    issuer.die().await;
    let ended = installation.run(&["check"]).await;
    assert_eq!(ended.status.code(), Some(1), "{}", all(&ended));
    assert!(all(&ended).contains("issuer main"), "{}", all(&ended));

    let dead = || format!("127.0.0.1:{}", port::free());
    let store = format!(
        "[store]\nurl = \"postgres://app@{}/nothing\"\n[secrets]\nroot = \"only for this test, only for this test\"\n",
        dead()
    );
    let (smtp, app) = (format!("smtp://{}", dead()), format!("http://{}", dead()));
    installation.configure(&(store + &rest(&smtp, &app, &issuer.url(), &issuer.jwks_url())));
    let ended = installation.run(&["check"]).await;
    let said = all(&ended);
    assert_eq!(ended.status.code(), Some(1), "{said}");
    for part in
        ["store postgres", "mail server smtp", "issuer main", "app web", "start the database", "start the mail server"]
    {
        assert!(said.contains(part), "{part} in\n{said}");
    }
    installation.configure(&(rest(&smtp, &app, "x", "not a URL") + "surprise = 1\n"));
    let ended = installation.run(&["check"]).await;
    assert_eq!(ended.status.code(), Some(2), "{}", all(&ended));
    assert!(all(&ended).contains("surprise") && all(&ended).contains("jwks_url"), "{}", all(&ended));
}
