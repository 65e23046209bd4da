//! TLS for a listener: certificate and key from files, taken up anew when they change.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Why a certificate and key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or holds no PEM of the kind.
    #[error("{path}: {problem}; {remedy}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        problem: String,
        /// What it should be.
        remedy: &'static str,
    },
    /// They do not go together, or are of a kind that is not supported.
    #[error("certificate and key cannot be used: {0}; give the key that belongs to the first certificate of the chain")]
    Pair(#[from] rustls::Error),
}

/// Certificate and key of a listener. Cheap to clone; clones follow the same files.
#[derive(Clone)]
pub struct Tls(Arc<Inner>);

struct Inner {
    cert_file: PathBuf,
    key_file: PathBuf,
    current: ArcSwap<ServerConfig>,
    /// The files as they were before they were first read: what is written in between counts as a change.
    first: [Stamp; 2],
}

/// Enough of a file's state to tell that it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp(Option<(SystemTime, u64)>);

impl Tls {
    /// Reads a chain and its key, both PEM.
    ///
    /// # Errors
    /// When a file cannot be read or they do not go together.
    pub fn load(cert_file: impl Into<PathBuf>, key_file: impl Into<PathBuf>) -> Result<Self, TlsError> {
        let (cert_file, key_file) = (cert_file.into(), key_file.into());
        let first = [&cert_file, &key_file].map(|path| Stamp::of(fs::metadata(path)));
        let current = ArcSwap::from(read(&cert_file, &key_file)?);
        Ok(Self(Arc::new(Inner { cert_file, key_file, current, first })))
    }

    /// The configuration for the next connection.
    pub(super) fn current(&self) -> Arc<ServerConfig> {
        self.0.current.load_full()
    }

    /// Reads both files again. On an error the old pair stays in use.
    ///
    /// # Errors
    /// As [`Tls::load`].
    pub fn reload(&self) -> Result<(), TlsError> {
        self.0.current.store(read(&self.0.cert_file, &self.0.key_file)?);
        Ok(())
    }

    /// Follows the files until dropped. Never resolves.
    pub async fn follow(self) {
        let mut seen = self.0.first;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let now = self.stamps().await;
            if now == seen {
                continue;
            }
            seen = now;
            let this = self.clone();
            match tokio::task::spawn_blocking(move || this.reload()).await {
                Ok(Ok(())) => {
                    tracing::info!(cert_file = %self.0.cert_file.display(), "certificate and key were taken up anew");
                }
                Ok(Err(error)) => {
                    tracing::warn!(%error, "the changed certificate and key are not used; the old ones stay");
                }
                Err(error) => tracing::error!(%error, "reading the certificate broke off"),
            }
        }
    }

    async fn stamps(&self) -> [Stamp; 2] {
        [stamp(&self.0.cert_file).await, stamp(&self.0.key_file).await]
    }
}

impl Stamp {
    fn of(metadata: io::Result<fs::Metadata>) -> Self {
        Self(metadata.ok().and_then(|metadata| Some((metadata.modified().ok()?, metadata.len()))))
    }
}

async fn stamp(path: &Path) -> Stamp {
    Stamp::of(tokio::fs::metadata(path).await)
}

fn read(cert_file: &Path, key_file: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let bad = |path: &Path, problem: String, remedy| TlsError::File { path: path.into(), problem, remedy };
    const CHAIN: &str = "it must hold the certificate chain as PEM, the server's own first";
    const KEY: &str = "it must hold the private key as unencrypted PEM";
    let bytes = |path: &Path, remedy| fs::read(path).map_err(|error: io::Error| bad(path, error.to_string(), remedy));
    let text = |error: pem::Error| error.to_string();
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes(cert_file, CHAIN)?).collect();
    let chain = chain.map_err(|error| bad(cert_file, text(error), CHAIN))?;
    if chain.is_empty() {
        return Err(bad(cert_file, "no certificate in it".into(), CHAIN));
    }
    let key = PrivateKeyDer::from_pem_slice(&bytes(key_file, KEY)?).map_err(|error| bad(key_file, text(error), KEY))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // Early data can be replayed; rustls takes none unless told so.
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &Path, name: &str) -> (PathBuf, PathBuf) {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
        fs::write(&cert, made.cert.pem()).unwrap();
        fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        (cert, key)
    }

    #[test]
    fn a_bad_file_keeps_the_old_pair_and_a_good_one_replaces_it() {
        let dir = tempfile::tempdir().unwrap();
        let (cert, key) = write(dir.path(), "one.example.com");
        let tls = Tls::load(&cert, &key).unwrap();
        let old = tls.current();
        fs::write(&cert, "not a certificate").unwrap();
        let error = tls.reload().unwrap_err().to_string();
        assert!(error.contains("cert.pem") && error.contains("PEM"), "{error}");
        assert!(Arc::ptr_eq(&old, &tls.current()));
        write(dir.path(), "two.example.com");
        tls.reload().unwrap();
        assert!(!Arc::ptr_eq(&old, &tls.current()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_pair_that_was_written_before_anybody_followed_it_is_taken_up() {
        let dir = tempfile::tempdir().unwrap();
        let (cert, key) = write(dir.path(), "one.example.com");
        let tls = Tls::load(&cert, &key).unwrap();
        let old = tls.current();
        write(dir.path(), "another.example.com");
        let following = tokio::spawn(tls.clone().follow());
        for _ in 0..100 {
            if !Arc::ptr_eq(&old, &tls.current()) {
                return following.abort();
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        panic!("the new pair was not taken up");
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (cert, _) = write(one.path(), "one.example.com");
        let (_, key) = write(two.path(), "two.example.com");
        assert!(matches!(Tls::load(cert, key), Err(TlsError::Pair(_))));
    }

    #[test]
    fn early_data_is_not_taken() {
        // It can be replayed, and nothing in a request would tell (CVE-2024-39321).
        let dir = tempfile::tempdir().unwrap();
        let (cert, key) = write(dir.path(), "one.example.com");
        assert_eq!(Tls::load(cert, key).unwrap().current().max_early_data_size, 0);
    }
}
