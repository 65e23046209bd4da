use std::{collections::HashSet, time::Duration};

use doorward_core::{
    effects::{Effects, NewMail},
    id::MailId,
};

use super::{START, all_effects, mail, race, traces};
use crate::{DeadMail, Failure, MailDone, OutboxCounts, RetryMail, Store};

const LEASE: Duration = Duration::from_secs(60);

pub async fn a_claimed_mail_is_nobody_elses_until_its_lease_ends(a: Store, b: Store) {
    let (first, second) = (mail(), NewMail { created_at: START.plus(Duration::from_secs(10)), ..mail() });
    a.append(Effects::default().with_mail(first.clone()).with_mail(second.clone())).await.unwrap();
    let claimed = b.claim_mail(START, LEASE, 10).await.unwrap();
    assert_eq!(claimed.len(), 1, "the other is not due");
    let got = &claimed[0].mail;
    assert_eq!(
        (got.id, &got.to, got.kind.as_str(), got.subject.as_str()),
        (first.id, &first.to, "magic_link", "Sign in")
    );
    assert_eq!((got.text.as_str(), got.html.as_str()), ("the link", "<p>the link</p>"));
    assert_eq!((got.created_at, got.give_up_at, claimed[0].attempts), (first.created_at, first.give_up_at, 1));
    assert_eq!(a.claim_mail(START, LEASE, 10).await, Ok(vec![]), "it is held");
    // The holder died; its lease ends and somebody else takes over.
    let now = START.plus(LEASE);
    assert_eq!(a.claim_mail(now, LEASE, 1).await.unwrap()[0].mail.id, second.id, "the one due longest, no more");
    let again = a.claim_mail(now, LEASE, 10).await.unwrap();
    assert_eq!(again.iter().map(|claimed| (claimed.mail.id, claimed.attempts)).collect::<Vec<_>>(), [(first.id, 2)]);
    let late = b.mail_failed(first.id, 1, Failure::GiveUp, String::new(), all_effects()).await;
    assert_eq!(late, Ok(MailDone::NotYours), "a holder whose lease has passed cannot spoil the next");
    assert_eq!(a.outbox_counts().await, Ok(OutboxCounts { pending: 2, dead: 0 }));
    assert_eq!(b.mail_sent(first.id, Effects::default()).await, Ok(MailDone::Done));
    assert_eq!(b.mail_sent(first.id, all_effects()).await, Ok(MailDone::NotYours));
}

pub async fn many_senders_never_hold_one_mail_twice(a: Store, b: Store) {
    for _ in 0..50 {
        a.append(Effects::default().with_mail(mail())).await.unwrap();
    }
    let claims = race(16, &a, &b, |store, _| async move {
        let mut mine: Vec<MailId> = Vec::new();
        for _ in 0..100 {
            let claimed = store.claim_mail(START, LEASE, 3).await.unwrap();
            mine.extend(claimed.iter().map(|claimed| claimed.mail.id));
            if claimed.is_empty() {
                break;
            }
        }
        mine
    })
    .await;
    let all: Vec<MailId> = claims.into_iter().flatten().collect();
    assert_eq!(all.len(), all.iter().collect::<HashSet<_>>().len());
    let left = a.claim_mail(START, LEASE, 100).await.unwrap();
    assert_eq!(all.len() + left.len(), 50, "a mail that was skipped is still there");
}

pub async fn a_mail_given_up_keeps_no_text(a: Store, b: Store) {
    let mail = mail();
    a.append(Effects::default().with_mail(mail.clone())).await.unwrap();
    let later = START.plus(Duration::from_secs(30));
    for attempt in 1..=2 {
        let now = if attempt == 1 { START } else { later };
        assert_eq!(b.claim_mail(now, LEASE, 1).await.unwrap()[0].attempts, attempt);
        if attempt == 1 {
            let retry = Failure::Retry { at: later };
            let noisy = "451 \0 try again \u{fc}".repeat(100);
            assert_eq!(a.mail_failed(mail.id, 1, retry, noisy, Effects::default()).await, Ok(MailDone::Done));
            assert_eq!(a.claim_mail(START, LEASE, 1).await, Ok(vec![]), "not before its time");
        }
    }
    assert_eq!(a.outbox_counts().await, Ok(OutboxCounts { pending: 1, dead: 0 }));
    let before = traces(&a).await;
    let stale = b.mail_failed(mail.id, 1, Failure::GiveUp, String::new(), all_effects()).await;
    assert_eq!((stale, traces(&a).await), (Ok(MailDone::NotYours), before), "an attempt of an earlier claim");
    let given_up = b.mail_failed(mail.id, 2, Failure::GiveUp, "550 no".to_owned(), Effects::default()).await;
    assert_eq!(given_up, Ok(MailDone::Done));
    assert_eq!(a.outbox_counts().await, Ok(OutboxCounts { pending: 0, dead: 1 }));
    assert_eq!(a.claim_mail(START.plus(LEASE * 99), LEASE, 1).await, Ok(vec![]), "a dead letter is never claimed");
}

