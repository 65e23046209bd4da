//! All rules of a policy, indexed by host and path.

use std::cmp::Ordering;

use http::Method;

use super::{PathMode, Rule};
use crate::{
    decision::Denial,
    reason::Reason,
    request::{Host, RequestPath},
};

/// The rules of a policy: immutable, in the order of the config, indexed once.
#[derive(Clone, Debug)]
pub struct RuleSet {
    rules: Vec<Rule>,
    /// Sorted by host.
    hosts: Vec<(Box<str>, Index)>,
}

/// How a rule fared in [`RuleSet::explain`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It decides.
    Hit,
    /// It does not match, or an earlier one does.
    Miss,
    /// It matches one reading of the path and not another.
    May,
}

impl Outcome {
    /// In a word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::May => "may",
        }
    }
}

/// What [`RuleSet::explain`] says about one rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleVerdict {
    /// Its index.
    pub rule: usize,
    /// How it fared.
    pub outcome: Outcome,
    /// Why, for people.
    pub why: String,
}

impl RuleSet {
    /// Indexes `rules`; their order is the order in which paths are matched.
    pub fn new(rules: Vec<Rule>) -> Self {
        let mut names: Vec<&str> = rules.iter().map(|rule| &*rule.host).collect();
        names.sort_unstable();
        names.dedup();
        let index = |host: &str| {
            let of_host = || rules.iter().enumerate().filter(|(_, rule)| &*rule.host == host);
            (host.into(), Index::new(of_host))
        };
        let hosts = names.into_iter().map(index).collect();
        Self { rules, hosts }
    }

    /// The rules in order.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The mode in which a path has to be parsed for this set: [`PathMode::SameRule`] if any rule
    /// wants it. [`RuleSet::find`] still refuses an odd path whose rule is strict.
    pub fn path_mode(&self) -> PathMode {
        if self.rules.iter().any(|rule| rule.paths == PathMode::SameRule) {
            PathMode::SameRule
        } else {
            PathMode::Strict
        }
    }

    /// Finds the rule that decides: the first whose path matches, then its methods.
    ///
    /// `host` is `Host` or `:authority` as received. Not checked here: whether the host is one of
    /// ours, and who may pass.
    ///
    /// # Errors
    /// Those of [`RuleSet::match_path`]; `rule_denies` if the rule admits other methods only, later
    /// rules are not tried.
    pub fn find(&self, host: &str, path: &RequestPath<'_>, method: &Method) -> Result<usize, Denial> {
        let found = self.match_path(host, path)?;
        self.check_method(found, method)?;
        Ok(found)
    }

    /// Finds the first rule whose path matches, whatever its methods.
    ///
    /// # Errors
    /// `no_rule` if nothing matches; `request_malformed` if the host is none, if the readings of the
    /// path meet different rules, or if an odd path meets a rule whose app is strict about paths.
    pub fn match_path(&self, host: &str, path: &RequestPath<'_>) -> Result<usize, Denial> {
        let host = Host::parse(host)?;
        let found = self.index(host.name()).ok_or(Clash::None).and_then(|index| index.find(path));
        let odd = path.oddity().map(|fault| move || fault.denial());
        match found {
            Ok(found) => match odd {
                Some(denial) if self.rules[found].paths == PathMode::Strict => Err(denial()),
                _ => Ok(found),
            },
            Err(Clash::None) => Err(odd.map_or_else(|| Reason::NoRule.into(), |denial| denial())),
            Err(Clash::Readings(one, other)) => {
                let name = |rule: Option<usize>| rule.map_or("no rule", |rule| &*self.rules[rule].name);
                let note = format!("path: one reading meets {}, another {}", name(Some(one)), name(other));
                Err(Denial::from(Reason::RequestMalformed).with_note(note))
            }
        }
    }

    /// Checks that a rule admits a method. `GET` includes `HEAD`; every other method stands for itself.
    ///
    /// # Errors
    /// `rule_denies`, with the admitted methods as what was required.
    pub fn check_method(&self, rule: usize, method: &Method) -> Result<(), Denial> {
        let methods = &self.rules[rule].methods;
        let admits = |admitted: &Method| admitted == method || method == Method::HEAD && admitted == Method::GET;
        if methods.is_empty() || methods.iter().any(admits) {
            return Ok(());
        }
        let names: Vec<&str> = methods.iter().map(Method::as_str).collect();
        Err(Denial::from(Reason::RuleDenies).with_required(names.join(", ")))
    }

