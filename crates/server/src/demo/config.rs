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
    use super::*;

    #[test]
    fn the_config_is_toml_whatever_the_folder_is_called() {
        for dir in ["/tmp/x", "/tmp/with \"quotes\"\\and\nlines\u{7f}", "C:\\data"] {
            let table: toml::Table = config(8080, 3000, Path::new(dir)).parse().unwrap();
            assert_eq!(table["data_dir"].as_str(), Some(dir));
            assert_eq!(table["public_url"].as_str(), Some("http://127.0.0.1:8080"));
            assert_eq!(table["apps"]["demo"]["upstream"].as_str(), Some("http://127.0.0.1:3000"));
            assert_eq!(table["rules"].as_array().map(Vec::len), Some(2));
        }
    }
}
