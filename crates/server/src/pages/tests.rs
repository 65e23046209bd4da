use std::{net::Ipv4Addr, time::Duration};

use doorward_core::{
    decision::Denial,
    id::{DecisionId, MailId, SessionId, UserId},
    principal::SubjectId,
    reason::{Exposure, Reason, Remedy},
    session::{Session, SignInMethod, TokenHash},
    time::Timestamp,
    user::Email,
};
use doorward_store::Mail;
use http::Method;

use super::*;
use crate::http::routes;

const AT: Timestamp = Timestamp::from_secs(1_800_000_000);
/// What a page must not take over as it is, in any place where somebody else's text goes.
const PAYLOADS: &[&str] = &[
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>",
    "' autofocus onfocus='alert(1)",
    "</title></textarea></style><svg/onload=alert(1)>",
    "<!--<script>--!><b>",
    "{{ 7 * 7 }}{% raw %}",
    "javascript:alert(1)",
    "&lt;b&gt;&quot;\u{202e}\u{0}",
];

fn site() -> Site {
    Site { name: "app.example.com".to_owned(), base: "/auth".to_owned() }
}

fn decision() -> DecisionId {
    DecisionId::mint(AT, [7; 10])
}

fn email() -> Email {
    Email::parse("alice@example.com").unwrap()
}

fn profile_page(email: Option<&Email>, subject: &SubjectId) -> String {
    profile(
        &site(),
        &Profile {
            email,
            subject,
            method: SignInMethod::MagicLink,
            created_at: AT,
            authenticated_at: AT.plus(Duration::from_secs(1800)),
            idle_expires_at: AT.plus(Duration::from_secs(3600)),
            expires_at: AT.plus(Duration::from_secs(604_800)),
            license: None,
            client: Some(Ipv4Addr::LOCALHOST.into()),
        },
    )
}

const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";

/// The first is the one that asks.
fn sessions_page(count: u8, user_agent: Option<&str>) -> String {
    let listed: Vec<_> = (0..count)
        .map(|n| Session {
            id: SessionId::mint(AT, [n; 10]),
            hash: TokenHash::of(&[n]),
            user_id: UserId::mint(AT, [1; 10]),
            org_id: None,
            method: SignInMethod::MagicLink,
            created_at: AT,
            authenticated_at: AT,
            last_used_at: AT,
            expires_at: AT,
            ip: Some(Ipv4Addr::LOCALHOST.into()),
            user_agent: user_agent.map(str::to_owned),
        })
        .collect();
    sessions(&site(), &Sessions { sessions: &listed, is_cut: false, current: listed[0].id, csrf: "aGVsbG8" })
}

fn inbox_page(email: &str, return_to: &str, in_demo: bool) -> String {
    inbox_of(email, return_to, in_demo, false)
}

fn inbox_of(email: &str, return_to: &str, in_demo: bool, is_re_auth: bool) -> String {
    let (link_ttl, code_ttl) = (Duration::from_secs(900), Duration::from_secs(600));
    check_inbox(&site(), &CheckInbox { email, return_to, link_ttl, code_ttl, in_demo, is_re_auth })
}

fn denied_page(denial: &Denial, return_to: &str) -> String {
    denied(&site(), &Denied { denial, decision: decision(), return_to })
}

fn mail_of(subject: &str, text: &str) -> Mail {
    Mail {
        id: MailId::mint(AT, [3; 10]),
        to: email(),
        kind: "magic_link".into(),
        subject: subject.to_owned(),
        text: text.to_owned(),
        html: String::new(),
        created_at: AT,
        give_up_at: AT,
    }
}

fn identity(value: &str) -> Vec<(String, String)> {
    let names = ["X-Doorward-Subject", "X-Doorward-Email", "X-Doorward-Method", "X-Doorward-Org"];
    let values = ["019b76da-a800-7000-8000-000000000000", value, "session", ""];
    names.into_iter().map(str::to_owned).zip(values.into_iter().map(str::to_owned)).collect()
}

