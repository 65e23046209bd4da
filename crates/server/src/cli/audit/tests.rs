use clap::Parser;
use doorward_core::{
    audit::{AuditEvent, EventKind},
    effects::Effects,
    reason::Reason,
    time::Timestamp,
};

use super::*;

#[derive(Parser)]
struct Line {
    #[command(subcommand)]
    command: Audit,
}

const START: i64 = 1_800_000_000;

/// A store with three rows, a minute apart.
async fn store() -> Store {
    let store = Store::memory();
    let mut events = [EventKind::RequestRefused, EventKind::RequestRefused, EventKind::BlocklistAdded]
        .into_iter()
        .zip(0..)
        .map(|(kind, minute)| AuditEvent::new(kind, Timestamp::from_secs(START + 60 * minute)))
        .collect::<Vec<_>>();
    events[0].reason = Some(Reason::TokenExpired);
    events[1].reason = Some(Reason::TokenRevoked);
    store.append(Effects { audit: events, ..Effects::default() }).await.unwrap();
    store
}

async fn numbers(store: &Store, line: &str) -> Result<Vec<i64>, String> {
    let line = Line::try_parse_from(["audit"].into_iter().chain(line.split(' '))).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    let out = &mut Out::new(&mut bytes, true);
    match line.command {
        Audit::Export(export) => export.run(store, out).await.unwrap(),
        Audit::Tail(tail) => {
            let filter = tail.filter.resolve(store).await.unwrap();
            let rows = newest(store, usize::from(tail.count), &filter).await.unwrap();
            return Ok(rows.iter().map(|row| row.number).collect());
        }
        other => return Err(format!("{other:?}")),
    }
    let text = String::from_utf8(bytes).unwrap();
    // A whole export begins with heads and checkpoints, which have no number.
    Ok(text.lines().filter_map(|line| serde_json::from_str::<Value>(line).unwrap()["number"].as_i64()).collect())
}

#[tokio::test]
async fn an_export_is_one_row_a_line_and_filters_narrow_it() {
    let store = store().await;
    for command in ["export", "tail"] {
        let ask = async |options: &str| numbers(&store, format!("{command} {options}").trim_end()).await;
        assert_eq!(ask("").await, Ok(vec![1, 2, 3]));
        assert_eq!(ask("--event request.refused").await, Ok(vec![1, 2]));
        assert_eq!(ask("--reason token_revoked").await, Ok(vec![2]));
        assert_eq!(ask("--since 2027-01-15T08:01:00Z").await, Ok(vec![2, 3]));
        assert_eq!(ask("--until 2027-01-15T08:01:00Z").await, Ok(vec![1]), "the end itself is outside");
        assert_eq!(ask("--event request.refused --since 2027-01-15T08:01:00Z").await, Ok(vec![2]));
        for wrong in ["--event no.such", "--reason no_such", "--since yesterday", "--user nobody"] {
            assert!(ask(wrong).await.is_err(), "{wrong}");
        }
    }
    assert_eq!(numbers(&store, "tail -n 1 --event request.refused").await, Ok(vec![2]));
}

#[tokio::test]
async fn an_exported_row_carries_what_its_seal_covers() {
    let store = store().await;
    let mut bytes = Vec::new();
    Export { filter: Filter::default() }.run(&store, &mut Out::new(&mut bytes, false)).await.unwrap();
    let first: Value = serde_json::from_str(String::from_utf8(bytes).unwrap().lines().nth(1).unwrap()).unwrap();
    let row = &store.audit_tail(0, 1).await.unwrap()[0];
    assert_eq!(first["at_millis"], START * 1000);
    assert_eq!(first["hash"], hex(&row.hash));
    let hash = doorward_core::audit::detail_hash(&row.salt, first["detail_text"].as_str().unwrap());
    assert_eq!(first["detail_hash"], hex(&hash));
}
