#!/usr/bin/env bash
# Licences, bans and sources of the dependency tree by deny.toml; advisories where a copy of their database is at hand.
set -euo pipefail
cd "$(dirname "$0")/.."
source tools/needs.sh

if ! has cargo-deny; then
    echo "NOT CHECKED: licences, bans and sources; cargo-deny is missing (./test.sh --install builds it in a minute)"
    [ "${CI:-}" != true ]
    exit
fi

cargo-deny --workspace --locked check --hide-inclusion-graph licenses bans sources

# The database is a git repository, kept up to date by whoever runs this. Nothing here fetches it.
database=${ADVISORY_DB:-${CARGO_HOME:-$HOME/.cargo}/advisory-dbs}
if [ -d "$database" ]; then
    cargo-deny --workspace --locked --offline check --hide-inclusion-graph advisories
else
    echo "NOT CHECKED: advisories; there is no copy of the database in $database (\`cargo deny fetch db\` makes one)"
fi