    /// Says for each rule how it fares with a request; for `explain --url`.
    pub fn explain(&self, host: &str, path: &RequestPath<'_>, method: &Method) -> Vec<RuleVerdict> {
        let name = Host::parse(host).map(|host| host.name().to_owned()).unwrap_or_default();
        let met = self.index(&name).map(|index| index.all(path)).unwrap_or_default();
        let decides = self.match_path(host, path);
        let verdict = |(at, rule): (usize, &Rule)| {
            let (outcome, why) = if *rule.host != *name {
                (Outcome::Miss, format!("speaks for {}", rule.host))
            } else if let Ok(found) = decides.as_ref().map(|&found| &self.rules[found])
                && std::ptr::eq(found, rule)
            {
                match self.check_method(at, method) {
                    Ok(()) => (Outcome::Hit, "its path matches first and the method is admitted".to_owned()),
                    Err(denial) => {
                        let admitted = denial.detail().and_then(|detail| detail.required.clone()).unwrap_or_default();
                        (Outcome::Hit, format!("its path matches first; it denies {method}, it admits {admitted}"))
                    }
                }
            } else if met.contains(&at) && path.oddity().is_some() && decides.is_err() && met.len() == 1 {
                let oddity = path.oddity().map_or("", |fault| fault.as_str());
                (Outcome::May, format!("its path matches, but its app refuses such paths: {oddity}"))
            } else if met.contains(&at) {
                (Outcome::May, "its path matches in one reading of this path and not in another".to_owned())
            } else if rule.path.matches(path.raw()) {
                (Outcome::Miss, "its path matches, but an earlier rule's does so first".to_owned())
            } else {
                (Outcome::Miss, format!("{} does not match", rule.path))
            };
            RuleVerdict { rule: at, outcome, why }
        };
        self.rules.iter().enumerate().map(verdict).collect()
    }

    /// Rules that can never decide, each with the earlier rule that covers its whole path.
    pub fn unreachable(&self) -> Vec<(usize, usize)> {
        let covered_by = |at: usize| {
            let rule = &self.rules[at];
            let covers = |earlier: &Rule| {
                let mut segments = rule.path.segments();
                earlier.host == rule.host
                    && earlier.path.segments().all(|segment| segments.next() == Some(segment))
                    && (earlier.path.is_wildcard() || !rule.path.is_wildcard() && segments.next().is_none())
            };
            self.rules[..at].iter().position(covers).map(|earlier| (at, earlier))
        };
        (0..self.rules.len()).filter_map(covered_by).collect()
    }

    fn index(&self, host: &str) -> Option<&Index> {
        let at = self.hosts.binary_search_by(|(name, _)| (**name).cmp(host)).ok()?;
        Some(&self.hosts[at].1)
    }
}

/// Why no rule was found.
enum Clash {
    /// Nothing matches.
    None,
    /// Two readings meet different rules, or one of them none.
    Readings(usize, Option<usize>),
}

/// The rules of one host.
#[derive(Clone, Debug)]
struct Index {
    exact: Node,
    /// The same with all segments in lower case, if that makes a difference.
    folded: Option<Node>,
}

/// A tree over path segments; each node knows the first rule that ends there.
#[derive(Clone, Debug, Default)]
struct Node {
    /// First rule whose pattern is exactly this path.
    here: Option<usize>,
    /// First rule whose pattern is this path and everything below.
    below: Option<usize>,
    /// Sorted by segment.
    children: Vec<(Box<[u8]>, Node)>,
}

