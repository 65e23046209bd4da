//! Licenses that lie in our hands: files that are put in their place, and leases of a relay.

mod relay;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use doorward_core::{
    keygen::{AccountKeys, Scheme},
    license::{Holder, LicenseState, Observation},
    secret::Secret,
    time::{Now, Timestamp},
};
use doorward_gate::license::{
    Expected, FaultKind, FileListener, FileNews, FileProvider, LicenseProvider, Paper as Read, ProviderFault, Question,
    Unusable,
};
use doorward_testkit::paper::{Account, Paper};
use serde_json::Value;

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
const DAY: i64 = 86_400_000;

fn now(after: Duration) -> Now {
    Now { wall: NOW.plus(after), mono: after }
}

pub(crate) fn expected(account: &Account) -> Expected {
    Expected {
        keys: AccountKeys::parse(&[account.public_key()]).unwrap(),
        scheme: Scheme::Ed25519Sign,
        account: Some("acct-1".to_owned()),
        product: Some("prod-1".to_owned()),
        license_key: None,
        fingerprint: None,
        max_age: Duration::from_hours(30 * 24),
    }
}

async fn ask(provider: &dyn LicenseProvider, after: Duration) -> Result<Observation, ProviderFault> {
    ask_judged(provider, after, after).await
}

/// Where the time by which licenses end is another than the clock's.
async fn ask_judged(
    provider: &dyn LicenseProvider,
    clock: Duration,
    judged: Duration,
) -> Result<Observation, ProviderFault> {
    let judged_at = NOW.plus(judged);
    let question = Question { holder: Holder::Installation, license_id: None, subject: None, email: None, judged_at };
    provider.ask(question, now(clock)).await
}

/// A paper issued `days` before now.
fn paper(id: &str, days: i64) -> Paper {
    Paper::new(id, NOW.as_millis() - days * DAY)
}

struct Place {
    _folder: tempfile::TempDir,
    path: PathBuf,
    provider: FileProvider,
    news: Arc<Mutex<Vec<FileNews>>>,
}

impl Place {
    fn new(name: &str, expected: Expected) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        let news = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&news);
        let listener = FileListener::new(move |news| heard.lock().unwrap().push(news));
        let provider = FileProvider::new(path.clone(), expected, listener);
        Self { _folder: folder, path, provider, news }
    }

    /// Puts a text in its place in one step, as whoever is careful does.
    fn put(&self, path: &Path, text: &str) {
        let unfinished = path.with_extension("tmp");
        fs::write(&unfinished, text).unwrap();
        fs::rename(unfinished, path).unwrap();
    }

    async fn id(&self) -> Result<Option<String>, FaultKind> {
        ask(&self.provider, Duration::ZERO).await.map(|said| said.license_id).map_err(|fault| fault.kind)
    }

    fn heard(&self) -> Vec<FileNews> {
        std::mem::take(&mut self.news.lock().unwrap())
    }
}

