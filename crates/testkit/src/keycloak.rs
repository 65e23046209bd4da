//! A real Keycloak in development mode, with a realm of its own, started for one test.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{neighbour, port, process::Process, wire::Wire};

/// Ten seconds on an idle machine, more after an installation, when it first puts itself together.
const STARTS_WITHIN: Duration = Duration::from_secs(240);
const REALM: &str = "shop";
const ADMIN: &str = "grant_type=password&client_id=admin-cli&username=admin&password=only-for-tests";
const ANN: &str = "grant_type=password&client_id=app&username=ann&password=only-for-tests";
/// The exit code of a first start, which only put it together for its settings.
const PUT_TOGETHER: i32 = 10;

/// A running Keycloak; it ends when this is dropped.
pub struct Keycloak {
    process: Process,
    address: SocketAddr,
    /// Key providers that this test added, newest last.
    rotations: u32,
}

impl Keycloak {
    /// Starts it, and makes a realm with a client and a user; `None`, loudly, where it or Java is missing.
    ///
    /// # Panics
    /// If they are missing under `CI=true`, or it does not come up.
    pub async fn start() -> Option<Self> {
        let home = neighbour::require("Keycloak", installed())?;
        let java = neighbour::require("Java", neighbour::program("java"))?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port::free()));
        let mut process = Process::start("keycloak", &mut command(&java, &home, address, false));
        let up = async {
            loop {
                if !process.is_running() {
                    let status = process.exit(Duration::from_secs(1)).await;
                    assert_eq!(status.code(), Some(PUT_TOGETHER), "{}", process.output());
                    process = Process::start("keycloak", &mut command(&java, &home, address, true));
                }
                if tokio::net::TcpStream::connect(address).await.is_ok() {
                    break;
                }
                sleep(Duration::from_millis(50)).await;
            }
        };
        let is_up = tokio::time::timeout(STARTS_WITHIN, up).await.is_ok();
        assert!(is_up, "no open port after {STARTS_WITHIN:?}:\n{}", process.output());
        let keycloak = Self { process, address, rotations: 0 };
        keycloak.make_realm().await;
        Some(keycloak)
    }

    /// `iss` of its tokens.
    pub fn url(&self) -> String {
        format!("http://{}/realms/{REALM}", self.address)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Path of its key set.
    pub fn jwks_path(&self) -> String {
        format!("/realms/{REALM}/protocol/openid-connect/certs")
    }

    /// Signs its user in (direct grant): an RS256 access token with audience `app-api` and `tenant_id`.
    ///
    /// # Panics
    /// If it refuses.
    pub async fn token(&self) -> String {
        let answer = self.form(&format!("/realms/{REALM}/protocol/openid-connect/token"), ANN).await;
        answer["access_token"].as_str().unwrap_or_else(|| panic!("no token: {answer}")).to_owned()
    }

    /// Makes a new key, which signs from now on; unless `is_overlap`, every other RSA signing key is gone.
    ///
    /// # Panics
    /// If it refuses.
    pub async fn rotate(&mut self, is_overlap: bool) {
        self.rotations += 1;
        let admin = self.admin().await;
        let realm = self.ask("GET", &format!("/admin/realms/{REALM}"), &admin, None).await["id"].clone();
        let components = format!("/admin/realms/{REALM}/components");
        let found = self.ask("GET", &format!("{components}?type=org.keycloak.keys.KeyProvider"), &admin, None).await;
        let name = format!("rotation-{}", self.rotations);
        let provider = json!({
            "name": name, "providerId": "rsa-generated", "providerType": "org.keycloak.keys.KeyProvider",
            "parentId": realm,
            "config": {"priority": [(1000 + self.rotations).to_string()], "algorithm": ["RS256"], "keySize": ["2048"]},
        });
        self.ask("POST", &components, &admin, Some(&provider)).await;
        let old = found.as_array().unwrap().iter().filter(|provider| provider["providerId"] == "rsa-generated");
        for provider in old.filter(|_| !is_overlap) {
            let id = provider["id"].as_str().unwrap();
            self.ask("DELETE", &format!("{components}/{id}"), &admin, None).await;
        }
    }

    async fn make_realm(&self) {
        let mapper = |name: &str, kind: &str, config: Value| json!({"name": name, "protocol": "openid-connect", "protocolMapper": kind, "config": config});
        let realm = json!({
            "realm": REALM, "enabled": true, "sslRequired": "none", "accessTokenLifespan": 300,
            // Logging in often is no test of password hashing.
            "passwordPolicy": "hashAlgorithm(pbkdf2-sha256) and hashIterations(1)",
            "clients": [{
                "clientId": "app", "enabled": true, "publicClient": true,
                "directAccessGrantsEnabled": true, "standardFlowEnabled": false,
                "protocolMappers": [
                    mapper("audience", "oidc-audience-mapper", json!({"included.custom.audience": "app-api", "access.token.claim": "true"})),
                    mapper("tenant", "oidc-hardcoded-claim-mapper", json!({
                        "claim.name": "tenant_id", "claim.value": "acme", "jsonType.label": "String", "access.token.claim": "true",
                    })),
                ],
            }],
            "users": [{
                "username": "ann", "enabled": true, "firstName": "Ann", "lastName": "Example", "email": "ann@example.com", "emailVerified": true,
                "credentials": [{"type": "password", "value": "only-for-tests", "temporary": false}],
            }],
        });
        let admin = self.admin().await;
        self.ask("POST", "/admin/realms", &admin, Some(&realm)).await;
    }

    /// The `Authorization` line of its administrator.
    async fn admin(&self) -> String {
        let answer = self.form("/realms/master/protocol/openid-connect/token", ADMIN).await;
        format!("Authorization: Bearer {}\r\n", answer["access_token"].as_str().unwrap())
    }

    async fn form(&self, target: &str, body: &str) -> Value {
        self.send("POST", target, "Content-Type: application/x-www-form-urlencoded\r\n", body).await
    }

    async fn ask(&self, method: &str, target: &str, fields: &str, body: Option<&Value>) -> Value {
        let fields = format!("{fields}Content-Type: application/json\r\n");
        self.send(method, target, &fields, &body.map(ToString::to_string).unwrap_or_default()).await
    }

    async fn send(&self, method: &str, target: &str, fields: &str, body: &str) -> Value {
        let (host, length) = (self.address, body.len());
        let head = format!(
            "{method} {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {length}\r\n{fields}\r\n"
        );
        let answer = Wire::ask(self.address, head + body).await;
        assert!((200..300).contains(&answer.status), "{method} {target}: {answer:?}\n{}", self.process.output());
        if answer.body.is_empty() { Value::Null } else { serde_json::from_slice(&answer.body).unwrap() }
    }
}