impl Index {
    fn new<'r, I: Iterator<Item = (usize, &'r Rule)>>(rules: impl Fn() -> I) -> Self {
        let tree = |fold: bool| {
            let mut root = Node::default();
            rules().for_each(|(at, rule)| root.insert(at, rule, fold));
            root
        };
        let has_upper = rules().any(|(_, rule)| rule.path.as_str().bytes().any(|byte| byte.is_ascii_uppercase()));
        Self { exact: tree(false), folded: has_upper.then(|| tree(true)) }
    }

    /// The rule that all readings of a path meet.
    fn find(&self, path: &RequestPath<'_>) -> Result<usize, Clash> {
        let readings = path.readings();
        let ordinary = readings.first().map_or(path.raw().as_bytes(), |reading| &reading.path);
        let found = self.exact.find(ordinary, false).ok_or(Clash::None)?;
        let agrees =
            |other: Option<usize>| if other == Some(found) { Ok(()) } else { Err(Clash::Readings(found, other)) };
        if path.has_upper() || self.folded.is_some() {
            agrees(self.folded(ordinary))?;
        }
        for reading in readings.iter().skip(1) {
            for met in [self.exact.find(&reading.path, false), self.folded(&reading.path)] {
                if met.is_some() || !reading.may_miss {
                    agrees(met)?;
                }
            }
        }
        Ok(found)
    }

    /// Every rule that some reading of a path meets.
    fn all(&self, path: &RequestPath<'_>) -> Vec<usize> {
        let raw = path.readings().is_empty().then(|| path.raw().as_bytes());
        let readings = path.readings().iter().map(|reading| reading.path.as_slice()).chain(raw);
        let mut met: Vec<usize> =
            readings.flat_map(|path| [self.exact.find(path, false), self.folded(path)]).flatten().collect();
        met.sort_unstable();
        met.dedup();
        met
    }

    /// The rule that an upstream without regard to case would meet.
    fn folded(&self, path: &[u8]) -> Option<usize> {
        self.folded.as_ref().unwrap_or(&self.exact).find(path, true)
    }
}

impl Node {
    fn insert(&mut self, at: usize, rule: &Rule, fold: bool) {
        let mut node = self;
        for segment in rule.path.segments() {
            let mut key = Box::<[u8]>::from(segment.as_bytes());
            if fold {
                key.make_ascii_lowercase();
            }
            let place = node.children.binary_search_by(|(name, _)| name.cmp(&key));
            let place = place.unwrap_or_else(|place| {
                node.children.insert(place, (key, Self::default()));
                place
            });
            node = &mut node.children[place].1;
        }
        let slot = if rule.path.is_wildcard() { &mut node.below } else { &mut node.here };
        slot.get_or_insert(at);
    }

    /// The first rule that matches `path`: one walk down, one binary search per segment.
    fn find(&self, path: &[u8], fold: bool) -> Option<usize> {
        let first = |one: Option<usize>, other: Option<usize>| match (one, other) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        let mut node = self;
        let mut rest = path.strip_prefix(b"/").unwrap_or(path);
        let mut best = node.below;
        while !rest.is_empty() {
            let end = rest.iter().position(|&byte| byte == b'/').unwrap_or(rest.len());
            let (segment, tail) = rest.split_at(end);
            let Some(child) = node.child(segment, fold) else { return best };
            node = child;
            best = first(best, node.below);
            rest = tail.strip_prefix(b"/").unwrap_or(tail);
        }
        first(best, node.here)
    }

    fn child(&self, segment: &[u8], fold: bool) -> Option<&Self> {
        let order = |name: &[u8]| if fold { cmp_folded(name, segment) } else { name.cmp(segment) };
        let at = self.children.binary_search_by(|(name, _)| order(name)).ok()?;
        Some(&self.children[at].1)
    }
}

