//! What the store commits together with a change: audit rows, mails, revocations.

use crate::{audit::AuditEvent, id::MailId, revocation::NewRevocation, time::Timestamp, user::Email};

/// A mail that leaves from the outbox, never from inside a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewMail {
    /// Its id; also the `Message-ID`, so a retry is recognisable.
    pub id: MailId,
    /// Recipient.
    pub to: Email,
    /// Which text it is: `magic_link`, … for metrics.
    pub kind: &'static str,
    /// Subject line.
    pub subject: String,
    /// Plain text part.
    pub text: String,
    /// HTML part.
    pub html: String,
    /// When it was written.
    pub created_at: Timestamp,
    /// After this moment it is not worth sending (a link that has expired).
    pub give_up_at: Timestamp,
}

/// Everything that a change brings with it; committed in the same transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Audit rows `with_change`.
    pub audit: Vec<AuditEvent>,
    /// Mails.
    pub outbox: Vec<NewMail>,
    /// Entries of the revocation log.
    pub revocations: Vec<NewRevocation>,
}

impl Effects {
    /// One audit row and nothing else.
    pub fn audited(event: AuditEvent) -> Self {
        Self { audit: vec![event], ..Self::default() }
    }

    /// The same with one more mail.
    #[must_use]
    pub fn with_mail(mut self, mail: NewMail) -> Self {
        self.outbox.push(mail);
        self
    }

    /// The same with one more revocation.
    #[must_use]
    pub fn with_revocation(mut self, revocation: NewRevocation) -> Self {
        self.revocations.push(revocation);
        self
    }
}
