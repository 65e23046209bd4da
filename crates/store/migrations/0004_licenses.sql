-- holder: 'installation', 'user/<id>', 'org/<id>'; user_id repeats the user's, so that a license goes with its user.
-- entitlements: JSON array of codes. last_seq: of the newest webhook that was taken.
CREATE TABLE licenses (
    holder       TEXT NOT NULL PRIMARY KEY,
    user_id      {uuid} REFERENCES users (id) ON DELETE CASCADE,
    state        TEXT NOT NULL,
    license_id   TEXT,
    expires_at   {int},
    entitlements TEXT NOT NULL,
    observed_at  {int} NOT NULL,
    confirmed_at {int} NOT NULL,
    last_seq     {int}
) {keyed};
CREATE INDEX licenses_user ON licenses (user_id);
CREATE INDEX licenses_id ON licenses (license_id) WHERE license_id IS NOT NULL;
CREATE INDEX licenses_confirmed ON licenses (confirmed_at);

-- Webhooks that were taken, so that a repetition is known as one.
CREATE TABLE license_events (
    id TEXT NOT NULL PRIMARY KEY,
    at {int} NOT NULL
) {keyed};
CREATE INDEX license_events_at ON license_events (at);
