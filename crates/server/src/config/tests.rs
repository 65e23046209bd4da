use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use doorward_core::{
    rule::{Access, CsrfMode, LicenseMode, PathMode},
    time::Timestamp,
};

use super::{Config, KeySource, Problems, RootSecret, Section, StoreUrl, problem::Place, tree};

/// The top of the smallest file.
const TOP: &str = "public_url = \"https://app.example.com\"\n";

/// The rest of the smallest file.
const REST: &str = r#"
[mail]
url = "smtp://127.0.0.1:1025"
from = "Example <login@example.com>"
[apps.web]
upstream = "http://127.0.0.1:3000"
[[rules]]
path = "/*"
allow = ["session"]
app = "web"
"#;

fn parse_with(text: &str, vars: &[(&str, &str)]) -> Result<Config, Problems> {
    let vars = vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Config::parse(text, Path::new("doorward.toml"), &vars)
}

/// The smallest file with `keys` at its top and `vars` over it.
fn minimal(keys: &str, vars: &[(&str, &str)]) -> Result<Config, Problems> {
    parse_with(&format!("{TOP}{keys}{REST}"), vars)
}

/// The problems as `place key: what`, one per line.
fn found(result: Result<Config, Problems>) -> Vec<String> {
    let problems = result.expect_err("a configuration with problems").0;
    problems.into_iter().map(|problem| format!("{}: {}", problem.key, problem.what)).collect()
}

#[test]
fn every_kind_of_problem_is_found_at_once() {
    let problems = parse_with(include_str!("testdata/everything_wrong.toml"), &[]).expect_err("problems").to_string();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/config/testdata/everything_wrong.txt");
    if std::env::var_os("DOORWARD_BLESS").is_some() {
        fs::write(&path, format!("{problems}\n")).unwrap();
    }
    assert_eq!(format!("{problems}\n"), fs::read_to_string(&path).unwrap(), "DOORWARD_BLESS=1 writes the file anew");
    assert!(!problems.contains("hidden-password"), "a secret in an error text");
}

#[test]
fn the_smallest_file_has_the_documented_defaults() {
    let config = minimal("", &[]).unwrap();
    assert_eq!(config.public_url.origin(), "https://app.example.com");
    assert_eq!(config.base_path.as_str(), "/auth");
    assert_eq!(config.data_dir, Path::new("./data"));
    assert_eq!(config.listen.http.to_string(), "127.0.0.1:8080");
    assert_eq!(config.listen.admin.to_string(), "127.0.0.1:8081");
    assert!(config.listen.https.is_none());
    assert_eq!(config.listen.trusted_proxies.len(), 1);
    assert!(matches!(&config.store.url, StoreUrl::Sqlite(path) if path == "doorward.db"));
    assert!(matches!(&config.root_secret, RootSecret::MakeAt(path) if path == Path::new("./data/root.key")));
    assert_eq!(config.session.idle, Duration::from_secs(3600));
    assert_eq!(config.session.absolute, Duration::from_secs(7 * 86_400));
    assert_eq!(config.login.response_floor, Duration::from_millis(250));
    assert!(!config.login.allow_sign_up);
}

#[test]
fn every_default_and_example_in_the_reference_is_accepted() {
    fn visit(section: &Section, path: &str, seen: &mut usize) {
        for key in section.keys {
            *seen += 1;
            assert!(
                tree::parse_value(key.example(), &Place::Whole).is_some(),
                "{path}{} = {} is not TOML",
                key.name,
                key.example()
            );
            assert!(!key.doc.trim().is_empty(), "{path}{} says nothing", key.name);
            if let Some(section) = (key.section)() {
                visit(section, &format!("{path}{}.", key.name), seen);
            }
        }
    }
    let mut seen = 0;
    visit(Config::keys(), "", &mut seen);
    assert!(seen > 80, "{seen} keys");
    // A file without any key must complain about exactly what is required: a stand-in that were not
    // accepted would leave no settings, and a stand-in that broke a rule would add a problem.
    assert_eq!(found(parse_with("", &[])), ["public_url: the key is missing"]);
    assert_eq!(
        found(parse_with(&format!("{TOP}[mail]\n"), &[])),
        ["mail.from: the key is missing", "mail.url: the key is missing"]
    );
}

