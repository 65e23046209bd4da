//! Finding a route of the table by address and method.

use super::{ROUTES, Route};

impl Route {
    /// Whether it answers `method`.
    pub fn admits(&self, method: &http::Method) -> bool {
        self.methods.is_empty()
            || self.methods.contains(&method.as_str())
            || *method == http::Method::HEAD && self.methods.contains(&"GET")
    }

    /// Whether one of its methods changes something (RFC 9110 §9.2.1).
    pub fn changes(&self) -> bool {
        self.methods.iter().any(|method| *method != "GET")
    }

    /// Whether `path`, below `base_path`, is this route's; returns what `*` or `{id}` stands for.
    pub fn matches<'p>(&self, path: &'p str) -> Option<&'p str> {
        if let Some((prefix, suffix)) = self.path.split_once("{id}") {
            let id = path.strip_prefix(prefix)?.strip_suffix(suffix)?;
            return (!id.is_empty() && !id.contains('/')).then_some(id);
        }
        match self.path.strip_suffix('*') {
            None => (path == self.path).then_some(""),
            // `/check/envoy/*` gives the rest with its slash: it is the original path.
            Some(prefix) => path.strip_prefix(prefix.trim_end_matches('/')).filter(|rest| rest.starts_with('/')),
        }
    }
}

/// What stands at an address of ours.
#[derive(Debug)]
pub enum Found<'p> {
    /// A route, and what its `*` or `{id}` stands for.
    Route(&'static Route, &'p str),
    /// Routes with other methods.
    OtherMethods(Vec<&'static str>),
    /// Nothing, though it lies under `base_path`.
    Nothing,
    /// Not ours: the rules decide.
    NotOurs,
}

/// Finds the route at `path` (without query).
pub fn find<'p>(base: &str, method: &http::Method, path: &'p str) -> Found<'p> {
    let below = path.strip_prefix(base).filter(|rest| rest.starts_with('/'));
    let mut other = Vec::new();
    for route in ROUTES {
        let at_root = route.is_at_root.then(|| route.matches(path)).flatten();
        let Some(rest) = below.and_then(|below| route.matches(below)).or(at_root) else { continue };
        if route.admits(method) {
            return Found::Route(route, rest);
        }
        other.extend(route.methods);
    }
    match (other.is_empty(), below) {
        (false, _) => Found::OtherMethods(other),
        (true, Some(_)) if !base.is_empty() => Found::Nothing,
        _ => Found::NotOurs,
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::http::routes::{Handler, PLAIN};

    fn handler(method: &Method, path: &str) -> Option<Handler> {
        match find("/auth", method, path) {
            Found::Route(route, _) => Some(route.handler),
            _ => None,
        }
    }

    #[test]
    fn routes_are_found_below_the_base_and_health_also_at_the_root() {
        assert_eq!(handler(&Method::GET, "/auth/login"), Some(Handler::LoginPage));
        assert_eq!(handler(&Method::HEAD, "/auth/login"), Some(Handler::LoginPage));
        assert_eq!(handler(&Method::GET, "/healthz"), Some(Handler::Healthz));
        assert_eq!(handler(&Method::POST, "/auth/login/callback"), Some(Handler::Callback));
        assert!(matches!(find("/auth", &Method::GET, "/authx/login"), Found::NotOurs));
        assert!(matches!(find("/auth", &Method::GET, "/auth/nothing"), Found::Nothing));
        assert!(matches!(find("/auth", &Method::DELETE, "/auth/login/callback"), Found::OtherMethods(_)));
    }

    #[test]
    fn the_rest_of_an_envoy_check_is_the_original_path() {
        let Found::Route(_, rest) = find("/auth", &Method::PUT, "/auth/check/envoy/a/b") else { panic!() };
        assert_eq!(rest, "/a/b");
    }

    #[test]
    fn an_id_is_one_segment_and_not_an_empty_one() {
        let route = Route { path: "/things/{id}/revoke", ..PLAIN };
        assert_eq!(route.matches("/things/7/revoke"), Some("7"));
        for other in ["/things//revoke", "/things/7", "/things/7/8/revoke", "/things/revoke", "/things/7/revoke/"] {
            assert_eq!(route.matches(other), None, "{other}");
        }
        assert_eq!(Route { path: "/things/{id}", ..PLAIN }.matches("/things/7"), Some("7"));
    }
}
