//! The store in memory: for tests, demos and hosts that keep nothing. Forgets everything with its last handle.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use doorward_core::{
    api_key::{ApiKey, KeyOwner},
    audit::AuditRow,
    effects::Effects,
    id::{LinkId, MailId, UserId},
    license::Holder,
    link::Link,
    one_time::OneTime,
    revocation::NewRevocation,
    ring::RingKey,
    secret::Secret,
    session::{Session, TokenHash},
    time::Timestamp,
    user::{Email, User},
};

use crate::{
    Checkpoint, CountKind, CreateUser, JobRun, LicenseRow, Mail, State,
    chain::Chain,
    op::{Read, Write},
    sql::DbError,
};

/// Everything that a store keeps.
pub(crate) struct Tables {
    pub(crate) users: BTreeMap<UserId, User>,
    pub(crate) users_by_email: HashMap<Email, UserId>,
    pub(crate) users_by_subject: HashMap<String, UserId>,
    pub(crate) passwords: HashMap<UserId, Secret<String>>,
    pub(crate) identities: HashMap<(String, String), UserId>,
    pub(crate) links: HashMap<LinkId, Link>,
    pub(crate) sessions: HashMap<TokenHash, Session>,
    pub(crate) api_keys: HashMap<TokenHash, ApiKey>,
    pub(crate) revocations: BTreeMap<i64, NewRevocation>,
    pub(crate) outbox: BTreeMap<MailId, OutboxRow>,
    pub(crate) ring: Vec<RingKey>,
    pub(crate) issuer_keys: HashMap<String, (String, Timestamp)>,
    pub(crate) licenses: BTreeMap<Holder, LicenseRow>,
    /// When a provider was last asked in vain.
    pub(crate) license_tries: BTreeMap<Holder, Timestamp>,
    pub(crate) license_events: HashMap<String, Timestamp>,
    pub(crate) license_hints: BTreeMap<Holder, Timestamp>,
    pub(crate) audit: Vec<AuditRow>,
    pub(crate) checkpoints: Vec<Checkpoint>,
    pub(crate) one_time: HashMap<TokenHash, OneTime>,
    pub(crate) state: HashMap<String, State>,
    pub(crate) counts: BTreeMap<(i64, CountKind, String), u64>,
    pub(crate) job_runs: Vec<JobRun>,
    pub(crate) chain: Chain,
    last_revocation: i64,
}

/// A mail of the outbox.
pub(crate) struct OutboxRow {
    pub(crate) mail: Mail,
    pub(crate) due_at: Timestamp,
    pub(crate) attempts: i64,
    pub(crate) dead: bool,
    pub(crate) error: Option<String>,
}

impl Tables {
    fn new(seed: &[u8; 32]) -> Self {
        Self {
            users: BTreeMap::new(),
            users_by_email: HashMap::new(),
            users_by_subject: HashMap::new(),
            passwords: HashMap::new(),
            identities: HashMap::new(),
            links: HashMap::new(),
            sessions: HashMap::new(),
            api_keys: HashMap::new(),
            revocations: BTreeMap::new(),
            outbox: BTreeMap::new(),
            ring: Vec::new(),
            issuer_keys: HashMap::new(),
            licenses: BTreeMap::new(),
            license_tries: BTreeMap::new(),
            license_events: HashMap::new(),
            license_hints: BTreeMap::new(),
            audit: Vec::new(),
            checkpoints: Vec::new(),
            one_time: HashMap::new(),
            state: HashMap::new(),
            counts: BTreeMap::new(),
            job_runs: Vec::new(),
            chain: Chain::new(seed, 0),
            last_revocation: 0,
        }
    }

    /// The foreign key of the SQL schema.
    pub(crate) fn require_user(&self, user: UserId) -> Result<(), DbError> {
        if self.users.contains_key(&user) { Ok(()) } else { Err(DbError::Fault("no such user".to_owned())) }
    }

    /// The constraints of the SQL schema on a new session that ends `replaced`. Its public name is taken to be new:
    /// looking for it would read every session.
    pub(crate) fn check_session(&self, session: &Session, replaced: Option<&TokenHash>) -> Result<(), DbError> {
        self.require_user(session.user_id)?;
        if Some(&session.hash) != replaced && self.sessions.contains_key(&session.hash) {
            return Err(DbError::Fault("sessions.hash is not unique".to_owned()));
        }
        Ok(())
    }

