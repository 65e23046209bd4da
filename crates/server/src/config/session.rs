//! `[session]`: how long sessions live.

use std::time::Duration;

use doorward_core::session::SessionLimits;

use super::{key::settings, read::Reader};

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

settings! {
    /// How long sessions live.
    pub struct Session check Session::check {
        /// A session ends this long after its last use.
        idle: Duration = default "60m";
        /// A session ends this long after its sign-in, whatever happens.
        absolute: Duration = default "7d";
        /// How long a sign-in counts as recent, for rules and changes that ask for one.
        recent_auth: Duration = default "5m";
    }
}

impl Session {
    /// The limits as the core wants them.
    pub const fn limits(&self) -> SessionLimits {
        SessionLimits { idle: self.idle, absolute: self.absolute, recent_auth: self.recent_auth }
    }

    fn check(&self, cx: &mut Reader<'_>) {
        cx.check_range("idle", self.idle, (Duration::from_secs(1), "1s"), (365 * DAY, "365d"));
        cx.check_range("absolute", self.absolute, (Duration::from_secs(1), "1s"), (365 * DAY, "365d"));
        cx.check_range("recent_auth", self.recent_auth, (Duration::from_secs(1), "1s"), (1440 * MINUTE, "24h"));
        if self.idle > self.absolute {
            cx.problem_in(
                "idle",
                "the idle limit is longer than the absolute one and would never act",
                "make `idle` at most as long as `absolute`",
            );
        }
    }
}
