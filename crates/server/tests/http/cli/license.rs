//! `license verify`, with every key and file of the Keygen vectors.

use std::fs;

use serde_json::Value;

use super::{CONFIG, Ended, Installation};

fn vectors(kind: &str) -> Vec<Value> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../vectors/keygen/keygen.json");
    let file: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let found: Vec<Value> =
        file["vectors"].as_array().unwrap().iter().filter(|vector| vector["kind"] == kind).cloned().collect();
    assert!(!found.is_empty());
    found
}

fn installation(vector: &Value) -> Installation {
    let key = vector["public_key"]["value"].as_str().unwrap();
    let installation = Installation::with(&format!("{CONFIG}\n[license]\npublic_keys = ['''{key}''']\n"));
    let input = vector["input"].as_str().unwrap();
    fs::write(installation.path().join("subject"), input).unwrap();
    if let Some(secret) = vector["secret"]["value"].as_str() {
        fs::write(installation.path().join("license.key"), secret).unwrap();
    }
    installation
}

/// Runs the command for programs and for people; both say the same and end alike.
fn verify(installation: &Installation, arguments: &[&str]) -> Ended {
    let ended = installation.run(&[&["license", "verify", "--json"], arguments].concat());
    let people = installation.run(&[&["license", "verify"], arguments].concat());
    assert_eq!(people.code, ended.code, "{people:?}");
    for (name, value) in ended.json().as_object().unwrap() {
        // Times have how far away they are behind them; what a key says may be longer than a line.
        if let Some(text) = value.as_str() {
            let line = format!("{:<14}{text}", name.replace('_', " "));
            assert!(people.stdout.lines().any(|said| said.starts_with(line.trim_end())), "{line} in {}", people.stdout);
        }
    }
    ended
}

#[test]
fn license_keys_are_genuine_by_their_scheme_alone() {
    for vector in vectors("license_key") {
        let scheme = vector["scheme"].as_str().unwrap();
        let ended = verify(&installation(&vector), &["--scheme", scheme, "subject"]);
        let is_genuine = vector["expected"] == "valid";
        assert_eq!(ended.json()["genuine"], is_genuine, "{}: {ended:?}", vector["name"]);
        assert_eq!(ended.code, Some(i32::from(!is_genuine)), "{}", vector["name"]);
    }
}

#[test]
fn license_files_are_genuine_or_say_why_not() {
    for vector in vectors("license_file") {
        let mut arguments = vec!["subject"];
        if vector["secret"].is_object() {
            arguments.extend(["--license-key-file", "license.key"]);
        }
        let ended = verify(&installation(&vector), &arguments);
        // One is signed and its inside cannot be opened, because its license key was never published.
        let is_closed = vector["steps"]["decrypt"].is_string();
        let is_genuine = vector["expected"] == "valid" && !is_closed;
        assert_eq!(ended.json()["genuine"], is_genuine, "{}: {ended:?}", vector["name"]);
        // All of them have ended by now, the files or the licenses.
        assert_eq!(ended.code, Some(1), "{}", vector["name"]);
        if is_closed {
            assert!(ended.json()["verdict"].as_str().unwrap().contains("does not open it"), "{ended:?}");
        }
    }
}

#[test]
fn machine_files_are_opened_by_license_key_and_fingerprint_together() {
    for vector in vectors("machine_file") {
        let installation = installation(&vector);
        // Both in one text; the key is what Keygen's generator writes.
        let secret = vector["secret"]["value"].as_str().and_then(|secret| secret.split_once("-V3"));
        let (key, fingerprint) = secret.map_or((String::new(), ""), |(key, rest)| (format!("{key}-V3"), rest));
        fs::write(installation.path().join("license.key"), key).unwrap();
        let ended =
            verify(&installation, &["subject", "--license-key-file", "license.key", "--fingerprint", fingerprint]);
        let said = ended.json();
        let is_opened = vector["expected"] == "valid" && secret.is_some();
        // Genuine and opened; those that were made without their license say nothing about one.
        let is_silent = said["verdict"].as_str().unwrap().contains("the license in the file");
        assert_eq!(said["genuine"] == true || is_silent, is_opened, "{}: {ended:?}", vector["name"]);
        assert_eq!((ended.code, said["kind"].as_str()), (Some(1), Some("machine file")));
    }
}

#[test]
fn a_file_without_pinned_keys_proves_nothing() {
    let installation = Installation::with(CONFIG);
    let ended = installation.run(&["license", "verify", "key/a.b"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""));
    assert!(ended.stderr.contains("license.public_keys is empty"), "{ended:?}");
}