#[test]
fn variables_override_the_file_and_are_typed_by_their_key() {
    let vars = [
        ("DOORWARD__SESSION__IDLE", "5m"),
        ("DOORWARD__LOGIN__ALLOW_SIGN_UP", "1"),
        ("DOORWARD__LISTEN__TRUSTED_PROXIES", "10.0.0.0/8, fd00::/8"),
        ("DOORWARD__LOGIN__ALLOWED_ORIGINS", "[\"https://a.example.com\"]"),
        ("DOORWARD__APPS__WEB__TIMEOUT__CONNECT", "250ms"),
        ("DOORWARD__APPS__OTHER__UPSTREAM", "http://127.0.0.1:3001"),
        ("DOORWARD_LOG", "not looked at"),
        ("HOME", "not looked at"),
    ];
    let config = minimal("[session]\nidle = \"60m\"\n", &vars).unwrap();
    assert_eq!(config.session.idle, Duration::from_secs(300));
    assert!(config.login.allow_sign_up);
    assert_eq!(config.listen.trusted_proxies.len(), 2);
    assert_eq!(config.login.allowed_origins[0].to_string(), "https://a.example.com");
    assert_eq!(config.apps["web"].timeout.connect, Duration::from_millis(250));
    assert_eq!(config.apps["web"].timeout.idle, Duration::from_secs(60));
    assert_eq!(config.apps["other"].upstream.to_string(), "http://127.0.0.1:3001");
}

#[test]
fn a_variable_that_is_wrong_is_named() {
    let vars = [
        ("DOORWARD__SESSION__IDLE", "soon"),
        ("DOORWARD__SESSION__IDEL", "5m"),
        ("DOORWARD__RULES__0__PATH", "/x"),
        ("DOORWARD____X", "1"),
        ("DOORWARD__PUBLIC_URL__HOST", "x"),
    ];
    let problems = minimal("", &vars).expect_err("problems");
    let found: Vec<_> = problems.0.iter().map(|p| (p.variable.as_deref().unwrap_or("-"), p.what.as_str())).collect();
    assert_eq!(
        found,
        [
            ("DOORWARD__PUBLIC_URL__HOST", "another value already stands where this variable would need a table"),
            ("DOORWARD__RULES__0__PATH", "`rules` is an array of tables, which variables do not reach"),
            ("DOORWARD__SESSION__IDEL", "unknown key"),
            ("DOORWARD__SESSION__IDLE", "`soon` is not a duration"),
            ("DOORWARD____X", "the variable's name does not spell a key"),
        ]
    );
    assert!(problems.0.iter().all(|p| p.file.is_none() && p.line.is_none()));
}

#[test]
fn secrets_come_from_a_value_or_a_file_never_both() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("doorward.toml");
    let secret = "0123456789abcdef0123456789abcdef";
    fs::write(dir.path().join("admin.token"), format!("{secret}\n")).unwrap();
    fs::write(dir.path().join("root"), secret).unwrap();
    let load = |keys: &str| {
        fs::write(&file, format!("{TOP}{keys}{REST}")).unwrap();
        Config::load(&file, &BTreeMap::new())
    };

    let config = load("[listen]\nadmin_token_file = \"admin.token\"\n[secrets]\nroot_file = \"root\"\n").unwrap();
    assert_eq!(config.listen.admin_token.as_ref().unwrap().0.expose(), secret);
    assert!(matches!(&config.root_secret, RootSecret::Given(_)));
    let shown = format!("{config:?}");
    assert!(!shown.contains(secret), "a secret in Debug");

    let both = load(&format!("[listen]\nadmin_token = \"{secret}\"\nadmin_token_file = \"admin.token\"\n"));
    assert_eq!(found(both), ["listen.admin_token: both `admin_token` and `admin_token_file` are given"]);
    fs::write(dir.path().join("admin.token"), "too short\n\n").unwrap();
    let short = load("[listen]\nadmin_token_file = \"admin.token\"\n");
    assert_eq!(found(short), ["listen.admin_token: the secret is shorter than 32 characters"]);
    let both = load(&format!("[secrets]\nroot = \"{secret}\"\nroot_file = \"root\"\n"));
    assert_eq!(found(both), ["secrets.root: both `root` and `root_file` are given"]);
}

