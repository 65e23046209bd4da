#!/usr/bin/env bash
# Installs the libraries that docs/peers.md names, shows them and Doorward the same tokens, and writes the page anew.
# Needs Node, npm, Python with venv and cargo; nothing is listened to, nothing but package registries is asked.
set -euo pipefail
cd "$(dirname "$0")/.."
source tools/needs.sh

readonly PAGE=docs/peers.md PEERS=bench/peers JUDGES=target/peers/judges
for need in has_npm has_python; do
    $need || { echo "${need#has_} is missing: ./test.sh --install" >&2; exit 1; }
done

(cd $PEERS && npm ci --no-audit --no-fund --loglevel=error)
[ -x $PEERS/.venv/bin/python ] || python3 -m venv $PEERS/.venv
$PEERS/.venv/bin/pip install -q --disable-pip-version-check -r $PEERS/requirements.txt

# Optimised only as far as it takes not to wait: verdicts are compared, not times.
export CARGO_TARGET_DIR=$PWD/target/peers
mkdir -p $JUDGES
build() { cargo build --quiet --locked --manifest-path "$PEERS/$1/Cargo.toml" "${@:2}"; }
build doorward
install target/peers/debug/doorward-judge $JUDGES/
for backend in aws_lc_rs rust_crypto; do
    build jsonwebtoken --features $backend
    install target/peers/debug/jsonwebtoken-judge "$JUDGES/jsonwebtoken-judge-$backend"
done

npm_version() { node -p "require('./$PEERS/node_modules/$1/package.json').version"; }
crate_version() { sed -n "/^name = \"$2\"/{n;s/version = \"\(.*\)\"/\1/p}" "$1"; }
tables=$(mktemp)
trap 'rm -f "$tables"' EXIT
$PEERS/.venv/bin/python $PEERS/run.py >"$tables"

{
    # Everything up to the mark is written by hand, the rest is not.
    sed '/^<!-- generated below/q' "$PAGE"
    echo
    echo "Doorward $(crate_version Cargo.lock doorward-core); Rust jsonwebtoken $(crate_version $PEERS/jsonwebtoken/Cargo.lock jsonwebtoken);" \
        "npm jose $(npm_version jose), jsonwebtoken $(npm_version jsonwebtoken), fast-jwt $(npm_version fast-jwt) on Node $(node -p process.versions.node);" \
        "$($PEERS/.venv/bin/pip freeze | sed -n 's/^\(PyJWT\|joserfc\|Authlib\|python-jose\|jwcrypto\)==\(.*\)/\1 \2,/Ip' | tr '\n' ' ')" \
        "Python $($PEERS/.venv/bin/python -c 'import platform; print(platform.python_version())'); $(date -u +%-d\ %B\ %Y)."
    echo
    cat "$tables"
} >"$PAGE.new"
mv "$PAGE.new" "$PAGE"
