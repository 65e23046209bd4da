//! The config that the demo runs on.

use std::path::Path;

use super::BASE_PATH;

/// The demo's `doorward.toml`: hub on `port`, app on `app_port`, everything it keeps below `dir`.
pub fn config(port: u16, app_port: u16, dir: &Path) -> String {
    let dir = toml_string(&dir.to_string_lossy());
    format!(
        r#"# Written by `doorward demo`; gone when it ends.
public_url = "http://127.0.0.1:{port}"
base_path = "{BASE_PATH}"
data_dir = {dir}

[listen]
http = "127.0.0.1:{port}"
admin = "127.0.0.1:0"

[store]
url = "sqlite:doorward.db"

# The demo hands its mails to its mailbox; no mail server is asked.
[mail]
url = "smtp://127.0.0.1:25"
from = "Doorward demo <login@localhost>"

[login]
allow_sign_up = true

[apps.demo]
upstream = "http://127.0.0.1:{app_port}"

[[rules]]
path = "/public/*"
allow = ["public"]
app = "demo"

[[rules]]
path = "/*"
allow = ["session", "api_key"]
app = "demo"
"#
    )
}

/// A TOML basic string (TOML 1.0, "String"): a path may hold any character.
fn toml_string(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, path::PathBuf};

    use doorward_core::rule::Access;

    use super::*;
    use crate::config::Config;

    #[test]
    fn the_demo_runs_on_a_config_without_problems_whatever_its_folder_is_called() {
        for dir in ["/tmp/x", "/tmp/with \"quotes\"\\and\nlines\u{7f}", "C:\\data"] {
            let text = config(18_080, 13_000, Path::new(dir));
            let read = Config::parse(&text, Path::new("demo.toml"), &BTreeMap::new()).expect("no problems");
            assert_eq!(read.data_dir, PathBuf::from(dir));
            assert_eq!(read.public_url.origin(), "http://127.0.0.1:18080");
            assert_eq!(read.base_path.as_str(), BASE_PATH);
            assert_eq!(read.listen.http.to_string(), "127.0.0.1:18080");
            assert!(read.listen.admin.ip().is_loopback());
            assert!(read.login.allow_sign_up);
            let access: Vec<_> = read.core_rules().into_iter().map(|rule| rule.access).collect();
            assert!(matches!(access[..], [Access::Public, Access::Credential(_)]), "{access:?}");
        }
    }
}
