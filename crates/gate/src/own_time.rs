//! Waiting by the time that the process had, not by the wall.

use std::{pin::pin, time::Duration};

/// So many steps are a second. However long the process stands still meanwhile, that costs the step under way alone, and
/// what is there by then has its turn within the next one.
const STEPS: u32 = 10;
const STEP: Duration = Duration::from_millis(100);

/// Waits for `answer` for a second of this process's own time at most.
pub(crate) async fn for_a_second<T>(answer: impl Future<Output = T>) -> Option<T> {
    let mut answer = pin!(answer);
    for _ in 0..STEPS {
        if let Ok(answer) = tokio::time::timeout(STEP, &mut answer).await {
            return Some(answer);
        }
    }
    None
}