#[tokio::test]
async fn a_file_put_in_its_place_is_taken_and_the_old_one_stays_until_a_genuine_one_is_there() {
    let account = Account::generate();
    let place = Place::new("license.lic", expected(&account));
    assert!(!place.provider.is_per_user());
    assert_eq!(place.id().await, Err(FaultKind::Misconfigured), "there is none yet");
    assert!(matches!(&place.heard()[..], [FileNews::Refused { why }] if why.contains("there is no license file")));

    place.put(&place.path, &account.file(&paper("l1", 9)));
    assert!(place.provider.has_changed());
    assert_eq!(place.id().await, Ok(Some("l1".to_owned())));
    assert!(!place.provider.has_changed());
    assert!(matches!(&place.heard()[..], [FileNews::Taken { license_id: Some(id), .. }] if id == "l1"));

    // A stranger's, a half-copied one, one for another product, an older one: each is named, none is taken.
    let whole = account.file(&paper("l2", 3));
    let foreign = Paper { product: "prod-2".to_owned(), ..paper("l2", 3) };
    for (text, why) in [
        (Account::generate().file(&paper("l2", 3)), "the signature does not fit"),
        (whole[..whole.len() / 2].to_owned(), "the file is missing or malformed"),
        (account.file(&foreign), "another product"),
        (account.file(&paper("l2", 20)), "before the one in use"),
        ("x".repeat(300 * 1024), "longer than"),
    ] {
        place.put(&place.path, &text);
        assert_eq!(place.id().await, Ok(Some("l1".to_owned())), "{why}");
        let heard = place.heard();
        assert!(matches!(&heard[..], [FileNews::Refused { why: said }] if said.contains(why)), "{why}: {heard:?}");
        let status = place.provider.status();
        assert!(status.problem.is_some_and(|problem| problem.contains("license.lic") && problem.contains(why)));
        assert_eq!(place.id().await, Ok(Some("l1".to_owned())));
        assert!(place.heard().is_empty(), "it is told once");
    }

    place.put(&place.path, &whole);
    assert_eq!(place.id().await, Ok(Some("l2".to_owned())));
    assert_eq!(place.provider.status().problem, None);
    assert_eq!(place.heard().len(), 1);
    fs::remove_file(&place.path).unwrap();
    assert_eq!(place.id().await, Err(FaultKind::Misconfigured), "what was taken away counts no more");
}

#[tokio::test]
async fn what_is_older_than_what_is_known_is_told_and_taken_once_nothing_is_known_any_more() {
    let account = Account::generate();
    let place = Place::new("license.lic", expected(&account));
    place.put(&place.path, &account.file(&paper("l1", 3)));
    assert_eq!(place.id().await, Ok(Some("l1".to_owned())));
    place.heard();
    for (text, why) in [
        (account.file(&paper("l1", 9)), "is of the same license, l1: an old copy"),
        (account.file(&paper("l2", 9)), "the license l2 in it was issued before the one in use, l1"),
    ] {
        place.put(&place.path, &text);
        assert_eq!(place.id().await, Ok(Some("l1".to_owned())));
        let heard = place.heard();
        let [FileNews::Refused { why: said }] = &heard[..] else { panic!("{heard:?}") };
        for part in ["license.lic: ", why, "check the license out again", "`doorward license forget`"] {
            assert!(said.contains(part), "{part}: {said}");
        }
        assert!(place.provider.is_passed_over());
    }
    // As a process finds it that has just started: the store knows more than the file.
    let known = ask(&place.provider, Duration::ZERO).await.unwrap();
    place.provider.start_over();
    assert!(place.provider.has_changed() && !place.provider.is_passed_over());
    let read = ask(&place.provider, Duration::ZERO).await.unwrap();
    assert_eq!(read.license_id.as_deref(), Some("l2"));
    place.heard();
    place.provider.passed_over(&read, &known);
    assert_eq!(place.id().await, Err(FaultKind::Misconfigured), "it is not in use");
    assert!(place.provider.is_passed_over());
    assert!(matches!(&place.heard()[..], [FileNews::Refused { why }] if why.contains("before the one in use, l1")));
    place.provider.passed_over(&read, &known);
    assert!(place.heard().is_empty(), "it is told once");
    place.provider.start_over();
    assert_eq!(place.id().await, Ok(Some("l2".to_owned())));
}

