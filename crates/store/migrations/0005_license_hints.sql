-- Holders of whose license a provider said that something changed, until somebody has asked again. user_id repeats the
-- holder's, so that a hint goes with its user.
CREATE TABLE license_hints (
    holder  TEXT NOT NULL PRIMARY KEY,
    user_id {uuid} REFERENCES users (id) ON DELETE CASCADE,
    at      {int} NOT NULL
) {keyed};
CREATE INDEX license_hints_at ON license_hints (at);
CREATE INDEX license_hints_user ON license_hints (user_id);

-- For those that end soon.
CREATE INDEX licenses_expires ON licenses (expires_at) WHERE expires_at IS NOT NULL;