/// Compares a name in lower case with a segment in any case.
fn cmp_folded(name: &[u8], segment: &[u8]) -> Ordering {
    name.iter().copied().cmp(segment.iter().map(u8::to_ascii_lowercase))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        credential::CredentialSet,
        rule::{Access, CsrfMode, LicenseMode, OnStale, PathPattern, Require},
    };

    fn rule(path: &str, methods: &[Method], paths: PathMode) -> Rule {
        Rule {
            name: path.into(),
            host: "app.example".into(),
            path: PathPattern::parse(path).unwrap(),
            methods: methods.to_vec(),
            access: Access::Credential(CredentialSet::NONE),
            csrf: CsrfMode::Origin,
            license: LicenseMode::None,
            on_stale: OnStale::Deny,
            require: Require::default(),
            app: 0,
            paths,
            forward_authorization: false,
        }
    }

    fn set(paths: &[&str]) -> RuleSet {
        RuleSet::new(paths.iter().map(|path| rule(path, &[], PathMode::Strict)).collect())
    }

    fn met(rules: &RuleSet, target: &str) -> Result<usize, Reason> {
        let path = RequestPath::parse(target, rules.path_mode()).map_err(|denial| denial.reason)?;
        rules.find("app.example", &path, &Method::GET).map_err(|denial| denial.reason)
    }

    #[test]
    fn the_first_path_match_wins_whatever_comes_after() {
        let rules = set(&["/a/b", "/a/*", "/a/b/c", "/", "/*"]);
        for (target, expected) in
            [("/a/b", 0), ("/a/b/", 0), ("/a", 1), ("/a/b/c", 1), ("/", 3), ("/x", 4), ("/?q", 3), ("/ab", 4)]
        {
            assert_eq!(met(&rules, target), Ok(expected), "{target}");
        }
        assert_eq!(rules.unreachable(), [(2, 1)]);
    }

    #[test]
    fn nothing_matches_is_no_rule_also_for_another_host() {
        let rules = set(&["/a/*"]);
        assert_eq!(met(&rules, "/b"), Err(Reason::NoRule));
        let path = RequestPath::parse("/a", PathMode::Strict).unwrap();
        let find = |host| rules.find(host, &path, &Method::GET).map_err(|denial| denial.reason);
        assert_eq!(find("other.example"), Err(Reason::NoRule));
        assert_eq!(find("APP.example.:8443"), Ok(0));
        assert_eq!(find("app.example@evil.test"), Err(Reason::RequestMalformed));
    }

    #[test]
    fn another_method_is_denied_by_the_rule_that_the_path_met() {
        let get = rule("/a", &[Method::GET, Method::PUT], PathMode::Strict);
        let rules = RuleSet::new(vec![get, rule("/*", &[], PathMode::Strict)]);
        let path = RequestPath::parse("/a", PathMode::Strict).unwrap();
        assert_eq!(rules.find("app.example", &path, &Method::HEAD), Ok(0));
        for method in [Method::POST, Method::OPTIONS] {
            let denial = rules.find("app.example", &path, &method).unwrap_err();
            assert_eq!(denial.reason, Reason::RuleDenies);
            assert_eq!(denial.detail().unwrap().required.as_deref(), Some("GET, PUT"));
        }
    }

    #[test]
    fn readings_that_meet_different_rules_are_refused() {
        let rules = set(&["/admin/*", "/*"]);
        for target in
            ["/ADMIN/a", "/%61dmin/a", "/%41dmin", "/admin;x/a", "/;/admin/a", "/admin%3b", "/admin%3fx", "/admin%23"]
        {
            assert_eq!(met(&rules, target), Err(Reason::RequestMalformed), "{target}");
        }
        for (target, expected) in [("/admin/A%20b;c", 0), ("/files/My%20File;v=1", 1), ("/x;admin", 1)] {
            assert_eq!(met(&rules, target), Ok(expected), "{target}");
        }
        let upper = set(&["/Admin/*", "/*"]);
        assert_eq!(met(&upper, "/admin/a"), Err(Reason::RequestMalformed));
        assert_eq!(met(&upper, "/Admin/a"), Ok(0));
    }

    #[test]
    fn same_rule_lets_an_odd_path_pass_only_where_all_readings_agree() {
        let rules = RuleSet::new(vec![rule("/git/*", &[], PathMode::SameRule), rule("/app/*", &[], PathMode::Strict)]);
        for target in ["/git/a%2fb", "/git//a", "/git/a/../b", "/git/a%2520b", "/git/%2e%2e%2fgit"] {
            assert_eq!(met(&rules, target), Ok(0), "{target}");
        }
        for target in [
            "/git/../app/a",
            "/git/..%2fapp/a",
            "/git/%252e%252e/app",
            "/git/..;/app",
            "/git/../x",
            "/git\\..\\app",
            "/git/a%2fb/../../app",
            "/app/a%2fb",
            "/app//a",
            "/x//y",
            "//git/a",
            "/git%2fa",
            "/git/a%2fb/../../secret",
        ] {
            assert_eq!(met(&rules, target), Err(Reason::RequestMalformed), "{target}");
        }
    }

    #[test]
    fn explain_says_of_each_rule_how_it_fares() {
        let rules = set(&["/admin/*", "/*", "/admin/x"]);
        let explain = |target| {
            let path = RequestPath::parse(target, PathMode::SameRule).unwrap();
            let verdicts = rules.explain("app.example", &path, &Method::GET);
            verdicts.into_iter().map(|verdict| verdict.outcome).collect::<Vec<_>>()
        };
        assert_eq!(explain("/admin/x"), [Outcome::Hit, Outcome::Miss, Outcome::Miss]);
        assert_eq!(explain("/b"), [Outcome::Miss, Outcome::Hit, Outcome::Miss]);
        assert_eq!(explain("/ADMIN/x"), [Outcome::May, Outcome::May, Outcome::Miss]);
        assert_eq!(explain("/a//b"), [Outcome::Miss, Outcome::May, Outcome::Miss]);
    }
}