#[tokio::test]
async fn a_newer_file_that_was_read_while_an_older_one_was_compared_stays_in_use() {
    let account = Account::generate();
    let place = Place::new("license.lic", expected(&account));
    place.put(&place.path, &account.file(&paper("l1", 9)));
    let older = ask(&place.provider, Duration::ZERO).await.unwrap();
    let known = Observation { observed_at: NOW.minus(Duration::from_hours(24)), ..older.clone() };
    place.put(&place.path, &account.file(&paper("l2", 0)));
    assert_eq!(place.id().await, Ok(Some("l2".to_owned())));
    place.heard();
    place.provider.passed_over(&older, &known);
    assert_eq!(place.id().await, Ok(Some("l2".to_owned())));
    assert!(!place.provider.is_passed_over() && place.heard().is_empty());
    // It is compared in its turn.
    place.provider.compared(&older);
    assert!(place.provider.is_to_be_compared() && !place.provider.has_changed());
    place.provider.compared(&ask(&place.provider, Duration::ZERO).await.unwrap());
    assert!(!place.provider.is_to_be_compared());
}

#[tokio::test]
async fn a_new_configuration_goes_on_with_the_file_in_use_unless_it_asks_for_another_one() {
    let account = Account::generate();
    let place = Place::new("license.lic", expected(&account));
    place.put(&place.path, &account.file(&paper("l1", 9)));
    assert_eq!(place.id().await, Ok(Some("l1".to_owned())));
    place.put(&place.path, "half copied");
    assert_eq!(place.id().await, Ok(Some("l1".to_owned())));
    assert_eq!(place.heard().len(), 2);
    let follow = |expected: Expected| {
        let (path, heard) = (place.path.clone(), Arc::clone(&place.news));
        let listener = FileListener::new(move |news| heard.lock().unwrap().push(news));
        FileProvider::following(path, expected, listener, Some(&place.provider))
    };
    let same = ask(&follow(expected(&account)), Duration::ZERO).await.unwrap();
    assert_eq!((same.license_id.as_deref(), place.heard().len()), (Some("l1"), 0), "and is told once");
    let product = Expected { product: Some("prod-2".to_owned()), ..expected(&account) };
    for other in [product, expected(&Account::generate())] {
        assert_eq!(ask(&follow(other), Duration::ZERO).await.unwrap_err().kind, FaultKind::Misconfigured);
    }
}

#[tokio::test]
async fn a_key_of_any_text_counts_without_an_end_and_only_where_nothing_is_asked_of_it() {
    let account = Account::generate();
    let free = account.free_key("ada@example.com");
    let strict = Read::read(&free, &expected(&account), NOW);
    assert_eq!(strict, Err(Unusable::Unnamed("account")));
    let anything = Expected { account: None, product: None, ..expected(&account) };
    let taken = Read::read(&free, &anything, NOW).unwrap();
    assert!(taken.is_bare() && !taken.is_over(NOW.plus(Duration::from_hours(10_000 * 24))));
    let named = Read::read(&account.key(&paper("l1", 3)), &anything, NOW).unwrap();
    assert!(!named.is_bare(), "it says whose license it is");
    // Whatever is known is newer than what says nothing of its time.
    let place = Place::new("license.key", anything);
    place.put(&place.path, &account.file(&paper("l1", 3)));
    assert_eq!(place.id().await, Ok(Some("l1".to_owned())));
    place.heard();
    place.put(&place.path, &free);
    assert_eq!(place.id().await, Ok(Some("l1".to_owned())));
    let heard = place.heard();
    assert!(matches!(&heard[..], [FileNews::Refused { why }] if why.contains("does not say when")), "{heard:?}");
}

#[tokio::test]
async fn of_a_folder_the_genuine_license_that_was_issued_last_counts() {
    let account = Account::generate();
    let place = Place::new("licenses", expected(&account));
    fs::create_dir(&place.path).unwrap();
    place.put(&place.path.join("b.lic"), &account.file(&paper("old", 9)));
    place.put(&place.path.join("a.lic"), &account.file(&paper("new", 2)));
    place.put(&place.path.join("c.lic"), "no license");
    fs::write(place.path.join("half.part"), "half").unwrap();
    fs::write(place.path.join(".hidden"), "hidden").unwrap();
    assert_eq!(place.id().await, Ok(Some("new".to_owned())));
    let problem = place.provider.status().problem.unwrap();
    assert!(problem.starts_with("c.lic: ") && !problem.contains("half") && !problem.contains("hidden"), "{problem}");
    place.put(&place.path.join("d.key"), &account.key(&paper("newest", 1)));
    assert_eq!(place.id().await, Ok(Some("newest".to_owned())), "a key is a license too");
}

