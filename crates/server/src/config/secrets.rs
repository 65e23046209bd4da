//! `[secrets]`: the one secret from which the others are derived.

use std::path::PathBuf;

use doorward_core::ring::RootSecret as Root;

use super::{key::settings, read::Reader, scalar::SecretText};

settings! {
    /// The root secret. It wraps the keys in the store; whoever has both can sign in as anyone.
    pub struct Secrets check Secrets::check {
        /// The root secret itself; for orchestrators that hand out secrets as variables.
        root: SecretText<32> = optional "a secret of 32 characters or more";
        /// File with the root secret. With SQLite it is made on the first start, by default as
        /// `root.key` in `data_dir`; with PostgreSQL it must be given, the same for every replica.
        root_file: PathBuf = optional "./data/root.key";
    }
}

impl Secrets {
    fn check(&self, cx: &mut Reader<'_>) {
        if self.root.is_some() && self.root_file.is_some() {
            cx.problem_in("root", "both `root` and `root_file` are given", "keep one of the two");
        }
    }
}

/// Where the root secret comes from, resolved.
#[derive(Clone, Debug)]
pub enum RootSecret {
    /// It was given.
    Given(Root),
    /// The file is not there yet: make it on the start, for its owner only, never over an existing one.
    MakeAt(PathBuf),
}
