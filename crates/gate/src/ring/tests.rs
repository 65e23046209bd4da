use super::*;

fn root(byte: u8) -> RootSecret {
    RootSecret::parse(&[byte; 32]).unwrap()
}

fn clock() -> Clock {
    Clock::manual(Timestamp::from_secs(1_800_000_000))
}

fn current(ring: &Ring, purpose: Purpose) -> [u8; 32] {
    *ring.keys(purpose).unwrap().current().expose()
}

#[tokio::test]
async fn before_the_store_answers_there_is_no_key_and_the_answer_is_503() {
    let ring = Ring::new(root(1), Store::memory(), clock());
    assert!(!ring.is_ready());
    assert_eq!(ring.keys(Purpose::Link).unwrap_err().reason, Reason::StoreUnavailable);
}

#[tokio::test]
async fn replicas_that_start_at_once_end_with_the_same_keys() {
    let store = Store::memory();
    let rings: Vec<Ring> = (0..8).map(|_| Ring::new(root(1), store.clone(), clock())).collect();
    let loads = rings.iter().map(|ring| {
        let ring = ring.clone();
        tokio::spawn(async move { ring.load().await })
    });
    for load in futures_util::future::join_all(loads).await {
        load.unwrap().unwrap();
    }
    for purpose in Purpose::ALL {
        assert!(rings.iter().all(|ring| current(ring, purpose) == current(&rings[0], purpose)), "{purpose}");
        assert_eq!(store.ring(purpose).await.unwrap().len(), 1, "{purpose}");
    }
    assert_ne!(current(&rings[0], Purpose::Link), current(&rings[0], Purpose::Login));
}

#[tokio::test]
async fn a_rotated_key_verifies_once_more_and_other_processes_follow_the_log() {
    let store = Store::memory();
    let (here, there) = (Ring::new(root(1), store.clone(), clock()), Ring::new(root(1), store.clone(), clock()));
    here.load().await.unwrap();
    there.load().await.unwrap();
    let first = current(&there, Purpose::Link);
    here.rotate(Purpose::Link).await.unwrap();
    assert_eq!(current(&there, Purpose::Link), first, "nothing changes before the log is followed");

    let log = store.revocations_after(0, 100).await.unwrap();
    assert_eq!(log.len(), 1);
    assert_eq!(log[0].entry.scope, Scope::KeyRing { purpose: "link".into() });
    there.reload(Purpose::Link).await.unwrap();
    assert_eq!(current(&there, Purpose::Link), current(&here, Purpose::Link));
    assert!(there.keys(Purpose::Link).unwrap().accepted().any(|key| *key.expose() == first));

    here.rotate(Purpose::Link).await.unwrap();
    assert!(!here.keys(Purpose::Link).unwrap().accepted().any(|key| *key.expose() == first));
    let audit = store.audit_tail(0, 100).await.unwrap();
    let rotated = audit.iter().filter(|row| row.kind == "key.rotated").count();
    assert_eq!(rotated, Purpose::ALL.len() + 2, "five first keys and two rotations");
}

#[tokio::test]
async fn another_root_secret_is_told_apart_from_a_store_that_is_down() {
    let store = Store::memory();
    Ring::new(root(1), store.clone(), clock()).load().await.unwrap();
    let other = Ring::new(root(2), store, clock());
    let error = other.load_until_ready().await.unwrap_err();
    assert!(matches!(error, RingError::WrongRoot { .. }), "{error}");
    assert!(error.to_string().contains("secrets.root_file"), "{error}");
    assert!(other.keys(Purpose::Link).is_err());
}
