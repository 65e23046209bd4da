-- When a provider was last asked about a license in vain; empty since it was last confirmed. Whoever asks about those
-- that nobody confirmed begins with the others.
ALTER TABLE licenses ADD COLUMN tried_at {int};
