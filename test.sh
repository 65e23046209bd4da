#!/usr/bin/env bash
# Runs every check of the repository.
#
#   ./test.sh              all checks; says what is missing and how to get it
#   ./test.sh --install    installs what is missing first (Debian packages, npm, PyPI)
#   ./test.sh quick        the inner loop: format, house rules, lints, tests of core and gate
#   ./test.sh NAME...      only these checks; ./test.sh --list names them
#
# Under CI=true a missing neighbour is an error; elsewhere its tests are skipped, and listed at the end.
set -euo pipefail
cd "$(dirname "$0")"

readonly LOGS=target/test-logs
source tools/needs.sh

# name | limit in seconds | command
checks() {
    cat <<'LIST'
format|60|cargo fmt --all --check
house|60|tools/house.sh
layers|120|tools/layers.sh
dependencies|120|tools/dependencies.sh
lints|1200|cargo clippy --quiet --workspace --all-targets --locked -- -D warnings
lints-alone|600|cargo clippy --quiet --package doorward-gate --locked -- -D warnings
docs|600|env RUSTDOCFLAGS=-Dwarnings cargo doc --quiet --workspace --no-deps --locked
fuzz|900|tools/fuzz.sh --smoke
tests|1500|cargo test --workspace --locked
journey|600|tools/journey.sh
LIST
}

readonly QUICK="format house lints quick-tests"
quick_checks() {
    checks
    echo "quick-tests|600|cargo test --package doorward-core --package doorward-gate --locked"
}

usage() { sed -n '2,10s/^# \{0,1\}//p' "$0"; }

# Runs one check with its output in a log; every minute one line says that it lives.
run_check() {
    local name=$1 limit=$2 log="$LOGS/$1.log" began=$SECONDS status=0 next=60
    shift 2
    printf '%-14s %s\n' "$name" "$*"
    timeout --kill-after=10 "$limit" "$@" >"$log" 2>&1 &
    child=$!
    while kill -0 "$child" 2>/dev/null; do
        sleep 0.2
        if [ $((SECONDS - began)) -ge "$next" ]; then
            next=$((next + 60))
            printf '%-14s ... %s s: %s\n' "$name" "$((SECONDS - began))" "$(tail -n 1 "$log" | cut -c1-120)"
        fi
    done
    wait "$child" || status=$?
    child=
    if [ "$status" = 0 ]; then
        printf '%-14s ok, %s s\n' "$name" "$((SECONDS - began))"
        grep '^NOT CHECKED' "$log" || true
        return 0
    fi
    echo
    if [ "$(wc -l <"$log")" -gt 200 ]; then echo "[the last 200 lines of $log]"; fi
    tail -n 200 "$log"
    echo
    [ "$status" != 124 ] || echo "$name ran longer than its $limit s"
    printf '%-14s FAILED, %s s. Run it again: ./test.sh %s   (that is: %s)\n' "$name" "$((SECONDS - began))" "$name" "$*"
    return 1
}

# The sum of what cargo reported, and what was skipped because a neighbour is missing.
summary() {
    local passed=$1 failed=$2 logs=("$LOGS"/*.log)
    [ -e "${logs[0]}" ] || logs=(/dev/null)
    grep -hE '^SKIPPED|SKIPPED [a-z_:]+: ' "${logs[@]}" | sed 's/.*SKIPPED/SKIPPED/' | sort -u || true
    awk -v passed="$passed" -v failed="$failed" '
        /^test result:/ { tests += $4; broken += $6 }
        /SKIPPED [a-z_:]+: / { skipped++ }
        END {
            printf "checks: %d passed, %d failed\n", passed, failed
            if (tests + broken) printf "tests: %d passed, %d failed, %d skipped\n", tests - skipped, broken, skipped
        }' "${logs[@]}"
}

main() {
    local install=false wanted=() list name limit command found passed=0
    list=$(checks)
    for argument in "$@"; do
        case $argument in
            --install) install=true ;;
            --list) quick_checks | cut -d'|' -f1,3 | tr '|' '\t'; return 0 ;;
            -h | --help) usage; return 0 ;;
            quick) read -ra wanted <<<"$QUICK"; list=$(quick_checks) ;;
            *)
                grep -q "^$argument|" <<<"$(quick_checks)" || { echo "no check is called \`$argument\`; ./test.sh --list names them" >&2; return 2; }
                wanted+=("$argument"); list=$(quick_checks) ;;
        esac
    done

    has cargo || { echo "cargo is missing: install rustup (https://rustup.rs); rust-toolchain.toml names the version" >&2; return 1; }
    if $install; then install_needs; fi
    local missing
    missing=$(missing_needs)
    if [ -n "$missing" ]; then
        printf 'Missing (./test.sh --install installs all of it):\n%s\n\n' "$(sed 's/^/  /' <<<"$missing")"
        if $install || [ "${CI:-}" = true ]; then return 1; fi
    fi

    mkdir -p "$LOGS"
    rm -f "$LOGS"/*.log
    child=
    trap '[ -z "$child" ] || kill "$child" 2>/dev/null' EXIT
    trap 'exit 130' INT TERM
    while IFS='|' read -r name limit command <&3; do
        if [ ${#wanted[@]} -gt 0 ]; then
            found=false
            for each in "${wanted[@]}"; do [ "$each" != "$name" ] || found=true; done
            $found || continue
        fi
        read -ra command <<<"$command"
        if ! run_check "$name" "$limit" "${command[@]}"; then
            summary "$passed" 1
            return 1
        fi
        passed=$((passed + 1))
    done 3<<<"$list"
    summary "$passed" 0
}

main "$@"