/// Every page in every state that looks different, by name.
fn samples() -> Vec<(String, String)> {
    let site = site();
    let token = "eyJhbGciOiJIUzI1NiJ9.eyJqdGkiOiJ4In0.c2lnbmF0dXJl";
    let user = SubjectId::local(UserId::mint(AT, [1; 10]));
    let link =
        "Sign in here:\n\nhttp://127.0.0.1:8080/auth/login/callback?token=aaa.bbb.ccc\n\nIt works for 15 minutes.";
    let mut pages = vec![
        ("login", login(&site, &Login { return_to: "/reports?year=2027", ..Login::default() })),
        ("login-password", login(&site, &Login { with_password: true, ..Login::default() })),
        ("login-idle", login(&site, &Login { ended: Some(Reason::SessionIdle), ..Login::default() })),
        ("inbox", inbox_page("alice@example.com", "/", false)),
        ("inbox-demo", inbox_page("alice@example.com", "/", true)),
        ("inbox-re-auth", inbox_of("alice@example.com", "/vault?x=1", false, true)),
        ("confirm", confirm(&site, &Confirm { token, email: &email(), goes_on: false, other: None })),
        ("confirm-goes-on", confirm(&site, &Confirm { token, email: &email(), goes_on: true, other: None })),
        ("elsewhere", elsewhere(&site)),
        ("docs", docs(&site)),
        ("signed-out", signed_out(&site)),
        ("profile", profile_page(Some(&email()), &user)),
        ("profile-unproven", profile_page(None, &user)),
        ("sessions", sessions_page(2, Some(FIREFOX))),
        ("sessions-one", sessions_page(1, None)),
        ("re-auth", re_auth(&site, &ReAuth { email: "alice@example.com", return_to: "/x?y=1", csrf: "aGVsbG8" })),
        ("demo-app", demo::app(&site, "/auth", "http://127.0.0.1:8080", &identity("alice@example.com"))),
        ("demo-app-stranger", demo::app(&site, "/auth", "http://127.0.0.1:8080", &[])),
        ("mailbox", demo::mailbox(&site, &[mail_of("Sign in to app", link), mail_of("Sign in to app", link)])),
        ("mailbox-empty", demo::mailbox(&site, &[])),
        ("mail", demo::mail(&site, &mail_of("Sign in to app.example.com", link))),
        ("mailbox-closed", demo::mailbox_closed(&site, false)),
        ("mailbox-used", demo::mailbox_closed(&site, true)),
    ]
    .into_iter()
    .map(|(name, html)| (name.to_owned(), html))
    .collect::<Vec<_>>();
    for &reason in Reason::ALL {
        let denial = Denial::from(reason).with_required("deploy").with_max_age(300);
        pages.push((format!("denied-{}", reason.code()), denied_page(&denial, "/reports?year=2027")));
    }
    pages
}

/// The tags of a page with the names of their attributes, values taken out. Sound because the pages quote
/// every value and escaped text holds none of `<`, `>`, `"`.
fn skeleton(html: &str) -> Vec<String> {
    let tags = html.split('<').skip(1);
    tags.map(|tag| {
        let tag = tag.split('>').next().unwrap();
        tag.split('"').step_by(2).collect::<Vec<_>>().join("\"")
    })
    .collect()
}

fn attributes<'a>(html: &'a str, name: &str) -> Vec<&'a str> {
    let opening = format!(" {name}=\"");
    html.split(opening.as_str()).skip(1).map(|rest| rest.split('"').next().unwrap()).collect()
}

fn text_between<'a>(html: &'a str, from: &str, to: &str) -> &'a str {
    html.split_once(from).and_then(|(_, rest)| rest.split_once(to)).map(|(text, _)| text).unwrap()
}

