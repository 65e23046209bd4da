//! The same verdict by reverse proxy, forward-auth and layer: what anybody may send, through each of them.

mod redirects;
mod requests;
mod tokens;
mod vectors;

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::Value;

use crate::world::{Request, SURFACES, Seen, Surface, Verdict, World};

/// Reads a file of `vectors/` as JSON.
fn load(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors").join(name);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The `cases` of a file, of which there must be at least one.
fn cases(file: &Value) -> &[Value] {
    let cases = file["cases"].as_array().unwrap();
    assert!(!cases.is_empty());
    cases
}

/// A member that has to be a text.
fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("no text {key} in {value}"))
}

/// The bytes of a text that a file shows as Latin-1.
fn bytes(text: &str) -> Vec<u8> {
    text.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect()
}

/// Where a request could not go, with the reason why: how often. Tests compare it with a table, so that
/// nothing drops out unnoticed.
type NotThere = BTreeMap<(String, &'static str), usize>;

/// Sends a request through every surface. All that can take it give the verdict of the proxy, which is returned
/// with what the app saw.
async fn judge(world: &World, name: &str, request: &Request, not_there: &mut NotThere) -> (Verdict, Option<Seen>) {
    let (verdict, by_proxy) = world.judge(Surface::Proxy, request).await.unwrap();
    if let Verdict::Refused(status, reason) = &verdict {
        assert!(*status < 500, "{name}: {status} {reason}");
    }
    for surface in &SURFACES[1..] {
        match world.judge(*surface, request).await {
            Ok((other, seen)) => {
                assert_eq!(other, verdict, "{name}: {surface:?} and the proxy disagree about {request:?}");
                if let (Some(seen), Some(by_proxy)) = (seen, &by_proxy) {
                    assert_eq!(seen.line, by_proxy.line, "{name}");
                }
            }
            Err(why) => *not_there.entry((format!("{surface:?}"), why)).or_default() += 1,
        }
    }
    if let Some(seen) = &by_proxy {
        let line = [request.method.as_bytes(), b" ", &request.target, b" HTTP/1.1"].concat();
        assert_eq!(seen.line.as_bytes(), line, "{name}: the app sees the bytes that were judged");
    }
    (verdict, by_proxy)
}
