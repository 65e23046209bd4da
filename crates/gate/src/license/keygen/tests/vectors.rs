//! `vectors/keygen/keygen.json`: recorded answers, sent over a socket for the very question that they were signed for.

use doorward_core::keygen::Problem;
use doorward_testkit::upstream::RawUpstream;
use serde_json::Value;

use super::*;

fn answers() -> Vec<Value> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../vectors/keygen/keygen.json");
    let file: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let all = file["vectors"].as_array().unwrap().iter();
    all.filter(|vector| vector["kind"] == "response_signature").cloned().collect()
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap()
}

/// When the vectors say that they were signed.
fn date(text: &str) -> Timestamp {
    let mut headers = http::HeaderMap::new();
    headers.insert("date", text.parse().unwrap());
    doorward_core::keygen::claimed_date(&headers).unwrap()
}

/// Asks an upstream that answers with this vector, that many seconds after it was signed.
async fn ask(vector: &Value, after: i64) -> Result<Option<String>, Trouble> {
    let input = &vector["input"];
    let headers = input["headers"].as_object().unwrap().iter();
    let headers: String = headers.map(|(name, value)| format!("{name}: {}\r\n", value.as_str().unwrap())).collect();
    let body = text(input, "body").to_owned();
    let answer = format!("HTTP/1.1 200 OK\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len());
    let upstream = RawUpstream::with(move |mut conversation| {
        let answer = answer.clone();
        async move {
            while conversation.request().await.is_some() {
                conversation.say(&answer).await;
            }
        }
    })
    .await;
    let signed_at = date(text(&input["headers"], "Date")).as_secs();
    let config = KeygenConfig {
        endpoint: Endpoint {
            url: upstream.url().parse().unwrap(),
            host: Some(text(input, "host").to_owned()),
            token: Secret::new("token".to_owned()),
        },
        account: text(vector, "keyid").to_owned(),
        product: PRODUCT.to_owned(),
        keys: AccountKeys::parse(&[text(&vector["public_key"], "value")]).unwrap(),
    };
    let provider = KeygenProvider::new(config, Clock::manual(Timestamp::from_secs(signed_at + after))).unwrap();
    let method: Method = text(input, "method").parse().unwrap();
    let said = provider.0.say(method, text(input, "request_target"), None).await?;
    let (said, at) = said.found();
    assert_eq!(at.as_secs(), signed_at);
    assert_eq!(said.as_deref(), Some(body_of(vector)));
    let heard = upstream.text();
    assert!(heard.contains(&format!("host: {}\r\n", text(input, "host"))), "{heard}");
    assert!(heard.contains("x-forwarded-proto: https\r\n"), "{heard}");
    Ok(said)
}

fn body_of(vector: &Value) -> &str {
    text(&vector["input"], "body")
}

#[tokio::test]
async fn genuine_answers_are_believed_while_they_are_fresh_and_forged_ones_never() {
    let vectors = answers();
    assert_eq!(vectors.len(), 7);
    for vector in &vectors {
        let name = text(vector, "name");
        let outcome = ask(vector, 0).await;
        if vector["expected"] == "valid" {
            let said = outcome.unwrap_or_else(|trouble| panic!("{name}: {trouble}")).unwrap();
            assert!(Validation::read(&said).is_ok(), "{name}");
            for (after, is_fresh) in [(300, true), (-300, true), (301, false), (-301, false)] {
                let outcome = ask(vector, after).await;
                assert_eq!(outcome.is_ok(), is_fresh, "{name} {after} s later: {outcome:?}");
            }
        } else {
            let problem = match name {
                "neg-response-empty-signature" => Problem::EmptySignature,
                _ => Problem::BadSignature,
            };
            assert_eq!(outcome, Err(Trouble::NotBelieved { problem, skew: None }), "{name}");
        }
    }
}