#[test]
fn with_postgresql_the_root_secret_must_be_given() {
    let text = "[store]\nurl = \"postgres://u:hidden-password@127.0.0.1/doorward\"\n";
    let result = minimal(text, &[]);
    assert!(found(result)[0].starts_with("secrets.root_file: with PostgreSQL the root secret must be given"));
    let missing = minimal(&format!("{text}[secrets]\nroot_file = \"./no-such-file\"\n"), &[]);
    assert!(found(missing)[0].starts_with("secrets.root_file: cannot open"));
    let given = minimal(text, &[("DOORWARD__SECRETS__ROOT", "0123456789abcdef0123456789abcdef")]).unwrap();
    assert!(given.store.url.is_shared());
    assert_eq!(given.store.url.to_string(), "postgres://u:…@127.0.0.1/doorward");
    assert!(!format!("{given:?}").contains("hidden-password"));
}

#[test]
fn broken_syntax_is_reported_with_its_place_and_with_the_rest() {
    let text = "public_url = \"https://app.example.com\"\nbase_path = /auth\n[session]\nidle = \"soon\"\n";
    let problems = parse_with(text, &[]).expect_err("problems").0;
    assert_eq!((problems[0].line, problems[0].key.as_str()), (Some(2), ""));
    assert!(problems[0].what.starts_with("not TOML: "), "{}", problems[0].what);
    assert_eq!(problems.last().map(|p| (p.line, p.key.as_str())), Some((Some(4), "session.idle")));
}

#[test]
fn relative_paths_start_at_the_folder_of_the_file() {
    let text = format!("{TOP}data_dir = \"./d\"\n{REST}");
    let config = Config::parse(&text, Path::new("/etc/doorward/doorward.toml"), &BTreeMap::new()).unwrap();
    assert_eq!(config.data_dir, Path::new("/etc/doorward/./d"));
    assert!(matches!(&config.root_secret, RootSecret::MakeAt(path) if path.ends_with("d/root.key")));
}

#[test]
fn http_is_for_loopback_only() {
    for (url, is_ok) in [
        ("http://localhost:8080", true),
        ("http://app.localhost:8080", true),
        ("http://127.0.0.1:8080/", true),
        ("http://[::1]:8080", true),
        ("https://app.example.com:8443", true),
        ("http://app.example.com", false),
        ("http://localhost.example.com", false),
        ("http://10.0.0.1", false),
        ("https://user@app.example.com", false),
        ("https://app.example.com/?x", false),
        ("ftp://localhost", false),
    ] {
        let result = parse_with(&format!("public_url = \"{url}\"\n{REST}"), &[]);
        assert_eq!(result.is_ok(), is_ok, "{url}: {result:?}");
    }
}

#[test]
fn an_upstream_written_into_a_rule_gets_the_defaults_of_an_app() {
    let rule = "[[rules]]\npath = \"/x\"\nallow = [\"public\"]\nupstream = \"http://127.0.0.1:3000\"\n";
    let config = parse_with(&format!("{TOP}{REST}{rule}"), &[]).unwrap();
    let apps = config.resolved_apps();
    let names: Vec<_> = apps.iter().map(|app| &*app.name).collect();
    assert_eq!(names, ["web", "http://127.0.0.1:3000"]);
    assert_eq!(format!("{:?}", apps[0].app), format!("{:?}", apps[1].app));
}

