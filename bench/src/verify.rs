//! What a verdict on a token costs beyond the signature itself.

use std::{
    hint::black_box,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use aws_lc_rs::signature::{self, ParsedPublicKey, RsaPublicKeyComponents};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use doorward_core::{
    credential::{CredentialKind, CredentialSet},
    jose::{JwkSet, Selection},
    request::{RequestFacts, Scheme},
    rule::{Access, Rule},
    time::Now,
    token::{self, TokenPolicy},
};
use doorward_gate::{
    clock::Clock,
    gate::{Checked, Gate},
    issuer::{Issuers, Verdict},
};
use doorward_store::Store;
use doorward_testkit::issuer::{Algorithm, Issuer};
use http::{HeaderMap, HeaderValue, Method, header};
use jsonwebtoken::{DecodingKey, Validation};
use serde::Deserialize;

use crate::{
    Effort, house,
    report::{Report, Target, median, ratio, thread_cpu},
};

/// Tokens verified in one turn.
const BATCH: usize = 24;
/// At least as many tokens as an issuer's verdicts are kept for.
const KEPT: usize = 4_500;

pub(crate) fn run(report: &mut Report, effort: Effort) {
    let rounds = if effort.is_quick { 5 } else { 41 };
    report.table("Verifying a token", "µs of CPU", "to the raw check");
    for large in [false, true] {
        for algorithm in [Algorithm::EdDsa, Algorithm::Es256, Algorithm::Rs256] {
            signed(report, algorithm, large, rounds);
        }
    }
    report.table("Deciding from memory", "ns of CPU", "");
    hot(report, rounds);
}

/// A key as everybody wants it.
struct Subject {
    policy: TokenPolicy,
    set: JwkSet,
    issuers: Issuers,
    raw: ParsedPublicKey,
    decoding: DecodingKey,
    validation: Validation,
    now: Now,
}

/// A way to verify a token.
type Row = fn(&Subject, &str);

/// The claims that an app would read with jsonwebtoken.
#[derive(Deserialize)]
struct AppClaims {
    sub: String,
    scope: String,
    #[serde(default)]
    groups: Vec<String>,
}

fn signed(report: &mut Report, algorithm: Algorithm, large: bool, rounds: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let issuer = runtime.block_on(Issuer::start_with(algorithm));
    let clock = Clock::system();
    let subject = Subject::new(&issuer, &clock);
    let wall = subject.now.wall.as_secs();
    let claims = if large { house::large_claims } else { house::claims };
    // Every token is seen once by each row: what is kept from one verdict to the next helps nobody.
    let tokens: Vec<String> = (0..(rounds + 1) * BATCH).map(|number| issuer.mint(&claims(number, wall))).collect();
    if !large {
        // What is kept is full, as it is in a process that has run for a while: room has to be made for each token.
        (0..KEPT).for_each(|number| subject.issuers(&issuer.mint(&claims(tokens.len() + number, wall))));
    }
    let rows: [(&str, Row); 4] = [
        ("raw aws-lc-rs, parsed key", Subject::raw),
        ("core::token::parse, verify", Subject::core),
        ("Issuers::verify", Subject::issuers),
        ("jsonwebtoken", Subject::jsonwebtoken),
    ];
    let mut spent: [Vec<f64>; 4] = Default::default();
    for (round, batch) in tokens.chunks(BATCH).enumerate() {
        for turn in 0..rows.len() {
            // Nobody is always the first to touch a token's bytes.
            let row = (turn + round) % rows.len();
            let begin = thread_cpu();
            batch.iter().for_each(|text| rows[row].1(&subject, text));
            let took = (thread_cpu() - begin).as_secs_f64() / BATCH as f64;
            if round > 0 {
                spent[row].push(took * 1e6);
            }
        }
    }
    let most = match (large, algorithm) {
        (true, _) => 1.15,
        (false, Algorithm::Rs256) => 1.10,
        (false, _) => 1.05,
    };
    let size = tokens[0].len();
    for (row, (name, _)) in rows.iter().enumerate() {
        let name = format!("{} {size} bytes: {name}", algorithm.as_str());
        let target = if row == 1 || row == 2 { Target::Most(most) } else { Target::None };
        report.row(&name, &format!("{:.2}", median(spent[row].clone())), Some(ratio(&spent[row], &spent[0])), target);
    }
    let name = format!("{} {size} bytes: npm jose", algorithm.as_str());
    match npm_jose(algorithm, &issuer.key_set(), &tokens[..tokens.len().min(20 * BATCH)]) {
        Ok(micros) => {
            let floor = median(spent[0].clone());
            report.row(&name, &format!("{micros:.2}"), Some(micros / floor), Target::None);
        }
        Err(why) => report.skipped(&name, &why),
    }
}

/// What npm jose takes for one token, in a process of its own, right after the others.
fn npm_jose(algorithm: Algorithm, keys: &serde_json::Value, tokens: &[String]) -> Result<f64, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    if !root.join("../e2e/node_modules/jose").exists() {
        return Err("the packages of e2e are not installed (npm ci --prefix e2e)".to_owned());
    }
    let question = serde_json::json!({
        "algorithm": algorithm.as_str(), "issuer": house::ISSUER, "audience": house::AUDIENCE,
        "jwks": keys, "tokens": tokens, "rounds": 7,
    });
    // Beside the package, which node looks for from where the script lies.
    let script = std::fs::read_to_string(root.join("peers/jose.mjs")).map_err(|error| error.to_string())?;
    let mut node = Command::new("node")
        .args(["--input-type=module", "--eval", &script])
        .current_dir(root.join("../e2e"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("node: {error}"))?;
    let mut input = node.stdin.take().ok_or("no pipe to node")?;
    input.write_all(question.to_string().as_bytes()).map_err(|error| error.to_string())?;
    drop(input);
    let output = node.wait_with_output().map_err(|error| error.to_string())?;
    String::from_utf8_lossy(&output.stdout).trim().parse().map_err(|_| "node failed; see above".to_owned())
}

impl Subject {
    fn new(issuer: &Issuer, clock: &Clock) -> Self {
        let published = issuer.key_set();
        let key = &published["keys"][0];
        let member = |name: &str| key[name].as_str().unwrap_or_default();
        let bytes = |name: &str| URL_SAFE_NO_PAD.decode(member(name)).unwrap();
        let (raw, decoding, name) = match key["kty"].as_str() {
            Some("OKP") => (
                ParsedPublicKey::new(&signature::ED25519, bytes("x")).unwrap(),
                DecodingKey::from_ed_components(member("x")).unwrap(),
                jsonwebtoken::Algorithm::EdDSA,
            ),
            Some("EC") => (
                ParsedPublicKey::new(
                    &signature::ECDSA_P256_SHA256_FIXED,
                    [&[4], &bytes("x")[..], &bytes("y")].concat(),
                )
                .unwrap(),
                DecodingKey::from_ec_components(member("x"), member("y")).unwrap(),
                jsonwebtoken::Algorithm::ES256,
            ),
            _ => (
                RsaPublicKeyComponents { n: bytes("n"), e: bytes("e") }
                    .to_parsed_public_key(&signature::RSA_PKCS1_2048_8192_SHA256)
                    .unwrap(),
                DecodingKey::from_rsa_components(member("n"), member("e")).unwrap(),
                jsonwebtoken::Algorithm::RS256,
            ),
        };
        let mut validation = Validation::new(name);
        validation.set_audience(&[house::AUDIENCE]);
        validation.set_issuer(&[house::ISSUER]);
        Self {
            policy: house::token_policy(),
            set: JwkSet::parse(published.to_string().as_bytes()).unwrap(),
            issuers: house::issuers(&published, clock),
            raw,
            decoding,
            validation,
            now: clock.now(),
        }
    }

    /// The floor: the signature, decoded into a buffer that costs nothing, under a key parsed before.
    fn raw(&self, text: &str) {
        let (signed, signature) = text.rsplit_once('.').unwrap();
        let mut decoded = [0; 512];
        let length = URL_SAFE_NO_PAD.decode_slice(signature, &mut decoded).unwrap();
        self.raw.verify_sig(signed.as_bytes(), &decoded[..length]).unwrap();
    }

    fn core(&self, text: &str) {
        let token = token::parse(text).unwrap();
        let Selection::Key(key) = self.set.select(token.key_id(), token.algorithm().unwrap()) else {
            panic!("the set does not know its own key");
        };
        black_box(token::verify(token, key, &self.policy, self.now).unwrap());
    }

    fn issuers(&self, text: &str) {
        match self.issuers.verify(text, self.now) {
            Verdict::Ready(verdict) => drop(black_box(verdict.unwrap())),
            Verdict::Pending(_) => panic!("a key that was given must be known"),
        }
    }

    fn jsonwebtoken(&self, text: &str) {
        assert!(jsonwebtoken::decode_header(text).unwrap().kid.is_some());
        let claims = jsonwebtoken::decode::<AppClaims>(text, &self.decoding, &self.validation).unwrap().claims;
        black_box((claims.sub, claims.scope, claims.groups));
    }
}

/// Verdicts that need no signature: a token that comes again, and whole decisions.
fn hot(report: &mut Report, rounds: usize) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let issuer = runtime.block_on(Issuer::start());
    let clock = Clock::system();
    let published = issuer.key_set();
    let issuers = house::issuers(&published, &clock);
    let token = issuer.mint(&house::claims(0, clock.now().wall.as_secs()));
    let (by_session, by_license, cookie) = runtime.block_on(async {
        let store = Store::memory();
        let user = house::user(&store).await;
        let cookie = house::sign_in(&store, &user, &clock).await;
        let plain = house::gate(store.clone(), issuers.clone(), &clock, CredentialKind::Session).await;
        (plain, house::licensed_gate(store, issuers.clone(), &clock, CredentialKind::Session).await, cookie)
    });
    let by_token = runtime.block_on(house::gate(Store::memory(), issuers.clone(), &clock, CredentialKind::Bearer));
    let headers = headers(&cookie, &token);
    // The first decision loads the session, and the license.
    for gate in [&by_session, &by_license] {
        assert!(runtime.block_on(ask(gate, &headers).decision()).outcome.is_ok());
    }

    let policy = by_token.policy();
    let rule =
        Rule::new("127.0.0.1", "/*", Access::Credential(CredentialSet::NONE.with(CredentialKind::Bearer))).unwrap();
    let (mut verified, mut judged, mut session, mut bearer) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut license = Vec::new();
    for _ in 0..rounds {
        verified.push(each(|| match issuers.verify(&token, clock.now()) {
            Verdict::Ready(Ok(token)) => drop(black_box(token)),
            other => panic!("{other:?}"),
        }));
        judged.push(each(|| {
            let now = clock.now();
            let Verdict::Ready(Ok(token)) = issuers.verify(&token, now) else { panic!("it was good before") };
            assert!(black_box(by_token.authorize(Arc::clone(&token.principal), &rule, &policy, now)).is_ok());
        }));
        let plain = each(|| admitted(ask(&by_session, &headers)));
        license.push(each(|| admitted(ask(&by_license, &headers))) - plain);
        session.push(plain);
        bearer.push(each(|| admitted(ask(&by_token, &headers))));
    }
    let mut row = |name: &str, spent: Vec<f64>, target: Target| {
        let nanos = median(spent);
        report.absolute(name, &format!("{nanos:.0}"), nanos, target);
    };
    row("Issuers::verify, a token that comes again", verified, Target::Most(250.0));
    row("the same, then blocklist, freshness and the rule's requirements", judged, Target::Most(250.0));
    row("Gate::check, session in memory", session, Target::None);
    row("what a license in memory adds to it", license, Target::Most(1000.0));
    row("Gate::check, a token that comes again", bearer, Target::None);
}

fn each(mut work: impl FnMut()) -> f64 {
    const TIMES: u32 = 5_000;
    let begin = thread_cpu();
    (0..TIMES).for_each(|_| work());
    Duration::as_secs_f64(&(thread_cpu() - begin)) / f64::from(TIMES) * 1e9
}

fn headers(cookie: &str, token: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::HOST, HeaderValue::from_static("127.0.0.1:8080"));
    headers.insert(header::COOKIE, HeaderValue::try_from(format!("doorward_sid={cookie}")).unwrap());
    headers.insert(header::AUTHORIZATION, HeaderValue::try_from(format!("Bearer {token}")).unwrap());
    headers
}

fn ask(gate: &Gate, headers: &HeaderMap) -> Checked {
    gate.check(&RequestFacts {
        method: &Method::GET,
        scheme: Scheme::Http,
        host: "127.0.0.1:8080",
        target: "/orders/17?full=1",
        headers,
        client: "127.0.0.1".parse().unwrap(),
        is_upgrade: false,
        may_leave_http: false,
    })
}

fn admitted(checked: Checked) {
    match checked {
        Checked::Ready(decision) if decision.outcome.is_ok() => drop(black_box(decision)),
        other => panic!("{other:?}"),
    }
}