/// Where `./test.sh --install` puts it.
fn installed() -> Option<PathBuf> {
    let home = neighbour::repository().join("target/tools/keycloak");
    home.join("installed").is_file().then_some(home)
}

/// What `bin/kc.sh start-dev` runs, without the shell in between: it is ended by its own id.
fn command(java: &Path, home: &Path, address: SocketAddr, is_put_together: bool) -> Command {
    let mut command = Command::new(java);
    command.args([
        "-Xms64m",
        "-Xmx512m",
        "-Dfile.encoding=UTF-8",
        "-Djava.util.logging.manager=org.jboss.logmanager.LogManager",
    ]);
    command.arg("-Dpicocli.disable.closures=true").arg(format!("-Dkc.home.dir={}", home.display()));
    command.arg(format!("-Djboss.server.config.dir={}", home.join("conf").display()));
    if is_put_together {
        command.arg("-Dkc.config.built=true");
    }
    command.arg("-cp").arg(home.join("lib/quarkus-run.jar")).arg("io.quarkus.bootstrap.runner.QuarkusEntryPoint");
    command.args(["start-dev", "--db=dev-mem", "--http-host=127.0.0.1"]).arg(format!("--http-port={}", address.port()));
    command.env("KC_BOOTSTRAP_ADMIN_USERNAME", "admin").env("KC_BOOTSTRAP_ADMIN_PASSWORD", "only-for-tests");
    command
}