#[test]
fn what_this_release_does_not_do_is_refused_not_ignored() {
    let result = parse_with(&format!("{TOP}compat_paths = true\n[shared]\nurl = \"redis://127.0.0.1\"\n{REST}"), &[]);
    let found = found(result);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found.iter().all(|line| line.contains("not available in this release")), "{found:?}");
}

#[test]
fn durations_take_one_unit() {
    for (text, is_ok) in
        [("250ms", true), ("90s", true), ("2h", true), ("1d", true), ("", false), ("5", false), ("-5s", false)]
            .into_iter()
            .chain([("1.5h", false), ("1h30m", false), ("5 s", false), ("99999999999999999999s", false), ("5M", false)])
    {
        let result = parse_with(
            &format!("{TOP}[apps.web]\nupstream = \"http://a\"\n[apps.web.timeout]\nidle = \"{text}\"\n"),
            &[],
        );
        assert_eq!(result.is_ok(), is_ok, "{text}: {result:?}");
    }
}

#[test]
fn rules_keep_their_order_and_take_their_defaults() {
    let more = r#"
[apps.odd]
upstream = "http://127.0.0.1:3001"
paths = "same_rule"
[[rules]]
host = "API.example.com"
path = "/api/*"
methods = ["GET"]
allow = ["bearer"]
csrf = "off"
license = "active"
require = { claims = { tenant_id = "acme", level = 3 } }
app = "odd"
[[rules]]
path = "/open"
allow = ["public"]
upstream = "http://127.0.0.1:3002"
"#;
    let config = parse_with(&format!("{TOP}{REST}{more}"), &[]).unwrap();
    let (rules, apps) = (config.core_rules(), config.resolved_apps());
    assert_eq!(rules.len(), 3);
    assert_eq!((&*rules[0].host, &*rules[1].host), ("app.example.com", "api.example.com"));
    assert_eq!(
        rules.iter().map(|rule| &*apps[rule.app].name).collect::<Vec<_>>(),
        ["web", "odd", "http://127.0.0.1:3002"]
    );
    assert_eq!((rules[0].csrf, rules[1].csrf), (CsrfMode::Origin, CsrfMode::Off));
    assert_eq!((rules[0].license, rules[1].license), (LicenseMode::None, LicenseMode::Active));
    assert_eq!((rules[0].paths, rules[1].paths), (PathMode::Strict, PathMode::SameRule));
    assert_eq!(rules[1].require.claims["level"], 3);
    assert_eq!(rules[2].access, Access::Public);
    assert_eq!(config.hosts().into_iter().collect::<Vec<_>>(), ["api.example.com", "app.example.com"]);
}

#[test]
fn with_a_license_provider_rules_ask_for_a_license_unless_they_are_public_or_say_otherwise() {
    let rules = r#"
[[rules]]
path = "/open/*"
allow = ["public"]
app = "web"
[[rules]]
path = "/free/*"
allow = ["session"]
license = "none"
app = "web"
[[rules]]
path = "/strict/*"
allow = ["session"]
license = "active"
app = "web"
"#;
    let modes = |provider: &str| {
        let config =
            parse_with(&format!("{TOP}{REST}{rules}{provider}"), &[]).unwrap_or_else(|error| panic!("{error}"));
        config.core_rules().iter().map(|rule| rule.license).collect::<Vec<_>>()
    };
    let (none, strict) = (LicenseMode::None, LicenseMode::Active);
    assert_eq!(modes(""), [none, none, none, strict]);
    let key = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    let provider = format!(
        "[license]\nprovider = \"file\"\npath = \"license.lic\"\naccount = \"acct-1\"\nproduct = \"prod-1\"\npublic_keys = [\"{key}\"]\n"
    );
    assert_eq!(modes(&provider), [LicenseMode::ActiveOrGraceRead, none, none, strict]);
}

