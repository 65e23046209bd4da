//! The suite that every backend passes: one list of cases for memory, SQLite and PostgreSQL.
//!
//! A case gets two handles on one empty store: two clones of it in memory, two separately opened handles on SQL, as
//! two processes would have. It panics with a sentence if the store breaks a promise. `for_each_case!` hands the list
//! to a macro of the test, so a case cannot be forgotten for one backend.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a case fails its test by panicking")]
#![allow(missing_docs, reason = "the names of cases are sentences")]

mod api_keys;
mod blocklist;
mod codes;
mod effects;
mod keys;
mod licenses;
mod links;
mod outbox;
mod people;
mod runtime;
mod sessions;
mod users;

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use doorward_core::{
    api_key::{ApiKey, KeyOwner},
    audit::{AuditEvent, EventKind},
    effects::{Effects, NewMail},
    id::{ApiKeyId, LinkId, MailId, SessionId, UserId},
    link::{ConsumeLink, Link, LinkPurpose, Proof},
    revocation::{NewRevocation, Scope},
    session::{Session, SignInMethod, TokenHash},
    time::Timestamp,
    user::{Email, User},
};
use tokio::{sync::Barrier, task::JoinSet};

pub use self::{
    api_keys::*, blocklist::*, codes::*, effects::*, keys::*, licenses::*, links::*, outbox::*, people::*, runtime::*,
    sessions::*, users::*,
};
use crate::{CreateUser, Store};

/// Hands the list of cases to `$callback!`.
#[macro_export]
macro_rules! for_each_case {
    ($callback:ident) => {
        $callback! {
            a_user_is_found_by_id_and_address,
            an_address_belongs_to_one_user_however_many_ask_at_once,
            users_come_in_pages_in_the_order_of_their_ids,
            a_ban_counts_the_version_up_and_an_unknown_user_is_named,
            an_identity_belongs_to_one_user,
            password_hashes_are_read_of_the_newest_users_first_and_of_nobody_else,
            a_license_is_kept_for_each_holder,
            a_plan_on_what_is_no_longer_known_changes_nothing,
            a_license_webhook_is_taken_once_and_an_older_one_never,
            of_many_who_learn_of_a_license_at_once_one_writes,
            of_license_webhooks_that_come_at_once_the_highest_number_taken_stays,
            a_license_hint_stays_until_somebody_asked_after_it,
            licenses_that_end_are_found_in_the_order_of_their_holders,
            licenses_that_were_asked_about_in_vain_stand_behind_those_that_were_not,
            a_license_that_is_forgotten_is_whatever_is_said_next,
            a_user_is_found_by_the_subject_of_the_license_provider,
            a_link_is_found_and_consumed_once,
            a_hundred_callers_consume_a_link_once,
            a_link_of_a_user_who_changed_is_not_consumed,
            consuming_a_link_ends_the_session_it_replaces,
            a_session_is_found_with_its_user_and_ends_once,
            sessions_end_by_user_by_name_and_all,
            so_many_sessions_that_one_transaction_would_not_do_end_all_the_same,
            of_many_sessions_the_newest_are_listed_and_each_is_found,
            a_touch_never_moves_back_and_never_revives,
            ending_wins_over_any_number_of_touches,
            a_purge_removes_what_is_over_and_nothing_else,
            an_api_key_is_found_with_its_owner_and_revoked_once,
            an_api_key_is_touched_forward_only,
            a_ring_rotates_current_to_previous_to_retired,
            of_many_processes_that_rotate_a_key_one_wins,
            an_older_key_set_of_an_issuer_never_replaces_a_newer_one,
            a_claimed_mail_is_nobody_elses_until_its_lease_ends,
            many_senders_never_hold_one_mail_twice,
            a_mail_given_up_keeps_no_text,
            an_external_subject_belongs_to_one_user,
            a_candidate_is_promoted_only_while_it_waits,
            an_import_makes_all_of_a_batch_or_none,
            a_password_hash_is_found_only_where_there_is_one,
            a_role_counts_the_version_up,
            an_address_changes_to_one_that_is_free,
            confirming_an_address_ends_the_other_sessions_and_happens_once,
            a_session_begins_without_a_link_for_the_user_who_was_checked,
            the_first_administrator_is_claimed_once,
            a_purge_removes_who_signed_up_and_never_proved_it,
            a_purge_leaves_who_came_back_since_it_looked,
            a_newer_link_voids_older_ones_of_the_same_user_purpose_and_browser,
            a_link_and_its_code_begin_one_session_however_many_ask,
            a_code_is_tried_five_times_however_many_try,
            the_codes_of_a_browser_are_found_newest_first,
            a_re_authentication_needs_the_session_that_asked,
            a_sign_in_promotes_the_candidate_that_was_compared,
            a_mismatch_is_noted_and_consumes_nothing,
            a_shared_value_is_set_by_who_has_seen_it,
            no_session_that_rests_on_a_shared_value_begins_once_that_was_set_anew,
            method_counts_of_many_processes_add_up,
            two_processes_begin_one_job_once,
            a_run_whose_holder_died_is_begun_again,
            one_run_of_a_job_is_under_way_at_a_time,
            a_purge_keeps_the_newest_run_of_each_job,
            old_dead_letters_are_removed_and_no_others,
            a_parked_mail_can_be_tried_again_and_an_emptied_one_cannot,
            what_waits_after_a_failure_is_due_at_once_when_it_is_asked_for_and_nothing_else_is,
            revocations_are_read_in_order_and_in_pages,
            a_reader_that_polls_misses_no_revocation_of_concurrent_writers,
            the_blocklist_is_what_is_in_force_and_not_lifted,
            what_is_lifted_can_be_blocked_again_and_a_purge_changes_no_answer,
            a_long_blocklist_comes_in_pages,
            what_is_lifted_leaves_the_log_at_once_and_the_lift_itself_once_everybody_has_read_it,
            blocks_and_lifts_without_end_leave_nothing_behind,
            whoever_follows_the_log_and_whoever_begins_anew_agree_however_blocks_and_lifts_race,
            an_operation_that_fails_leaves_nothing_behind,
            a_failing_operation_takes_no_other_with_it,
            an_outcome_without_a_change_writes_no_effect,
            changes_of_this_process_wake_its_readers,
            audit_rows_are_sealed_into_a_chain_that_verifies,
            concurrent_audit_rows_make_whole_chains,
            a_checkpoint_is_kept_with_its_heads,
            details_are_erased_with_their_salts_and_the_chain_holds,
        }
    };
}