#[tokio::test]
async fn a_file_says_what_the_license_is_and_ends_when_it_says_or_when_it_is_too_old() {
    let account = Account::generate();
    let place = Place::new("license.lic", expected(&account));
    let full = Paper {
        expiry: Some(NOW.as_millis() + 300 * DAY),
        file_ends: Some(NOW.as_millis() + DAY),
        status: "SUSPENDED",
        entitlements: vec!["sso", "audit"],
        ..paper("l1", 1)
    };
    place.put(&place.path, &account.file(&full));
    let said = ask(&place.provider, Duration::ZERO).await.unwrap();
    assert_eq!((said.state, said.license_id.as_deref()), (LicenseState::Suspended, Some("l1")));
    assert_eq!(said.expires_at, Some(NOW.plus(Duration::from_hours(300 * 24))));
    assert_eq!(said.entitlements.into_iter().collect::<Vec<_>>(), ["audit", "sso"]);
    assert_eq!(said.observed_at, NOW.minus(Duration::from_hours(24)), "the time of the file, not of reading it");
    let hour = Duration::from_hours(1);
    assert!(ask(&place.provider, hour * 23).await.is_ok());
    let over = ask(&place.provider, hour * 24).await.unwrap_err();
    assert!(over.kind == FaultKind::Untrusted && over.note.contains("has ended"), "{over}");

    // Without an end of its own it counts for `max_age`.
    place.put(&place.path, &account.file(&paper("l1", 0)));
    assert!(ask(&place.provider, hour * (30 * 24 - 1)).await.is_ok());
    assert_eq!(ask(&place.provider, hour * 30 * 24).await.unwrap_err().kind, FaultKind::Untrusted);
}

#[tokio::test]
async fn a_file_ends_by_the_time_by_which_licenses_end_whatever_the_clock_says() {
    let account = Account::generate();
    let place = Place::new("license.lic", expected(&account));
    let day = Duration::from_hours(24);
    place.put(&place.path, &account.file(&Paper { file_ends: Some(NOW.as_millis() + 2 * DAY), ..paper("l1", 1) }));
    assert!(ask_judged(&place.provider, day, day).await.is_ok());
    let over = ask_judged(&place.provider, day, day * 2).await.unwrap_err();
    assert!(over.kind == FaultKind::Untrusted && over.note.contains("has ended"), "{over}");
    // A clock that came up behind makes no file one from the future.
    place.put(&place.path, &account.file(&paper("l2", -3)));
    assert_eq!(ask_judged(&place.provider, day, day * 3).await.unwrap().license_id.as_deref(), Some("l2"));
}

