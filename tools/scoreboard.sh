#!/usr/bin/env bash
# Plays every situation of the evil issuer against Doorward and two others, and writes docs/issuer-scoreboard.md anew.
set -euo pipefail
cd "$(dirname "$0")/.."
source tools/needs.sh

page=docs/issuer-scoreboard.md
has_node && has_e2e_packages || { echo "node and the packages of e2e/ are missing: ./test.sh --install" >&2; exit 1; }

# With the features of the whole workspace: what the tests have built is not built again.
cargo build --quiet --locked --workspace --bin doorward --bin doorward-testkit
CARGO_TARGET_DIR=target/peers cargo build --quiet --locked --manifest-path bench/peers/jwks-client-rs/Cargo.toml

version() { sed -n "/^name = \"$2\"/{n;s/version = \"\(.*\)\"/\1/p}" "$1"; }
jose=$(node -p 'require("./e2e/node_modules/jose/package.json").version')
peer=bench/peers/jwks-client-rs/Cargo.lock

table=$(mktemp)
trap 'rm -f "$table"' EXIT
target/debug/doorward-testkit scoreboard \
    --doorward "Doorward=$PWD/target/debug/doorward" \
    --lines "jwks_client_rs=target/peers/debug/jwks-client-rs-subject" \
    --lines "jose=node e2e/neighbours/jose-subject.mjs" >"$table"

{
    # Everything up to the mark is written by hand, the rest is not.
    sed '/^<!-- generated below/q' "$page"
    echo
    echo "Doorward $(version Cargo.lock doorward), jwks_client_rs $(version $peer jwks_client_rs) with jsonwebtoken $(version $peer jsonwebtoken)," \
        "npm jose $jose on Node $(node -p process.versions.node); $(date -u +%-d\ %B\ %Y)."
    echo
    cat "$table"
} >"$page.new"
mv "$page.new" "$page"
