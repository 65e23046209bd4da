#!/usr/bin/env bash
# Proves what a layer must not pull in, with everything that is switched on through its dependencies.
set -euo pipefail
cd "$(dirname "$0")/.."

failed=0

# forbid CRATE "FEATURE ARGUMENTS" FORBIDDEN...
forbid() {
    local crate=$1 features=$2 tree found
    shift 2
    # shellcheck disable=SC2086 # the features are several words
    tree=$(cargo tree --quiet --locked --package "$crate" $features --edges normal,build --prefix none | awk '{print $1}' | sort -u)
    grep -qx "$crate" <<<"$tree" || { echo "layers: cargo tree does not know $crate"; exit 1; }
    found=$(grep -xFf <(printf '%s\n' "$@") <<<"$tree" || true)
    if [ -n "$found" ]; then
        failed=1
        for name in $found; do
            echo "layers: $crate ${features:+($features) }must not depend on $name; it comes by:"
            # shellcheck disable=SC2086
            cargo tree --quiet --locked --package "$crate" $features --edges normal,build --invert "$name" --depth 4 || true
        done
    else
        echo "layers: $crate ${features:+($features) }pulls in none of: $*"
    fi
}

runtime=(tokio hyper axum reqwest sqlx rusqlite tokio-postgres)
database=(rusqlite tokio-postgres sqlx redis)

# The core decides and does nothing else: no runtime, no network, no database.
forbid doorward-core "" "${runtime[@]}" lettre redis
forbid doorward-core "--all-features" "${runtime[@]}" lettre redis
# The store knows no HTTP; by default it keeps everything in memory.
forbid doorward-store "--all-features" axum hyper reqwest lettre doorward-gate doorward
forbid doorward-store "" "${database[@]}"
# An app that embeds the gate pays for no database and no mail.
forbid doorward-gate "" "${database[@]}" lettre axum
forbid doorward-gate "--all-features" rusqlite doorward
# The test kit stays out of what is shipped.
forbid doorward "" doorward-testkit

exit "$failed"