    /// The unique indexes of the SQL schema on a new user.
    pub(crate) fn user_conflict(&self, user: &User) -> Result<Option<CreateUser>, DbError> {
        if self.users_by_email.contains_key(&user.email) {
            return Ok(Some(CreateUser::EmailTaken));
        }
        if user.external_subject.as_ref().is_some_and(|subject| self.users_by_subject.contains_key(subject)) {
            return Ok(Some(CreateUser::SubjectTaken));
        }
        if self.users.contains_key(&user.id) {
            return Err(DbError::Fault("users.id is not unique".to_owned()));
        }
        Ok(None)
    }

    pub(crate) fn insert_user(&mut self, user: User) {
        self.users_by_email.insert(user.email.clone(), user.id);
        if let Some(subject) = &user.external_subject {
            self.users_by_subject.insert(subject.clone(), user.id);
        }
        self.users.insert(user.id, user);
    }

    /// Removes a user with everything that refers to it.
    pub(crate) fn remove_user(&mut self, id: UserId) {
        let Some(user) = self.users.remove(&id) else { return };
        self.users_by_email.remove(&user.email);
        if let Some(subject) = &user.external_subject {
            self.users_by_subject.remove(subject);
        }
        self.passwords.remove(&id);
        self.identities.retain(|_, owner| *owner != id);
        self.links.retain(|_, link| link.user_id != id);
        self.sessions.retain(|_, session| session.user_id != id);
        self.api_keys.retain(|_, key| key.owner != KeyOwner::User(id));
        self.licenses.remove(&Holder::User(id));
        self.license_tries.remove(&Holder::User(id));
        self.license_hints.remove(&Holder::User(id));
    }

    pub(crate) fn insert_session(&mut self, session: Session) {
        self.sessions.insert(session.hash, session);
    }

    pub(crate) fn remove_session(&mut self, hash: &TokenHash) -> Option<Session> {
        self.sessions.remove(hash)
    }

    /// Seals the audit rows on a copy of the chain. Everything that can fail is in here or in the operation.
    fn seal(&self, effects: &Effects) -> Result<(Chain, Vec<AuditRow>), DbError> {
        let fresh = |at: usize| {
            let id = effects.outbox[at].id;
            !self.outbox.contains_key(&id) && effects.outbox[..at].iter().all(|mail| mail.id != id)
        };
        if !(0..effects.outbox.len()).all(fresh) {
            return Err(DbError::Fault("outbox.id is not unique".to_owned()));
        }
        let mut chain = self.chain.clone();
        let rows = effects.audit.iter().map(|event| chain.seal(event)).collect::<Result<_, _>>()?;
        Ok((chain, rows))
    }

    fn commit(&mut self, effects: &Effects, chain: Chain, rows: Vec<AuditRow>) {
        self.chain = chain;
        for mut row in rows {
            row.seq = self.audit.len() as i64 + 1;
            self.audit.push(row);
        }
        for mail in &effects.outbox {
            let row = Mail {
                id: mail.id,
                to: mail.to.clone(),
                kind: mail.kind.to_owned(),
                subject: mail.subject.clone(),
                text: mail.text.clone(),
                html: mail.html.clone(),
                created_at: mail.created_at,
                give_up_at: mail.give_up_at,
            };
            self.outbox.insert(
                mail.id,
                OutboxRow { mail: row, due_at: mail.created_at, attempts: 0, dead: false, error: None },
            );
        }
        for entry in &effects.revocations {
            self.last_revocation += 1;
            self.revocations.insert(self.last_revocation, entry.clone());
        }
    }
}

/// The backend.
pub(crate) struct Memory(Mutex<Tables>);

impl Memory {
    pub(crate) fn new(seed: &[u8; 32]) -> Self {
        Self(Mutex::new(Tables::new(seed)))
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        // Operations look first and change afterwards, in steps that cannot panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn read<O: Read>(&self, op: &O) -> Result<O::Out, DbError> {
        op.memory(&self.tables())
    }

    pub(crate) fn write<O: Write>(&self, op: &O, effects: &Effects) -> Result<O::Out, DbError> {
        let mut tables = self.tables();
        let (chain, rows) = tables.seal(effects)?;
        let out = op.memory(&mut tables)?;
        if O::commits(&out) {
            tables.commit(effects, chain, rows);
        }
        Ok(out)
    }
}
