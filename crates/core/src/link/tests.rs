use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_400);

fn user() -> User {
    User { version: 3, ..User::new(UserId::mint(NOW, [1; 10]), Email::parse("a@example.com").unwrap(), NOW) }
}

fn browser(byte: u8) -> TokenHash {
    TokenHash::from_bytes([byte; 32])
}

fn request() -> LinkRequest {
    LinkRequest {
        id: LinkId::mint(NOW, [2; 10]),
        browser: browser(1),
        return_to: "/reports".into(),
        ttl: Duration::from_secs(900),
        asker: Asker::new(Some("192.0.2.7".parse().unwrap()), Some("Firefox/140")),
    }
}

fn link() -> Link {
    plan_request(&user(), request(), NOW).unwrap().0
}

fn new_session(replaces: Option<Session>) -> NewSession {
    NewSession {
        id: SessionId::mint(NOW, [3; 10]),
        hash: browser(9),
        method: SignInMethod::MagicLink,
        absolute: Duration::from_secs(7 * 86_400),
        asker: Asker::default(),
        replaces,
    }
}

fn refused(link: &Link, user: &User, browser: Option<&TokenHash>, now: Timestamp) -> Option<Reason> {
    check(link, user, browser, now).err().map(|denial| denial.reason)
}

#[test]
fn a_link_signs_in_the_browser_that_asked_until_it_ends() {
    let (link, user) = (link(), user());
    assert_eq!(refused(&link, &user, Some(&browser(1)), NOW), None);
    assert_eq!(refused(&link, &user, Some(&browser(1)), link.expires_at.minus(Duration::from_millis(1))), None);
    assert_eq!(refused(&link, &user, Some(&browser(1)), link.expires_at), Some(Reason::LinkExpired));
    assert_eq!(link.expires_at.as_millis() % 1000, 0, "the token ends at the same moment");
}

#[test]
fn another_browser_and_none_are_the_wrong_browser() {
    for other in [Some(browser(2)), None] {
        assert_eq!(refused(&link(), &user(), other.as_ref(), NOW), Some(Reason::LinkWrongBrowser));
    }
}

#[test]
fn a_changed_or_other_user_voids_the_link_and_a_ban_is_named_only_to_the_right_browser() {
    let link = link();
    let moved = User { email: Email::parse("b@example.com").unwrap(), ..user() };
    let newer = User { version: 4, ..user() };
    let other = User { id: UserId::mint(NOW, [8; 10]), ..user() };
    for user in [moved, newer, other] {
        assert_eq!(refused(&link, &user, Some(&browser(1)), NOW), Some(Reason::LinkInvalid));
    }
    let banned = User { banned_at: Some(NOW), version: 4, ..user() };
    assert_eq!(refused(&link, &banned, Some(&browser(1)), NOW), Some(Reason::UserBanned));
    assert_eq!(refused(&link, &banned, Some(&browser(2)), NOW), Some(Reason::LinkWrongBrowser));
}

#[test]
fn a_used_link_says_so_whoever_asks() {
    let used = Link { used_at: Some(NOW), ..link() };
    for browser in [Some(browser(1)), Some(browser(2)), None] {
        assert_eq!(refused(&used, &user(), browser.as_ref(), used.expires_at), Some(Reason::LinkReused));
    }
}

#[test]
fn a_banned_user_gets_no_link() {
    let banned = User { banned_at: Some(NOW), ..user() };
    assert_eq!(plan_request(&banned, request(), NOW).unwrap_err().reason, Reason::UserBanned);
}

#[test]
fn consuming_begins_a_session_and_ends_the_one_that_was_there() {
    let (plan, effects) = plan_consume(&link(), new_session(None), NOW);
    assert_eq!((plan.link, plan.user_version, plan.replaces), (link().id, 3, None));
    assert_eq!(plan.session.expires_at, NOW.plus(Duration::from_secs(7 * 86_400)));
    assert_eq!(effects.audit.iter().map(|event| event.kind).collect::<Vec<_>>(), [EventKind::SessionCreated]);
    assert!(effects.revocations.is_empty());

    let old = Session { id: SessionId::mint(NOW, [7; 10]), hash: browser(7), ..plan.session };
    let (plan, effects) = plan_consume(&link(), new_session(Some(old.clone())), NOW);
    assert_eq!(plan.replaces, Some(old.hash));
    assert_eq!(effects.audit.len(), 2);
    assert_eq!(effects.revocations[0].scope, Scope::Session { id: old.id });
    assert_eq!(effects.revocations[0].until, Some(old.expires_at));
}

#[test]
fn a_promotion_voids_what_is_remembered_of_the_license_of_a_user_without_a_subject() {
    let (mut plan, mut effects) = plan_consume(&link(), new_session(None), NOW);
    promote(&mut plan, &mut effects, Promotion::Mismatch);
    assert!(effects.revocations.is_empty());
    promote(&mut plan, &mut effects, Promotion::Promote { subject: "kg-1".to_owned() });
    let scopes: Vec<_> = effects.revocations.iter().map(|entry| entry.scope.clone()).collect();
    // An entry about the user would end the very session that begins.
    assert_eq!(scopes, [Scope::License { holder: Holder::User(plan.user_id) }]);
    assert!(effects.revocations[0].until.is_some_and(|until| until > NOW));
}

#[test]
fn a_user_agent_is_cut_at_a_character_and_loses_its_controls() {
    let long = format!("{}é", "x".repeat(Asker::USER_AGENT_MAX - 1));
    let asker = Asker::new(None, Some(&long));
    assert_eq!(asker.user_agent().unwrap().len(), Asker::USER_AGENT_MAX - 1);
    assert_eq!(Asker::new(None, Some("a\u{1b}[31m\r\nb")).user_agent(), Some("a[31mb"));
}