#[test]
fn pages_say_how_it_was_and_not_how_it_mostly_is() {
    let subject = SubjectId::local(UserId::mint(AT, [1; 10]));
    assert!(profile_page(Some(&email()), &subject).contains("a link in a mail"));
    let first = profile_page(None, &subject);
    assert!(first.contains("the address for the first administrator") && !first.contains("a link in a mail"));
    let (asked, proof) = (inbox_page("a@b.test", "/x", false), inbox_of("a@b.test", "/x", false, true));
    for (text, in_asked) in [("may sign in here", true), ("typing mistake", true), ("You stay signed in", false)] {
        assert_eq!((asked.contains(text), proof.contains(text)), (in_asked, !in_asked), "{text}");
    }
    assert!(asked.contains("/auth/login?return_to=%2Fx") && proof.contains("/auth/reauth?return_to=%2Fx"), "{proof}");
}

#[test]
fn every_page_has_what_a_page_needs() {
    for (name, html) in samples() {
        assert!(html.starts_with("<!doctype html>\n<html lang=\"en\">"), "{name}");
        assert!(text_between(&html, "<title>", "</title>").ends_with(" · app.example.com"), "{name}");
        assert!(!text_between(&html, "<title>", "</title>").starts_with(" ·"), "{name}");
        for once in ["<h1>", "<main>", "<header", "<footer", "name=\"viewport\"", "rel=\"stylesheet\""] {
            assert_eq!(html.matches(once).count(), 1, "{name}: {once}");
        }
        for left in ["{{", "{%", "{#"] {
            assert!(!html.contains(left), "{name}: {left}");
        }
        let ids = attributes(&html, "id");
        for id in &ids {
            assert_eq!(ids.iter().filter(|other| other == &id).count(), 1, "{name}: {id}");
        }
        for list in attributes(&html, "for").into_iter().chain(attributes(&html, "aria-describedby")) {
            for id in list.split(' ') {
                assert!(ids.contains(&id), "{name}: {id}");
            }
        }
        // Every field that is seen has a label.
        for input in html.split("<input ").skip(1).filter(|input| !input.starts_with("type=\"hidden\"")) {
            let id = attributes(&format!(" {input}"), "id")[0].to_owned();
            assert!(html.contains(&format!("<label for=\"{id}\">")), "{name}: {id}");
        }
    }
}

#[test]
fn no_page_has_inline_script_or_style_or_loads_from_elsewhere() {
    let known: Vec<_> = assets().iter().map(|asset| format!("/auth{}", asset.path)).collect();
    for (name, html) in samples() {
        let tags = skeleton(&html);
        for tag in &tags {
            let words: Vec<_> = tag.split_ascii_whitespace().collect();
            assert!(words.iter().all(|word| !word.starts_with("on") && !word.starts_with("style=")), "{name}: {tag}");
            assert!(words.first() != Some(&"style"), "{name}");
            assert!(words.first() != Some(&"script") || tag.contains("src="), "{name}: {tag}");
        }
        assert!(html.contains("<script src=\"") == (name == "confirm-goes-on"), "{name}");
        assert!(!html.contains("<script>") && !html.contains("</script") || name == "confirm-goes-on", "{name}");
        for path in attributes(&html, "src").into_iter().chain(attributes(&html, "href")) {
            let is_mail_link = name == "mail" && path.starts_with("http://127.0.0.1:8080/");
            let is_anchor = path.strip_prefix('#').is_some_and(|id| html.contains(&format!("id=\"{id}\"")));
            assert!(is_mail_link || is_anchor || path.starts_with('/') && !path.starts_with("//"), "{name}: {path}");
            assert!(!path.contains("/assets/") || known.iter().any(|asset| asset == path), "{name}: {path}");
        }
        for action in attributes(&html, "action") {
            let found = routes::find("/auth", &Method::POST, action);
            assert!(matches!(found, routes::Found::Route(..)), "{name}: {action}");
        }
    }
}

/// A page with a text of somebody else in one place.
type PageOf<'a> = Box<dyn Fn(&str) -> String + 'a>;

