//! The root secret's file.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Read as _, Write as _},
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use doorward_core::{ring::RootSecret, secret::Secret};

use crate::clock::Clock;

/// The root secret cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// No file, and none may be invented: replicas must share one.
    #[error(
        "secrets.root_file: {} does not exist; with PostgreSQL every replica needs the same root secret, so it is never \
         invented: make one with `(umask 077; head -c 32 /dev/urandom | base64 > {})` and give it to all of them",
        .0.display(), .0.display()
    )]
    Missing(PathBuf),
    /// The file is not a root secret.
    #[error("secrets.root_file: {}: {problem}", .path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// The file system refused.
    #[error("secrets.root_file: {}: cannot {doing}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// Why not.
        source: io::Error,
    },
}

/// Longest file that is read.
const MAX: u64 = 4096;

/// Reads the root secret; makes it on the first start if `may_create` (SQLite, one process).
///
/// A new file has mode 0600 and appears whole: of two processes that start at once both read the same
/// secret. Blocks on the file system; call it before serving.
///
/// # Errors
/// [`RootError`], with the key, the file and the remedy.
pub fn load_root(path: &Path, may_create: bool, clock: &Clock) -> Result<RootSecret, RootError> {
    match read(path) {
        Err(RootError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
            if !may_create {
                return Err(RootError::Missing(path.to_owned()));
            }
            create(path, clock).map_err(|source| RootError::Io { path: path.to_owned(), doing: "make it", source })?;
            read(path)
        }
        other => other,
    }
}

fn read(path: &Path) -> Result<RootSecret, RootError> {
    let failed = |source| RootError::Io { path: path.to_owned(), doing: "read it", source };
    let unusable = |problem: String| RootError::Unusable { path: path.to_owned(), problem };
    let file = File::open(path).map_err(failed)?;
    let meta = file.metadata().map_err(failed)?;
    if !meta.is_file() {
        return Err(unusable("is not a file; name the file that holds the secret".to_owned()));
    }
    warn_if_open(path, &meta);
    let mut content = Vec::new();
    let outcome = file.take(MAX + 1).read_to_end(&mut content);
    let content = Secret::new(content);
    outcome.map_err(failed)?;
    if content.expose().len() as u64 > MAX {
        return Err(unusable(format!("is longer than {MAX} bytes, which no root secret is; name the right file")));
    }
    RootSecret::parse(content.expose()).map_err(|short| {
        unusable(format!("{short}; put the right file back, or remove it if no key was ever made with it"))
    })
}

#[cfg(unix)]
fn warn_if_open(path: &Path, meta: &fs::Metadata) {
    use std::os::unix::fs::PermissionsExt as _;
    if meta.permissions().mode() & 0o077 != 0 {
        tracing::warn!(file = %path.display(), "the root secret can be read by others; chmod 600 it");
    }
}

#[cfg(not(unix))]
fn warn_if_open(_path: &Path, _meta: &fs::Metadata) {}

/// Writes a fresh secret beside `path` and links it there; a file that is there already wins.
fn create(path: &Path, clock: &Clock) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    fs::create_dir_all(folder)?;
    let text = Secret::new(format!("{}\n", URL_SAFE_NO_PAD.encode(clock.random::<32>())));
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".new-{}", URL_SAFE_NO_PAD.encode(clock.random::<9>())));
    let draft = PathBuf::from(draft);
    let written = write_new(&draft, text.expose().as_bytes()).and_then(|()| match fs::hard_link(&draft, path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        other => other,
    });
    // Whatever happened, no copy of the secret stays behind.
    let removed = fs::remove_file(&draft);
    written?;
    removed?;
    // Keys wrapped by a secret whose name a power cut forgot would be lost.
    File::open(folder)?.sync_all()
}

fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use doorward_core::{
        id::RingKeyId,
        ring::{KeyMaterial, KeyState, Purpose, RingKey, unwrap, wrap},
        time::Timestamp,
    };

    use super::*;

    fn are_equal(one: &RootSecret, other: &RootSecret) -> bool {
        let id = RingKeyId::mint(Timestamp::EPOCH, [1; 10]);
        let wrapped = wrap(one, Purpose::Link, &KeyMaterial::mint(id, [2; 32]), [3; 12]).unwrap();
        let row =
            RingKey { id, purpose: Purpose::Link, wrapped, created_at: Timestamp::EPOCH, state: KeyState::Current };
        unwrap(other, &row).is_ok()
    }

    #[test]
    fn the_first_start_makes_one_secret_however_many_start_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data/root.key");
        let clock = Clock::system();
        let roots: Vec<RootSecret> = std::thread::scope(|scope| {
            let starts: Vec<_> = (0..16).map(|_| scope.spawn(|| load_root(&path, true, &clock).unwrap())).collect();
            starts.into_iter().map(|start| start.join().unwrap()).collect()
        });
        assert!(roots.iter().all(|root| are_equal(&roots[0], root)));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing is left beside it");
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        let other = load_root(&folder.path().join("other.key"), true, &clock).unwrap();
        assert!(!are_equal(&roots[0], &other), "two installations have two secrets");
    }

    #[test]
    fn a_missing_root_is_not_invented_where_replicas_share_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("root.key");
        let error = load_root(&path, false, &Clock::system()).unwrap_err();
        assert!(matches!(error, RootError::Missing(_)));
        assert!(error.to_string().contains("umask 077"), "{error}");
        assert!(!path.exists());
    }

    #[test]
    fn a_short_or_endless_file_is_named_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        for content in [vec![], vec![b'x'; 31], vec![b'x'; 5000]] {
            let path = folder.path().join("root.key");
            fs::write(&path, &content).unwrap();
            let error = load_root(&path, true, &Clock::system()).unwrap_err();
            assert!(error.to_string().contains("root.key"), "{error}");
            assert_eq!(fs::read(&path).unwrap(), content, "never overwritten");
        }
        let error = load_root(folder.path(), true, &Clock::system()).unwrap_err();
        assert!(matches!(error, RootError::Unusable { .. }), "{error}");
    }
}
