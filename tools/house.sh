#!/usr/bin/env bash
# The rules of the house that no compiler checks. Prints each breach as file:line and what to do about it.
set -euo pipefail
cd "$(dirname "$0")/.."

failed=0
breach() {
    failed=1
    printf 'house: %s\n' "$@"
}

# Files that git knows or would add, so that a new file is judged before it is committed.
files() {
    git ls-files --cached --others --exclude-standard --deduplicate -- "$@" | while read -r file; do [ -f "$file" ] && echo "$file"; done
}

# Every path that the map names exists: in ARCHITECTURE.md a path is a word in backticks with a slash in it.
paths_of_the_map() {
    local path paths
    paths=$(grep -oE '`[A-Za-z0-9_.][A-Za-z0-9_./-]*/[A-Za-z0-9_./-]*`' ARCHITECTURE.md | tr -d '`' | sort -u) || true
    [ -n "$paths" ] || breach "ARCHITECTURE.md names no path at all: it is the map of the repository"
    while read -r path; do
        [ -e "$path" ] || breach "ARCHITECTURE.md names \`$path\`, which does not exist: mend the map or the tree"
    done <<<"$paths"
}

# Every relative link of a page leads to a file.
links_of_the_pages() {
    local page target
    while read -r page; do
        while read -r target; do
            target=${target%%#*}
            [ -z "$target" ] || [ -e "$(dirname "$page")/$target" ] || breach "$page links to \`$target\`, which does not exist"
        done < <(grep -oE '\]\([^) ]+\)' "$page" | sed -E 's/^\]\((.*)\)$/\1/' | grep -vE '^(https?|mailto):' || true)
    done < <(files '*.md')
}

# A file has one subject: past 600 lines of code (no blank lines, comments or tests) it has two.
length_of_files() {
    local file lines
    while read -r file; do
        case $file in */tests/* | */tests.rs | *_tests.rs) continue ;; esac
        lines=$(awk '/^#\[cfg\(test\)\]/ { exit } /^[[:space:]]*(\/\/.*)?$/ { next } { n++ } END { print n + 0 }' "$file")
        [ "$lines" -le 600 ] || breach "$file has $lines lines of code: split it by subject (the ceiling is 600)"
    done < <(files '*.rs')
}

# forbidden PATTERN WHY PATHS...: no line of these files may match.
forbidden() {
    local pattern=$1 why=$2 found
    shift 2
    found=$(files "$@" | grep -vxF tools/house.sh | tr '\n' '\0' | xargs -0r grep -nIP -- "$pattern" || true)
    [ -z "$found" ] || breach "$why:" "$found"
}

paths_of_the_map
links_of_the_pages
length_of_files
# One reason is good: a test that is the child of the test beside it.
forbidden '#\[ignore(?! = "the other tests of this file start it as a process of its own")' 'a test that does not run proves nothing: mend it or remove it' '*.rs'
forbidden '\b(todo|unimplemented)!\(|\b(TODO|FIXME|XXX)\b' 'left open: do it now or write an issue' '*.rs' '*.mjs' '*.sh' '*.toml'
forbidden 'disallowed_methods' 'only gate::clock reads time and randomness: take them as values' \
    'crates/*/src/*.rs' ':!crates/gate/src/clock.rs' ':!crates/testkit'
forbidden '(^|[^A-Za-z0-9_.])/(work|root|home)/[A-Za-z0-9_.]' 'a path of somebody'"'"'s machine: derive it from the repository or a temporary folder' \
    '*' ':!vectors' ':!*.lock' ':!*package-lock.json'
while read -r manifest; do
    grep -qx '\[lints\]' "$manifest" || breach "$manifest does not take the workspace's lints: add [lints] workspace = true"
done < <(files 'crates/*/Cargo.toml' 'examples/*/Cargo.toml' 'bench/Cargo.toml')

[ "$failed" = 0 ] && echo "house: every rule holds"
exit "$failed"