#[test]
fn nothing_that_somebody_else_wrote_changes_the_structure_of_a_page() {
    let site = site();
    let user = SubjectId::local(UserId::mint(AT, [1; 10]));
    let pages: Vec<(&str, PageOf<'_>)> = vec![
        ("login email", Box::new(|text| login(&site, &Login { email: text, ..Login::default() }))),
        ("login return_to", Box::new(|text| login(&site, &Login { return_to: text, ..Login::default() }))),
        ("inbox email", Box::new(|text| inbox_page(text, "/", false))),
        ("inbox return_to", Box::new(|text| inbox_page("a@b.test", &format!("/{text}"), false))),
        ("confirm token", {
            Box::new(|text| confirm(&site, &Confirm { token: text, email: &email(), goes_on: false, other: None }))
        }),
        ("confirm email", {
            Box::new(|text| {
                let email = Email::from_store(format!("{text}@{text}"));
                confirm(&site, &Confirm { token: "t", email: &email, goes_on: false, other: None })
            })
        }),
        ("denied required", {
            Box::new(|text| denied_page(&Denial::from(Reason::MissingCapability).with_required(text), "/"))
        }),
        ("denied return_to", { Box::new(|text| denied_page(&Reason::StoreUnavailable.into(), &format!("/{text}"))) }),
        ("profile email", Box::new(|text| profile_page(Some(&Email::from_store(text.to_owned())), &user))),
        ("profile subject", {
            Box::new(|text| profile_page(Some(&email()), &SubjectId { issuer: text.into(), subject: text.into() }))
        }),
        ("site name", Box::new(|text| signed_out(&Site { name: text.to_owned(), base: String::new() }))),
        ("app identity", Box::new(|text| demo::app(&site, "/auth", "http://127.0.0.1", &identity(text)))),
        ("app header name", {
            Box::new(|text| demo::app(&site, "/auth", "http://h", &[(text.to_owned(), "v".to_owned())]))
        }),
        ("re-auth", Box::new(|text| re_auth(&site, &ReAuth { email: text, return_to: text, csrf: text }))),
        ("session device", Box::new(|text| sessions_page(2, Some(text)))),
        ("mail subject", Box::new(|text| demo::mail(&site, &mail_of(text, "text")))),
        ("mail text", Box::new(|text| demo::mail(&site, &mail_of("subject", text)))),
        ("mail link", Box::new(|text| demo::mail(&site, &mail_of("s", &format!("http://a.test/{text} ."))))),
        ("mailbox", Box::new(|text| demo::mailbox(&site, &[mail_of(text, text)]))),
    ];
    for (place, page) in pages {
        let plain = skeleton(&page("plain"));
        for payload in PAYLOADS {
            let html = page(payload);
            assert_eq!(skeleton(&html), plain, "{place}: {payload}");
            assert!(!html.contains("href=\"javascript:"), "{place}");
        }
    }
}

#[test]
fn what_was_typed_comes_back_exactly() {
    let html =
        login(&site(), &Login { email: "a\"b&<c>'d", return_to: "/?a=1&b=\"2\"", ended: None, ..Login::default() });
    let values: Vec<_> = attributes(&html, "value").into_iter().map(unescape).collect();
    assert_eq!(values, ["/?a=1&b=\"2\"", "a\"b&<c>'d"]);
}

fn unescape(text: &str) -> String {
    let pairs = [("&#34;", "\""), ("&#39;", "'"), ("&#60;", "<"), ("&#62;", ">"), ("&#38;", "&")];
    pairs.into_iter().fold(text.to_owned(), |text, (escaped, plain)| text.replace(escaped, plain))
}

