//! Real servers and clients made by others, which may be missing on a developer's machine.

use std::{
    env,
    io::Write as _,
    path::{Path, PathBuf},
};

/// Gives back what was found, or says loudly that the test does not run.
///
/// A missing neighbour is a skip on a developer's machine and a failure under `CI=true`: a skipped test
/// must never pass for one that ran. The line goes past libtest's capture, so it is seen for passing tests.
///
/// ```
/// # use doorward_testkit::neighbour;
/// let Some(cargo) = neighbour::require("cargo", neighbour::program("cargo")) else { return };
/// assert!(cargo.is_absolute());
/// ```
///
/// # Panics
/// Under `CI=true`, if `found` is `None`.
pub fn require<T>(name: &str, found: Option<T>) -> Option<T> {
    if found.is_none() {
        let line = skip_line(name, env::var_os("CI").is_some_and(|value| value == "true"));
        std::io::stderr().write_all(line.as_bytes()).ok();
    }
    found
}

fn skip_line(name: &str, ci: bool) -> String {
    assert!(!ci, "{name} is missing, and under CI=true that is an error; `./test.sh --install` installs it");
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    format!("SKIPPED {test}: {name} is missing; `./test.sh --install` installs it\n")
}

/// The path of a program: looked up in `PATH`, then where Debian puts servers.
pub fn program(name: &str) -> Option<PathBuf> {
    let on_path = env::var_os("PATH").map(|path| env::split_paths(&path).collect::<Vec<_>>()).unwrap_or_default();
    let servers = ["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from);
    on_path.into_iter().chain(servers).map(|folder| folder.join(name)).find(|file| is_program(file))
}

/// The folder with PostgreSQL's server programs (`initdb`, `pg_ctl`), the newest version first.
///
/// Debian keeps them out of `PATH`, in a folder for each version.
pub fn postgres_bin() -> Option<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = Path::new("/usr/lib/postgresql")
        .read_dir()
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .filter(|(_, bin)| is_program(&bin.join("initdb")))
        .collect();
    versions.sort();
    versions.pop().map(|(_, bin)| bin).or_else(|| program("initdb")?.parent().map(Path::to_path_buf))
}

/// The repository's root folder.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_path_buf()
}

/// Node with the packages of `e2e/` installed: the path of `node`, or nothing if either is missing.
pub fn node() -> Option<PathBuf> {
    repository().join("e2e/node_modules/.package-lock.json").is_file().then(|| program("node")).flatten()
}

/// Python with the packages of `e2e/requirements.txt` installed.
pub fn python() -> Option<PathBuf> {
    Some(repository().join("e2e/.venv/bin/python")).filter(|python| is_program(python))
}

/// Envoy, which a package of `e2e/requirements.txt` brings.
pub fn envoy() -> Option<PathBuf> {
    let libraries = repository().join("e2e/.venv/lib").read_dir().ok()?;
    let places = libraries.flatten().map(|python| python.path().join("site-packages/envoy/_bin/envoy"));
    places.into_iter().find(|file| is_program(file))
}

fn is_program(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_given_back() {
        assert_eq!(require("a server", Some(1)), Some(1));
    }

    #[test]
    fn a_skip_on_a_developers_machine_names_the_test_and_the_remedy() {
        let line = skip_line("nginx", false);
        assert!(line.starts_with("SKIPPED neighbour::tests::a_skip_on_a_developers_machine"), "{line}");
        assert!(line.ends_with("nginx is missing; `./test.sh --install` installs it\n"), "{line}");
    }

    #[test]
    #[should_panic(expected = "under CI=true that is an error")]
    fn what_is_missing_fails_in_ci() {
        skip_line("nginx", true);
    }

    #[test]
    fn a_program_is_found_and_a_made_up_one_is_not() {
        assert!(program("sh").is_some());
        assert!(program("no-such-program-of-this-name").is_none());
    }

    #[test]
    fn the_repository_is_the_folder_with_the_workspace() {
        assert!(repository().join("Cargo.lock").is_file());
    }
}
