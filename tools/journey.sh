#!/usr/bin/env bash
# The main job in a real browser: ask for a link, read the mail, reach the app, sign out (journey.mjs); what else
# people meet at the door, and every page of a refusal (people.mjs); a page of another origin (spa.mjs).
set -euo pipefail
cd "$(dirname "$0")/.."
source tools/needs.sh

for need in "Node with the packages of e2e:has_e2e_packages" "Python with the packages of e2e:has_e2e_python" \
    "Chromium:has chromium"; do
    if ! has_npm || ! ${need##*:}; then
        echo "SKIPPED journey: ${need%%:*} is missing; \`./test.sh --install\` installs it"
        [ "${CI:-}" != true ]
        exit
    fi
done

cargo build --quiet --locked --package doorward
node e2e/spa.mjs
node e2e/people.mjs
exec node e2e/journey.mjs
