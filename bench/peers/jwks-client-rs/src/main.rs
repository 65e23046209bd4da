//! `jsonwebtoken` with keys from `jwks_client_rs`, as a verifier under test: see `doorward-testkit scoreboard`.
//!
//! Reads `ID TOKEN` lines, answers `ID accept`, `ID refuse WHY` or `ID unavailable WHY`. The cache is as it comes (one day,
//! refreshed on an unknown kid; FRESH_FOR and MAX_STALE are its `time_to_live`); it has no setting for MIN_INTERVAL.
//! Validation is as strict as the library can be told: issuer, audience and `exp` required, the algorithm that the key names.

use std::{env, str::FromStr as _, sync::Arc, time::Duration};

use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use jwks_client_rs::{JsonWebKey, JwksClient, JwksClientError, source::WebSource};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};

type Client = JwksClient<WebSource>;

struct Rules {
    issuer: String,
    audience: String,
    algorithms: Vec<Algorithm>,
    leeway: u64,
}

enum Problem {
    Refused(String),
    Unavailable(String),
}

impl From<jsonwebtoken::errors::Error> for Problem {
    fn from(error: jsonwebtoken::errors::Error) -> Self {
        Self::Refused(format!("{:?}", error.kind()))
    }
}

impl From<JwksClientError> for Problem {
    fn from(error: JwksClientError) -> Self {
        let JwksClientError::Error(error) = error;
        let text = error.to_string();
        let word = format!("{error:?}").chars().take_while(char::is_ascii_alphanumeric).collect::<String>();
        // A key that is not in the set is the token's fault; not getting the set is the issuer's.
        if word == "KeyNotFound" || word == "MissingKid" || word == "JsonWebToken" {
            Self::Refused(word)
        } else {
            Self::Unavailable(format!("{word}: {text}"))
        }
    }
}

async fn verify(token: &str, client: &Client, rules: &Rules) -> Result<(), Problem> {
    let header = jsonwebtoken::decode_header(token)?;
    let Some(kid) = header.kid else { return Err(Problem::Refused("MissingKid".to_owned())) };
    let key = client.get(&kid).await?;
    let algorithm = match key.alg() {
        Some(name) => Algorithm::from_str(name)?,
        None => header.alg,
    };
    if !rules.algorithms.contains(&algorithm) {
        return Err(Problem::Refused("algorithm".to_owned()));
    }
    let decoding = match &key {
        JsonWebKey::Rsa(jwk) => DecodingKey::from_rsa_components(jwk.modulus(), jwk.exponent())?,
        JsonWebKey::Ec(jwk) => DecodingKey::from_ec_components(jwk.x(), jwk.y())?,
        JsonWebKey::Okp(jwk) => DecodingKey::from_ed_components(jwk.x())?,
    };
    let mut validation = Validation::new(algorithm);
    validation.validate_nbf = true;
    validation.leeway = rules.leeway;
    validation.set_issuer(&[&rules.issuer]);
    validation.set_audience(&[&rules.audience]);
    validation.set_required_spec_claims(&["exp", "iss", "aud"]);
    jsonwebtoken::decode::<Value>(token, &decoding, &validation)?;
    Ok(())
}

#[tokio::main]
async fn main() {
    let var = |name: &str| env::var(name).unwrap_or_default();
    let milliseconds = |name: &str| var(name).parse().ok().map(Duration::from_millis);
    let timeout = Duration::from_secs(5);
    let source = WebSource::builder()
        .with_timeout(timeout)
        .with_connect_timeout(timeout)
        .build(var("JWKS_URL").parse().expect("JWKS_URL"))
        .expect("a client");
    let mut builder = JwksClient::builder();
    if let Some(time_to_live) = milliseconds("FRESH_FOR").or_else(|| milliseconds("MAX_STALE")) {
        builder = builder.time_to_live(time_to_live);
    }
    let client = Arc::new(builder.build(source));
    let rules = Arc::new(Rules {
        issuer: var("ISSUER"),
        audience: var("AUDIENCE"),
        algorithms: var("ALGORITHMS").split(',').filter_map(|name| Algorithm::from_str(name).ok()).collect(),
        leeway: milliseconds("CLOCK_TOLERANCE").unwrap_or_default().as_secs(),
    });
    println!("ready");
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let (client, rules) = (Arc::clone(&client), Arc::clone(&rules));
        tokio::spawn(async move {
            let Some((id, token)) = line.split_once(' ') else { return };
            match verify(token, &client, &rules).await {
                Ok(()) => println!("{id} accept"),
                Err(Problem::Refused(why)) => println!("{id} refuse {why}"),
                Err(Problem::Unavailable(why)) => println!("{id} unavailable {}", why.replace('\n', " ")),
            }
        });
    }
}