#[test]
fn every_reason_has_a_page_that_says_what_happened_and_what_to_do() {
    for &reason in Reason::ALL {
        let shown = reason.shown();
        let html = unescape(&denied_page(&Denial::from(reason).with_note("for the operator only"), "/x"));
        for said in [shown.text(), shown.remedy().text(), shown.code(), &decision().to_string()] {
            assert!(html.contains(said), "{reason}: {said}");
        }
        assert!(!html.contains("for the operator only"), "{reason}");
        let is_for_programs = matches!(
            shown.remedy(),
            Remedy::RefreshToken | Remedy::ReplaceKey | Remedy::RenewLicense | Remedy::AskOperator | Remedy::None
        );
        assert_eq!(html.contains("<a class=\"button\""), !is_for_programs, "{reason}");
        assert_eq!(html.contains("It may work again in"), matches!(shown.status(), 429 | 503), "{reason}");
    }
}

#[test]
fn a_masked_reason_gives_nothing_of_itself_away() {
    let masked = Reason::ALL.iter().filter(|reason| reason.exposure() != Exposure::Public);
    for &reason in masked {
        let denial = Denial::from(reason).with_required("needed-thing").with_retry_after(77);
        let html = denied_page(&denial, "/");
        for hidden in [reason.code(), reason.text(), "needed-thing", "77 seconds"] {
            assert!(!html.contains(hidden), "{reason}: {hidden}");
        }
    }
}

#[test]
fn the_reference_explains_what_callers_are_told_and_nothing_else() {
    let html = docs(&site());
    for &reason in Reason::ALL {
        let is_there = html.contains(&format!("id=\"{}\"", reason.code()));
        assert_eq!(is_there, reason.shown() == reason, "{reason}");
    }
}

#[test]
fn a_dead_link_offers_a_new_one_and_keeps_the_way_back() {
    for reason in [Reason::LinkExpired, Reason::LinkReused, Reason::LinkInvalid, Reason::MissingToken] {
        let html = denied_page(&reason.into(), "/reports?year=2027");
        assert!(
            html.contains("href=\"/auth/login?return_to=%2Freports%3Fyear%3D2027\">Ask for a new link<"),
            "{reason}"
        );
    }
    let html = denied_page(&Reason::LinkExpired.into(), "https://evil.test/");
    assert!(html.contains("href=\"/auth/login\">Ask for a new link<"));
}

#[test]
fn the_callback_page_names_the_account_only_in_part() {
    let html = confirm(&site(), &Confirm { token: "a.b.c", email: &email(), goes_on: false, other: None });
    assert!(html.contains("a•••@example.com") && !html.contains("alice"));
    assert!(html.contains("<input type=\"hidden\" name=\"token\" value=\"a.b.c\">"));
    assert_eq!(html.matches("<button").count(), 1);
}

#[test]
fn another_browser_gets_neither_form_nor_token() {
    let html = elsewhere(&site());
    assert!(!html.contains("<form") && !html.contains("<input") && !html.contains("<button"));
    assert!(html.contains(Reason::LinkWrongBrowser.text()));
}

#[test]
fn a_session_that_is_over_is_named_on_the_login_page_and_a_masked_reason_is_not() {
    let html = login(&site(), &Login { ended: Some(Reason::SessionIdle), ..Login::default() });
    assert!(html.contains(Reason::SessionIdle.text()) && html.contains("role=\"status\""));
    let html = login(&site(), &Login { ended: Some(Reason::UntrustedPeer), ..Login::default() });
    assert!(html.contains(Reason::NotFound.text()) && !html.contains(Reason::UntrustedPeer.text()));
}

/// For looking at them: writes every page and asset below the folder that the variable names.
#[test]
fn every_page_is_rendered_the_same_twice() {
    assert_eq!(samples(), samples());
    let Some(folder) = std::env::var_os("DOORWARD_PAGES_OUT").map(std::path::PathBuf::from) else { return };
    std::fs::create_dir_all(folder.join("auth/assets")).unwrap();
    for (name, html) in samples() {
        std::fs::write(folder.join(format!("{name}.html")), html).unwrap();
    }
    for asset in assets() {
        std::fs::write(folder.join(format!("auth{}", asset.path)), asset.bytes).unwrap();
    }
}
