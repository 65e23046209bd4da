//! `license clock`: the time by which licenses are judged.

use clap::Args;
use doorward_core::time::Timestamp;
use doorward_gate::{
    clock::Clock as Source,
    license::{ResetTime, highest_time, reset_highest_time},
};
use doorward_store::Store;
use serde_json::json;

use crate::cli::{
    Failure, Out,
    output::{distance, time},
};

/// Show the time by which licenses are judged, or begin it anew.
#[derive(Debug, Args)]
pub struct Clock {
    /// Begin it anew at the time of this machine's clock; a running server follows within a second.
    #[arg(long)]
    pub(super) reset: bool,
}

impl Clock {
    pub(super) async fn run(&self, store: &Store, source: &Source, out: &mut Out<'_>) -> Result<(), Failure> {
        let now = source.now().wall;
        if !self.reset {
            return show(highest_time(store).await?, now, out);
        }
        match reset_highest_time(store, now).await? {
            ResetTime::Reset(was) => {
                let text = format!("licenses are judged by {} from now on; it was {}", time(now), time(was));
                out.say(&json!({ "reset": true, "from": time(was), "to": time(now) }), &text)
            }
            ResetTime::NotAhead => {
                let text = "the highest time is not ahead of this clock: there is nothing to reset";
                out.say(&json!({ "reset": false }), text)
            }
            ResetTime::Busy => Err(Failure::Failed("servers wrote the time all the while; try again".to_owned())),
        }
    }
}

fn show(highest: Option<Timestamp>, now: Timestamp, out: &mut Out<'_>) -> Result<(), Failure> {
    let ahead = highest.map(|highest| highest.since(now).as_secs());
    if out.json {
        return out.json(&json!({ "clock": time(now), "highest": highest.map(time), "ahead_seconds": ahead }));
    }
    out.line(format!("clock         {}", time(now)))?;
    match highest {
        // A server writes its own down every five minutes.
        Some(highest) if highest <= now => out.line(format!("highest time  {}; not ahead", time(highest))),
        Some(highest) => {
            out.line(format!("highest time  {} ({})", time(highest), distance(highest, now)))?;
            out.line("licenses are judged by it; if it was a clock that was ahead, and all are right now: --reset")
        }
        None => out.line("highest time  none: no server has judged licenses yet"),
    }
}

#[cfg(test)]
mod tests {
    use doorward_core::effects::Effects;
    use serde_json::Value;

    use super::*;

    const NAME: &str = "license.highest_time";

    async fn run(store: &Store, source: &Source, reset: bool) -> (Value, String) {
        let mut said = [Vec::new(), Vec::new()];
        // A reset is done by the first of the two.
        for (is_json, bytes) in [true, false].into_iter().zip(&mut said) {
            Clock { reset }.run(store, source, &mut Out::new(bytes, is_json)).await.unwrap();
        }
        let [json, text] = said;
        (serde_json::from_slice(&json).unwrap(), String::from_utf8(text).unwrap())
    }

    #[tokio::test]
    async fn the_time_is_shown_and_begun_anew_only_where_it_is_ahead() {
        let (store, source) = (Store::memory(), Source::manual(Timestamp::from_secs(1_800_000_000)));
        let (json, text) = run(&store, &source, false).await;
        assert_eq!((&json["highest"], &json["ahead_seconds"]), (&Value::Null, &Value::Null));
        assert!(text.contains("no server has judged"), "{text}");

        let ahead = "1800003600000".to_owned();
        store.set_state(NAME.to_owned(), 0, ahead, source.now().wall, Effects::default()).await.unwrap();
        let (json, text) = run(&store, &source, false).await;
        assert_eq!((&json["highest"], &json["ahead_seconds"]), (&"2027-01-15 09:00:00Z".into(), &3600.into()));
        assert!(text.contains("in 1h") && text.contains("--reset"), "{text}");

        let (json, text) = run(&store, &source, true).await;
        assert_eq!((&json["from"], &json["to"]), (&"2027-01-15 09:00:00Z".into(), &"2027-01-15 08:00:00Z".into()));
        assert!(text.contains("nothing to reset"), "{text}");
        assert_eq!(run(&store, &source, false).await.0["ahead_seconds"], 0);
        let kinds: Vec<String> = store.audit_tail(0, 10).await.unwrap().into_iter().map(|row| row.kind).collect();
        assert_eq!(kinds, ["license.clock_reset"]);
    }
}
