-- Only adds. The previous release keeps running on it: what it inserts gets the defaults.

-- external_subject: at the license provider. password_hash: PHC or bcrypt form, for the soak window.
-- made_by: 'sign_up' rows that never prove their address are purged.
ALTER TABLE users ADD COLUMN external_subject TEXT;
ALTER TABLE users ADD COLUMN password_hash TEXT;
ALTER TABLE users ADD COLUMN made_by TEXT NOT NULL DEFAULT 'operator';
CREATE UNIQUE INDEX users_external_subject ON users (external_subject) WHERE external_subject IS NOT NULL;
CREATE INDEX users_unproven ON users (created_at) WHERE made_by = 'sign_up' AND NOT email_verified;

-- purpose: 'sign_in', 're_auth' (session_id is the session that must still exist), 'email_change' (new_email).
ALTER TABLE links ADD COLUMN purpose TEXT NOT NULL DEFAULT 'sign_in';
ALTER TABLE links ADD COLUMN session_id {uuid};
ALTER TABLE links ADD COLUMN new_email TEXT;
ALTER TABLE links ADD COLUMN code_hash {bytes};
ALTER TABLE links ADD COLUMN code_expires_at {int};
ALTER TABLE links ADD COLUMN code_tries {int} NOT NULL DEFAULT 0;
ALTER TABLE links ADD COLUMN voided_at {int};
CREATE INDEX links_browser ON links (browser);

CREATE TABLE one_time_tokens (
    hash       {bytes} NOT NULL PRIMARY KEY,
    purpose    TEXT NOT NULL,
    created_at {int} NOT NULL,
    expires_at {int} NOT NULL,
    used_at    {int}
) {keyed};

CREATE TABLE runtime_state (
    name    TEXT NOT NULL PRIMARY KEY,
    value   TEXT NOT NULL,
    version {int} NOT NULL,
    at      {int} NOT NULL
) {keyed};

-- day: days since the Unix epoch, UTC.
CREATE TABLE method_counts (
    day    {int} NOT NULL,
    kind   TEXT NOT NULL,
    method TEXT NOT NULL,
    uses   {int} NOT NULL,
    PRIMARY KEY (day, kind, method)
) {keyed};

CREATE TABLE job_runs (
    id            {uuid} NOT NULL PRIMARY KEY,
    job           TEXT NOT NULL,
    scheduled_for {int} NOT NULL,
    started_at    {int} NOT NULL,
    lease_until   {int} NOT NULL,
    attempts      {int} NOT NULL,
    finished_at   {int},
    outcome       TEXT CHECK (outcome IN ('done', 'failed')),
    error         TEXT,
    UNIQUE (job, scheduled_for)
) {keyed};
CREATE INDEX job_runs_started ON job_runs (started_at);