#[test]
fn jobs_that_have_nothing_to_work_with_are_off() {
    let key = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    let provider = format!("[license]\nprovider = \"file\"\npath = \"license.lic\"\npublic_keys = [\"{key}\"]\n");
    let mail = "[mail]\nurl = \"smtp://127.0.0.1:1025\"\nfrom = \"Example <login@example.com>\"\n";
    let runs = |text: &str, host_has_license, host_has_mail| {
        let jobs = parse_with(&format!("{TOP}{text}"), &[]).unwrap_or_else(|error| panic!("{error}"));
        let jobs = jobs.effective_jobs(host_has_license, host_has_mail);
        assert!(jobs.purge.0.is_some());
        (jobs.license_reconcile.0.is_some(), jobs.license_notices.0.is_some())
    };
    assert_eq!(runs(mail, false, false), (false, false));
    assert_eq!(runs(&provider, false, false), (true, false));
    assert_eq!(runs(&format!("{provider}{mail}"), false, false), (true, true));
    assert_eq!((runs(mail, true, false), runs("", true, true)), ((true, true), (true, true)));
    let off = format!("{provider}{mail}[jobs]\nlicense_reconcile = \"off\"\n");
    assert_eq!(runs(&off, true, true), (false, true));
}

#[test]
fn an_issuer_becomes_a_policy_and_a_source_of_keys() {
    let key = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    let text = format!(
        r#"
[[issuers]]
name = "one"
issuer = "https://one.example.com"
audiences = ["app"]
aliases = [{{ issuer = "https://old.example.com", until = 2027-01-31 }}]
keys = {{ public_key = "{key}" }}
[[issuers]]
name = "two"
issuer = "https://two.example.com"
audiences = ["app"]
keys = {{ jwks_url = "http://127.0.0.1:9/keys" }}
"#
    );
    let config = parse_with(&format!("{TOP}{REST}{text}"), &[]).unwrap();
    let policy = config.issuers[0].policy();
    assert_eq!(policy.aliases[0].until, Timestamp::from_secs(1_801_440_000), "the day after, at midnight UTC");
    assert!(matches!(config.issuers[0].keys.source(), KeySource::Single(_)));
    assert!(matches!(config.issuers[1].keys.source(), KeySource::Url(url) if url.port() == Some(9)));
    let gate: Vec<_> = config.issuers.iter().map(super::Issuer::to_gate).collect();
    assert_eq!(gate.iter().map(|issuer| issuer.source.as_str()).collect::<Vec<_>>(), ["public_key", "jwks_url"]);
    assert_eq!(gate[1].min_interval, Duration::from_secs(30));
}

#[test]
fn a_key_set_without_a_usable_key_is_refused() {
    for (keys, what) in [
        ("{ jwks = '{\"keys\":[]}' }", "no usable key in the set (it is empty)"),
        ("{ jwks = { keys = [{ kty = \"oct\", k = \"AAAA\" }] } }", "no usable key in the set (key 0:"),
        ("{ jwks = 'nonsense' }", "not a key set"),
        ("{ public_key = \"00\" }", "not a usable public key"),
    ] {
        let text = format!("[[issuers]]\nname = \"a\"\nissuer = \"https://a\"\naudiences = [\"x\"]\nkeys = {keys}\n");
        let found = found(parse_with(&format!("{TOP}{REST}{text}"), &[]));
        assert!(found.len() == 1 && found[0].contains(what), "{keys}: {found:?}");
    }
}

#[test]
fn what_reaches_beyond_this_machine_is_named() {
    let local = parse_with("public_url = \"http://localhost:8080\"\n", &[]).unwrap();
    assert!(local.beyond_loopback().is_empty());
    let open = minimal("", &[("DOORWARD__LISTEN__HTTP", "0.0.0.0:8080")]).unwrap();
    assert_eq!(open.beyond_loopback(), ["public_url", "listen.http"]);
}