pub async fn a_parked_mail_can_be_tried_again_and_an_emptied_one_cannot(a: Store, b: Store) {
    let (parked, emptied) = (mail(), NewMail { created_at: START.minus(LEASE), ..mail() });
    for mail in [&parked, &emptied] {
        a.append(Effects::default().with_mail(mail.clone())).await.unwrap();
    }
    assert_eq!(a.claim_mail(START, LEASE, 10).await.unwrap().len(), 2);
    let fail = async |id, failure| {
        let done = b.mail_failed(id, 1, failure, "550 no".to_owned(), Effects::default()).await;
        assert_eq!(done, Ok(MailDone::Done));
    };
    assert_eq!(a.dead_mails(10).await, Ok(vec![]));
    fail(parked.id, Failure::Park).await;
    fail(emptied.id, Failure::GiveUp).await;
    let dead = |mail: &NewMail, whole| DeadMail {
        id: mail.id,
        to: mail.to.clone(),
        kind: mail.kind.to_owned(),
        created_at: mail.created_at,
        attempts: 1,
        error: Some("550 no".to_owned()),
        whole,
    };
    assert_eq!(a.dead_mails(10).await, Ok(vec![dead(&parked, true), dead(&emptied, false)]));
    assert_eq!(a.dead_mails(1).await.unwrap().len(), 1);
    let now = START.plus(Duration::from_hours(5));
    let until = now.plus(LEASE);
    let before = traces(&a).await;
    assert_eq!(b.retry_mail(emptied.id, now, until, all_effects()).await, Ok(RetryMail::Empty));
    assert_eq!(b.retry_mail(mail().id, now, until, all_effects()).await, Ok(RetryMail::Unknown));
    assert_eq!(traces(&a).await, before);
    assert_eq!(b.retry_mail(parked.id, now, until, Effects::default()).await, Ok(RetryMail::Queued));
    assert_eq!(b.retry_mail(parked.id, now, until, all_effects()).await, Ok(RetryMail::Unknown), "it is not dead now");
    let claimed = a.claim_mail(now, LEASE, 10).await.unwrap();
    assert_eq!(claimed.len(), 1);
    assert_eq!((claimed[0].mail.text.as_str(), claimed[0].mail.give_up_at), (parked.text.as_str(), until));
    assert_eq!(claimed[0].attempts, 2);
}

pub async fn old_dead_letters_are_removed_and_no_others(a: Store, b: Store) {
    // More than one batch of a purge.
    let old: Vec<NewMail> = (0..510).map(|_| mail()).collect();
    let young = NewMail { created_at: START.plus(Duration::from_secs(1)), ..mail() };
    for mail in old.iter().chain([&young]) {
        a.append(Effects::default().with_mail(mail.clone())).await.unwrap();
    }
    let now = START.plus(LEASE);
    assert_eq!(a.claim_mail(now, LEASE, 1000).await.unwrap().len(), 511);
    assert_eq!(b.purge_dead_mails(now).await, Ok(0), "what may still be sent stays, however old");
    for mail in old.iter().chain([&young]) {
        b.mail_failed(mail.id, 1, Failure::GiveUp, String::new(), Effects::default()).await.unwrap();
    }
    assert_eq!(b.purge_dead_mails(START).await, Ok(510));
    assert_eq!(a.dead_mails(10).await.unwrap().iter().map(|mail| mail.id).collect::<Vec<_>>(), [young.id]);
}

pub async fn what_waits_after_a_failure_is_due_at_once_when_it_is_asked_for_and_nothing_else_is(a: Store, b: Store) {
    let [waiting, held, dead] = [mail(), mail(), mail()];
    let new = NewMail { created_at: START.plus(LEASE), ..mail() };
    for mail in [&waiting, &held, &dead, &new] {
        a.append(Effects::default().with_mail(mail.clone())).await.unwrap();
    }
    let fail = async |id, attempt, failure| {
        let done = a.mail_failed(id, attempt, failure, "535 no".to_owned(), Effects::default()).await;
        assert_eq!(done, Ok(MailDone::Done));
    };
    assert_eq!(a.claim_mail(START, LEASE, 10).await.unwrap().len(), 3);
    assert_eq!(b.retry_mails_now(START).await, Ok(0), "all of them are held, and none has failed");
    // One that failed before is held again: its holder is not disturbed.
    fail(held.id, 1, Failure::Retry { at: START }).await;
    assert_eq!(a.claim_mail(START, LEASE, 10).await.unwrap().len(), 1);
    fail(waiting.id, 1, Failure::Retry { at: START.plus(LEASE * 10) }).await;
    fail(dead.id, 1, Failure::Park).await;
    let before = traces(&a).await;
    assert_eq!(b.retry_mails_now(START).await, Ok(1));
    assert_eq!(b.retry_mails_now(START).await, Ok(0));
    assert_eq!(traces(&a).await, before);
    let claimed = a.claim_mail(START, LEASE, 10).await.unwrap();
    assert_eq!(
        claimed.iter().map(|claimed| (claimed.mail.id, claimed.attempts)).collect::<Vec<_>>(),
        [(waiting.id, 2)]
    );
}
