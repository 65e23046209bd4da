-- Times are milliseconds since the Unix epoch. Words in braces differ by engine (src/dialect.rs).
-- org_id has no foreign key yet: organisations are rows that nothing writes so far.

CREATE TABLE users (
    id                {uuid} NOT NULL PRIMARY KEY,
    email             TEXT NOT NULL UNIQUE,
    email_verified    {bool} NOT NULL,
    admin             {bool} NOT NULL,
    version           {int} NOT NULL,
    banned_at         {int},
    link_status       TEXT CHECK (link_status IN ('linked', 'pending_verify', 'mismatch')),
    candidate_subject TEXT,
    created_at        {int} NOT NULL
) {keyed};

CREATE TABLE identities (
    issuer  TEXT NOT NULL,
    subject TEXT NOT NULL,
    user_id {uuid} NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    PRIMARY KEY (issuer, subject)
) {keyed};
CREATE INDEX identities_user ON identities (user_id);

CREATE TABLE orgs (
    id         {uuid} NOT NULL PRIMARY KEY,
    name       TEXT NOT NULL,
    created_at {int} NOT NULL
) {keyed};

CREATE TABLE links (
    id           {uuid} NOT NULL PRIMARY KEY,
    user_id      {uuid} NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    user_version {int} NOT NULL,
    email        TEXT NOT NULL,
    browser      {bytes} NOT NULL,
    return_to    TEXT NOT NULL,
    created_at   {int} NOT NULL,
    expires_at   {int} NOT NULL,
    used_at      {int}
) {keyed};
CREATE INDEX links_user ON links (user_id);
CREATE INDEX links_end ON links (expires_at);

-- last_used_at has no index: a touch then changes the row and nothing else.
CREATE TABLE sessions (
    hash             {bytes} NOT NULL PRIMARY KEY,
    id               {uuid} NOT NULL UNIQUE,
    user_id          {uuid} NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    org_id           {uuid},
    method           TEXT NOT NULL,
    created_at       {int} NOT NULL,
    authenticated_at {int} NOT NULL,
    last_used_at     {int} NOT NULL,
    expires_at       {int} NOT NULL,
    ip               TEXT,
    user_agent       TEXT
) {keyed};
CREATE INDEX sessions_user ON sessions (user_id);
CREATE INDEX sessions_end ON sessions (expires_at);

CREATE TABLE api_keys (
    id            {uuid} NOT NULL PRIMARY KEY,
    hash          {bytes} NOT NULL UNIQUE,
    owner_user_id {uuid} REFERENCES users (id) ON DELETE CASCADE,
    owner_org_id  {uuid},
    owner_service TEXT,
    org_id        {uuid},
    name          TEXT NOT NULL,
    prefix        TEXT NOT NULL,
    capabilities  TEXT NOT NULL,
    created_at    {int} NOT NULL,
    expires_at    {int},
    revoked_at    {int},
    deleted_at    {int},
    last_used_at  {int},
    CONSTRAINT api_keys_one_owner CHECK (
        CASE WHEN owner_user_id IS NULL THEN 0 ELSE 1 END
        + CASE WHEN owner_org_id IS NULL THEN 0 ELSE 1 END
        + CASE WHEN owner_service IS NULL THEN 0 ELSE 1 END = 1)
) {keyed};
CREATE INDEX api_keys_owner ON api_keys (owner_user_id);

CREATE TABLE revocations (
    seq      {serial},
    scope    TEXT NOT NULL,
    at       {int} NOT NULL,
    until_at {int},
    why      TEXT NOT NULL
) STRICT;
CREATE INDEX revocations_end ON revocations (until_at) WHERE until_at IS NOT NULL;

CREATE TABLE outbox (
    id         {uuid} NOT NULL PRIMARY KEY,
    recipient  TEXT NOT NULL,
    kind       TEXT NOT NULL,
    subject    TEXT NOT NULL,
    text_part  TEXT NOT NULL,
    html_part  TEXT NOT NULL,
    created_at {int} NOT NULL,
    give_up_at {int} NOT NULL,
    due_at     {int} NOT NULL,
    attempts   {int} NOT NULL,
    dead       {bool} NOT NULL,
    last_error TEXT
) {keyed};
CREATE INDEX outbox_due ON outbox (due_at) WHERE NOT dead;

CREATE TABLE key_ring (
    id         {uuid} NOT NULL PRIMARY KEY,
    purpose    TEXT NOT NULL,
    wrapped    {bytes} NOT NULL,
    created_at {int} NOT NULL,
    state      TEXT NOT NULL CHECK (state IN ('current', 'previous', 'retired'))
) {keyed};
CREATE UNIQUE INDEX key_ring_current ON key_ring (purpose) WHERE state = 'current';

CREATE TABLE issuer_keys (
    name       TEXT NOT NULL PRIMARY KEY,
    key_set    TEXT NOT NULL,
    fetched_at {int} NOT NULL
) {keyed};

CREATE TABLE audit (
    seq         {serial},
    writer      {uuid} NOT NULL,
    number      {int} NOT NULL,
    kind        TEXT NOT NULL,
    at          {int} NOT NULL,
    user_id     {uuid},
    org_id      {uuid},
    decision    {uuid},
    reason      TEXT,
    detail      TEXT,
    salt        {bytes} NOT NULL,
    detail_hash {bytes} NOT NULL,
    hash        {bytes} NOT NULL,
    UNIQUE (writer, number)
) STRICT;

CREATE TABLE audit_writers (
    id       {uuid} NOT NULL PRIMARY KEY,
    number   {int} NOT NULL,
    head     {bytes} NOT NULL,
    began_at {int} NOT NULL
) {keyed};

CREATE TABLE audit_checkpoints (
    seq       {serial},
    at        {int} NOT NULL,
    heads     {bytes} NOT NULL,
    key_id    {uuid} NOT NULL,
    signature {bytes} NOT NULL
) STRICT;