/// A moment that all cases count from.
pub const START: Timestamp = Timestamp::from_secs(1_800_000_000);

static COUNTER: AtomicU64 = AtomicU64::new(1);

/// Ten bytes that this process never gave out before.
pub fn fresh() -> [u8; 10] {
    let mut bytes = [0; 10];
    bytes[..2].copy_from_slice(&(std::process::id() as u16).to_be_bytes());
    bytes[2..].copy_from_slice(&COUNTER.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    bytes
}

/// A token hash that this process never gave out before.
pub fn fresh_hash() -> TokenHash {
    TokenHash::of(&fresh())
}

/// A user with a new address.
pub fn user() -> User {
    let id = UserId::mint(START, fresh());
    User::new(id, Email::parse(&format!("{id}@example.com")).unwrap(), START)
}

/// A session of `user`, begun at [`START`].
pub fn session(user: &User) -> Session {
    Session {
        id: SessionId::mint(START, fresh()),
        hash: fresh_hash(),
        user_id: user.id,
        org_id: None,
        method: SignInMethod::MagicLink,
        created_at: START,
        authenticated_at: START,
        last_used_at: START,
        expires_at: START.plus(std::time::Duration::from_hours(168)),
        ip: Some("2001:db8::7".parse().unwrap()),
        user_agent: Some("a browser".to_owned()),
    }
}

/// A link for `user`, made at [`START`].
pub fn link(user: &User) -> Link {
    Link {
        id: LinkId::mint(START, fresh()),
        purpose: LinkPurpose::SignIn,
        user_id: user.id,
        user_version: user.version,
        email: user.email.clone(),
        browser: fresh_hash(),
        return_to: "/after?x=1#y".to_owned(),
        created_at: START,
        expires_at: START.plus(std::time::Duration::from_mins(15)),
        used_at: None,
        voided_at: None,
        code: None,
    }
}

/// The plan to consume `link` into a new session.
pub fn plan(link: &Link, user: &User) -> ConsumeLink {
    ConsumeLink {
        link: link.id,
        user_id: user.id,
        user_version: user.version,
        by: Proof::Link,
        promote: None,
        at: START.plus(std::time::Duration::from_mins(1)),
        requires: None,
        session: session(user),
        replaces: None,
    }
}

/// An API key of `owner`.
pub fn api_key(owner: KeyOwner) -> ApiKey {
    ApiKey {
        id: ApiKeyId::mint(START, fresh()),
        hash: fresh_hash(),
        owner,
        org_id: None,
        name: "ci".to_owned(),
        prefix: "dwk_abcd".to_owned(),
        capabilities: ["deploy".to_owned(), "read \"it\"".to_owned()].into(),
        created_at: START,
        expires_at: None,
        revoked_at: None,
        deleted_at: None,
        last_used_at: None,
    }
}

/// A mail that is due at [`START`].
pub fn mail() -> NewMail {
    NewMail {
        id: MailId::mint(START, fresh()),
        to: Email::parse("somebody@example.com").unwrap(),
        kind: "magic_link",
        subject: "Sign in".to_owned(),
        text: "the link".to_owned(),
        html: "<p>the link</p>".to_owned(),
        created_at: START,
        give_up_at: START.plus(std::time::Duration::from_mins(15)),
    }
}

/// An entry of the revocation log.
pub fn revocation(why: &str) -> NewRevocation {
    NewRevocation { scope: Scope::AllSessions, at: START, until: None, why: why.to_owned() }
}

/// Effects of every kind.
pub fn all_effects() -> Effects {
    Effects::audited(AuditEvent::new(EventKind::SessionCreated, START))
        .with_mail(mail())
        .with_revocation(revocation("test"))
}

/// Stores a new user and gives it back.
pub async fn stored_user(store: &Store) -> User {
    let user = user();
    assert_eq!(store.create_user(user.clone(), Effects::default()).await, Ok(CreateUser::Created));
    user
}

/// Everything that effects leave behind: rows of the audit log, mails, last revocation.
pub(crate) async fn traces(store: &Store) -> (usize, u64, i64) {
    let outbox = store.outbox_counts().await.unwrap();
    let audit = store.audit_tail(0, 1000).await.unwrap();
    (audit.len(), outbox.pending + outbox.dead, store.last_revocation().await.unwrap())
}

/// Runs `count` callers that start together, half of them on each handle, and collects what they got.
pub(crate) async fn race<F, T>(count: usize, a: &Store, b: &Store, call: impl Fn(Store, usize) -> F) -> Vec<T>
where
    F: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    let barrier = Arc::new(Barrier::new(count));
    let mut callers = JoinSet::new();
    for number in 0..count {
        let store = if number % 2 == 0 { a.clone() } else { b.clone() };
        let (run, barrier) = (call(store, number), Arc::clone(&barrier));
        callers.spawn(async move {
            barrier.wait().await;
            run.await
        });
    }
    callers.join_all().await
}