#[test]
fn what_is_for_another_account_product_machine_or_time_is_refused_with_the_reason() {
    let account = Account::generate();
    let expected = expected(&account);
    let read = |text: &str, expected: &Expected| Read::read(text, expected, NOW).map(drop);
    let good = paper("l1", 1);
    let file = |change: &dyn Fn(&mut Paper)| {
        let mut paper = good.clone();
        change(&mut paper);
        (account.file(&paper), account.key(&paper))
    };
    for (change, why) in [
        (
            &(|paper: &mut Paper| paper.account = "acct-2".to_owned()) as &dyn Fn(&mut Paper),
            Unusable::Another("account"),
        ),
        (&|paper: &mut Paper| paper.product = "prod-2".to_owned(), Unusable::Another("product")),
        (&|paper: &mut Paper| paper.issued = NOW.as_millis() + 301_000, Unusable::Future),
    ] {
        let (file, key) = file(change);
        assert_eq!(read(&file, &expected), Err(why.clone()));
        assert_eq!(read(&key, &expected), Err(why));
    }
    assert_eq!(read(&file(&|paper| paper.issued = NOW.as_millis() + 299_000).0, &expected), Ok(()));

    let machine = Paper { fingerprint: Some("m-7".to_owned()), ..good.clone() };
    let bound = |name: &str| Expected { fingerprint: Some(name.to_owned()), ..expected.clone() };
    assert_eq!(read(&account.file(&machine), &bound("m-7")), Ok(()));
    assert_eq!(read(&account.file(&machine), &bound("m-8")), Err(Unusable::OtherMachine));
    assert_eq!(read(&account.file(&machine), &expected), Err(Unusable::NoFingerprint));
    assert_eq!(read(&account.file(&good), &bound("m-7")), Err(Unusable::NotOfAMachine));
    assert_eq!(read(&account.key(&good), &bound("m-7")), Err(Unusable::NotOfAMachine));

    let with_key = |key: &str| Expected { license_key: Some(Secret::new(key.to_owned())), ..expected.clone() };
    let sealed = account.encrypted(&good, "AAAA-BBBB-V3");
    assert_eq!(read(&sealed, &with_key("AAAA-BBBB-V3")), Ok(()));
    assert!(read(&sealed, &with_key("another")).is_err() && read(&sealed, &expected).is_err());
    let sealed = account.encrypted(&machine, "AAAA-BBBB-V3");
    assert_eq!(read(&sealed, &Expected { fingerprint: Some("m-7".into()), ..with_key("AAAA-BBBB-V3") }), Ok(()));
    assert!(read(&sealed, &Expected { fingerprint: Some("m-8".into()), ..with_key("AAAA-BBBB-V3") }).is_err());
}

/// `vectors/keygen/keygen.json`, as an installation that expects nothing but a genuine signature reads it.
#[test]
fn every_file_and_key_of_the_vectors_is_taken_or_refused_as_it_should_be() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors/keygen/keygen.json");
    let file: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let (mut taken, mut refused) = (0, 0);
    for vector in file["vectors"].as_array().unwrap() {
        let kind = vector["kind"].as_str().unwrap();
        if !["license_key", "license_file", "machine_file"].contains(&kind) {
            continue;
        }
        let name = vector["name"].as_str().unwrap();
        let secret = vector["secret"]["value"].as_str();
        // For machine files license key and fingerprint are one text, the key being what Keygen's generator writes.
        let (license_key, fingerprint) = match secret.and_then(|secret| secret.split_once("-V3")) {
            Some((key, fingerprint)) if kind == "machine_file" => (Some(format!("{key}-V3")), Some(fingerprint)),
            _ => (secret.map(str::to_owned), (kind == "machine_file").then_some("unknown")),
        };
        let expected = Expected {
            keys: AccountKeys::parse(&[vector["public_key"]["value"].as_str().unwrap()]).unwrap(),
            scheme: vector["scheme"].as_str().and_then(Scheme::parse).unwrap_or(Scheme::Ed25519Sign),
            account: None,
            product: None,
            license_key: license_key.map(Secret::new),
            fingerprint: fingerprint.map(str::to_owned),
            max_age: Duration::from_hours(24),
        };
        let read = Read::read(vector["input"].as_str().unwrap(), &expected, NOW);
        // Signed, and its license key was never published.
        let is_closed = vector["steps"]["decrypt"].is_string() || secret.is_none() && kind == "machine_file";
        let is_valid = vector["expected"] == "valid" && !is_closed;
        // A machine file made without its license says nothing about one.
        let is_silent = matches!(&read, Err(unusable) if unusable.to_string().contains("the license in the file"));
        assert!(read.is_ok() == is_valid || is_valid && is_silent && kind == "machine_file", "{name}: {read:?}");
        if read.is_ok() { taken += 1 } else { refused += 1 }
    }
    assert!(taken >= 20 && refused >= 14, "{taken} {refused}");
}