#[test]
fn discovery_needs_an_issuer_that_is_a_url_and_a_first_set_need_not_be_there() {
    let issuer = |issuer: &str, keys: &str| {
        let text =
            format!("[[issuers]]\nname = \"a\"\nissuer = \"{issuer}\"\naudiences = [\"x\"]\nkeys = {{ {keys} }}\n");
        parse_with(&format!("{TOP}{REST}{text}"), &[])
    };
    let config = issuer("https://a.example.com", "discovery = true, first = \"not-there-yet.json\"").unwrap();
    let keys = &config.issuers[0].keys;
    assert!(matches!(keys.source(), KeySource::Discovery));
    assert!(keys.first_set().is_none() && keys.missing_first().is_some());
    assert!(issuer("https://a.example.com", "discovery = true, jwks_origins = [\"https://k.example.com\"]").is_ok());
    for (name, keys, expected) in [
        ("urn:a", "discovery = true", "keys.discovery"),
        ("http://a.example.com", "discovery = true", "neither https nor on loopback"),
        (
            "https://a.example.com",
            "jwks_url = \"https://a.example.com/k\", jwks_origins = [\"https://k.example.com\"]",
            "jwks_origins",
        ),
        ("https://a.example.com", "discovery = true, jwks_url = \"https://a.example.com/k\"", "more than one source"),
        ("https://a.example.com", "jwks_file = \"not-there.json\"", "cannot open"),
    ] {
        let found = found(issuer(name, keys));
        assert!(found.len() == 1 && found[0].contains(expected), "{expected}: {found:?}");
    }
}

#[test]
fn an_hsts_policy_is_one_that_browsers_understand_and_needs_https() {
    let hsts = |value: &str| minimal(&format!("[headers]\nhsts = {value:?}\n"), &[]);
    for (written, read) in [
        ("max-age=0", "max-age=0"),
        ("includeSubDomains; max-age=600", "max-age=600; includeSubDomains"),
        ("MAX-AGE = 63072000 ;includesubdomains;preload", "max-age=63072000; includeSubDomains; preload"),
    ] {
        let config = hsts(written).unwrap_or_else(|problems| panic!("{written}: {problems}"));
        assert_eq!(config.headers.hsts.as_ref().unwrap().as_str(), read);
    }
    for wrong in [
        "",
        "includeSubDomains",
        "max-age",
        "max-age=-1",
        "max-age=1y",
        "max-age=99999999999999999999",
        "max-age=1; max-age=2",
        "max-age=1; includeSubDomain",
        "max-age=1;",
        "max-age=600; preload",
        "max-age=600; includeSubDomains; preload",
    ] {
        assert!(hsts(wrong).is_err(), "{wrong}");
    }
    let http = "public_url = \"http://127.0.0.1:8080\"\n[headers]\nhsts = \"max-age=1\"\n";
    let problems = found(parse_with(http, &[]));
    assert!(problems.iter().any(|problem| problem.starts_with("headers.hsts: `public_url` is http")), "{problems:?}");
}

#[test]
fn a_license_server_is_named_so_that_its_token_is_safe_and_its_signatures_fit() {
    let license = |api_url: &str, account: &str, more: &str| {
        let key = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        let table = format!(
            "[license]\nprovider = \"keygen\"\napi_url = \"{api_url}\"\naccount = \"{account}\"\nproduct = \"app\"\n\
             token = \"prod-0123456789abcdef0123456789abcdef\"\npublic_keys = [\"{key}\"]\n{more}\n"
        );
        parse_with(&format!("{TOP}{REST}{table}"), &[])
    };
    let id = "1fddcec8-8dd3-4d8d-9b16-215cac0f9b52";
    let inside = "http://keygen:3000";
    assert!(license("https://license.example.com", id, "").is_ok());
    assert!(license("http://127.0.0.1:3000", id, "host = \"license.example.com\"").is_ok());
    assert!(license(inside, id, "allow_http = true").is_ok());
    let problems = found(license(inside, id, ""));
    assert_eq!(problems, ["license.api_url: http and not on loopback: the token would go over it in the clear"]);
    for name in ["demo", "1fddcec8-8dd3-4d8d-9b16-215cac0f9b5", "1fddcec8-8dd3-4d8d-9b16-215cac0f9b5g"] {
        let problems = found(license("https://license.example.com", name, ""));
        assert_eq!(problems, ["license.account: no UUID: answers are signed in the name of the account's id"]);
    }
}
