//! `[login]`: how people sign in.

use std::time::Duration;

use doorward_core::origin::Origin;

use super::{key::settings, read::Reader};

settings! {
    /// How people sign in.
    pub struct Login check Login::check {
        /// Whether a sign-in by an unknown address makes an account. Off: `doorward users add` makes them.
        allow_sign_up: bool = default false;
        /// How long a sign-in link can be used. OWASP ASVS asks for 10 minutes at most.
        link_ttl: Duration = default "15m";
        /// How long the code from the same mail can be used.
        code_ttl: Duration = default "10m";
        /// Asking for a link never answers faster than this, whoever asks.
        response_floor: Duration = default "250ms";
        /// Origins besides `public_url` that may call with credentials (CORS) and open WebSockets.
        allowed_origins: Vec<Origin> = default [];
    }
}

impl Login {
    fn check(&self, cx: &mut Reader<'_>) {
        let day = (Duration::from_secs(86_400), "24h");
        cx.check_range("link_ttl", self.link_ttl, (Duration::from_secs(1), "1s"), day);
        cx.check_range("code_ttl", self.code_ttl, (Duration::from_secs(1), "1s"), day);
        let (zero, five) = ((Duration::ZERO, "0s"), (Duration::from_secs(5), "5s"));
        cx.check_range("response_floor", self.response_floor, zero, five);
    }
}
