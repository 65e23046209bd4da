//! Our cookies on the wire (RFC 6265bis): `__Host-` over https, plain names on loopback.

use std::time::Duration;

use doorward_core::{credential::CookieNames, session::OpaqueToken};
use http::{HeaderMap, HeaderValue, header};

/// How long a browser keeps the login cookie; links live shorter.
const LOGIN_AGE: Duration = Duration::from_secs(24 * 3600);
/// How long a browser stays known to those who have signed in there.
const KNOWN_AGE: Duration = Duration::from_secs(90 * 24 * 3600);

/// Writes and clears our cookies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cookies {
    /// Their names.
    pub names: CookieNames,
    /// Whether they carry `Secure`.
    pub is_secure: bool,
}

impl Cookies {
    /// For a public URL of this scheme.
    pub const fn new(is_https: bool) -> Self {
        Self { names: if is_https { CookieNames::SECURE } else { CookieNames::LOOPBACK }, is_secure: is_https }
    }

    /// A session begins.
    pub fn sign_in(&self, headers: &mut HeaderMap, session: &OpaqueToken, csrf: &str, age: Duration) {
        self.set(headers, self.names.session, &session.expose(), age, true);
        self.set(headers, self.names.csrf, csrf, age, false);
        self.clear(headers, self.names.login, true);
    }

    /// The CSRF value again.
    pub fn csrf(&self, headers: &mut HeaderMap, csrf: &str, age: Duration) {
        self.set(headers, self.names.csrf, csrf, age, false);
    }

    /// A sign-in was asked for from this browser.
    pub fn login(&self, headers: &mut HeaderMap, token: &OpaqueToken) {
        self.set(headers, self.names.login, &token.expose(), LOGIN_AGE, true);
    }

    /// Somebody has signed in here.
    pub fn known(&self, headers: &mut HeaderMap, text: &str) {
        self.set(headers, self.names.known, text, KNOWN_AGE, true);
    }

    /// The session is over.
    pub fn sign_out(&self, headers: &mut HeaderMap) {
        self.clear(headers, self.names.session, true);
        self.clear(headers, self.names.csrf, false);
    }

    fn set(&self, headers: &mut HeaderMap, name: &str, value: &str, age: Duration, is_http_only: bool) {
        self.append(headers, name, value, age.as_secs(), is_http_only);
    }

    /// Cleared with the same attributes, or browsers keep it.
    fn clear(&self, headers: &mut HeaderMap, name: &str, is_http_only: bool) {
        self.append(headers, name, "", 0, is_http_only);
    }

    fn append(&self, headers: &mut HeaderMap, name: &str, value: &str, age: u64, is_http_only: bool) {
        let http_only = if is_http_only { "; HttpOnly" } else { "" };
        let secure = if self.is_secure { "; Secure" } else { "" };
        let cookie = format!("{name}={value}; Path=/; Max-Age={age}{http_only}{secure}; SameSite=Lax");
        if let Ok(cookie) = HeaderValue::try_from(cookie) {
            headers.append(header::SET_COOKIE, cookie);
        }
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn over_https_a_session_cookie_has_the_host_prefix_and_every_attribute_of_it() {
        let mut headers = HeaderMap::new();
        let token = OpaqueToken::mint([1; 32]);
        Cookies::new(true).sign_in(&mut headers, &token, "csrf", Duration::from_secs(60));
        let cookies: Vec<&str> = headers.get_all(header::SET_COOKIE).iter().map(|v| v.to_str().unwrap()).collect();
        let text = token.expose();
        assert_eq!(
            cookies,
            [
                &*format!("__Host-doorward_sid={text}; Path=/; Max-Age=60; HttpOnly; Secure; SameSite=Lax"),
                "__Host-doorward_csrf=csrf; Path=/; Max-Age=60; Secure; SameSite=Lax",
                "__Host-doorward_login=; Path=/; Max-Age=0; HttpOnly; Secure; SameSite=Lax",
            ]
        );
        assert_eq!(headers[header::CACHE_CONTROL], "no-store");
    }
}
