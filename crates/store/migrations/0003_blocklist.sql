-- A blocklist entry is found, and found lifted, by its scope.
CREATE INDEX revocations_scope ON revocations (scope);
