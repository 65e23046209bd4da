//! Migrations: which there are, and which of them a database still needs.
//!
//! Expand, then contract. A migration only adds (tables, columns that are nullable or have a default, indexes); what a release no longer reads
//! is dropped one release later. So the previous release keeps running while the next one migrates, and a release
//! starts on a schema that is one version ahead of it. A migration that was released is never edited: its checksum
//! is in every database.

use aws_lc_rs::digest::{SHA256, digest};

/// One step of the schema.
pub(crate) struct Migration {
    pub(crate) version: i64,
    pub(crate) name: &'static str,
    pub(crate) text: &'static str,
}

/// All of them, in order.
pub(crate) static MIGRATIONS: &[Migration] = &[
    Migration { version: 1, name: "first", text: include_str!("../migrations/0001_first.sql") },
    Migration { version: 2, name: "people", text: include_str!("../migrations/0002_people.sql") },
    Migration { version: 3, name: "blocklist", text: include_str!("../migrations/0003_blocklist.sql") },
    Migration { version: 4, name: "licenses", text: include_str!("../migrations/0004_licenses.sql") },
    Migration { version: 5, name: "license hints", text: include_str!("../migrations/0005_license_hints.sql") },
    Migration { version: 6, name: "license tries", text: include_str!("../migrations/0006_license_tries.sql") },
];

/// How far ahead of this release a schema may be.
const AHEAD: i64 = 1;

impl Migration {
    /// What stands in the database once it has run.
    pub(crate) fn checksum(&self) -> [u8; 32] {
        let mut sum = [0; 32];
        sum.copy_from_slice(digest(&SHA256, self.text.as_bytes()).as_ref());
        sum
    }
}

/// The table that says what has run. Runs on every start; the engines agree on it but for its types.
pub(crate) const TABLE: &str = "CREATE TABLE IF NOT EXISTS doorward_migrations (
    version  {int} NOT NULL PRIMARY KEY,
    name     TEXT NOT NULL,
    checksum {bytes} NOT NULL,
    release  TEXT NOT NULL
) {keyed};";

/// The release that runs a migration, for the operator.
pub(crate) const RELEASE: &str = env!("CARGO_PKG_VERSION");

/// A row of `doorward_migrations`: version and checksum.
pub(crate) type Applied = (i64, Vec<u8>);

/// The migrations that a database with these rows of `doorward_migrations` still needs.
///
/// # Errors
/// What keeps this release from running on it, with the remedy.
pub(crate) fn plan(known: &'static [Migration], applied: &[(i64, Vec<u8>)]) -> Result<Vec<&'static Migration>, String> {
    let newest = known.last().map_or(0, |migration| migration.version);
    for (version, checksum) in applied {
        match known.iter().find(|migration| migration.version == *version) {
            Some(migration) if migration.checksum().as_slice() != checksum.as_slice() => {
                return Err(format!(
                    "migration {version} ({}) ran here in another form; this database was made by a changed build: \
                     start the build that made it, or restore a backup",
                    migration.name
                ));
            }
            None if *version > newest + AHEAD => {
                return Err(format!(
                    "the schema is at version {version} and this release knows {newest}; start a newer release of \
                     doorward, or restore a backup made before the upgrade"
                ));
            }
            Some(_) | None => {}
        }
    }
    Ok(known.iter().filter(|migration| applied.iter().all(|(version, _)| *version != migration.version)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    static TWO: &[Migration] = &[
        Migration { version: 1, name: "first", text: "CREATE TABLE a (b {int});" },
        Migration { version: 2, name: "second", text: "CREATE TABLE c (d {int});" },
    ];

    fn versions(applied: &[(i64, Vec<u8>)]) -> Result<Vec<i64>, String> {
        plan(TWO, applied).map(|steps| steps.iter().map(|migration| migration.version).collect())
    }

    fn ran(migration: &Migration) -> (i64, Vec<u8>) {
        (migration.version, migration.checksum().to_vec())
    }

    #[test]
    fn an_empty_database_needs_all_and_a_current_one_nothing() {
        assert_eq!(versions(&[]), Ok(vec![1, 2]));
        assert_eq!(versions(&[ran(&TWO[0])]), Ok(vec![2]));
        assert_eq!(versions(&[ran(&TWO[0]), ran(&TWO[1])]), Ok(vec![]));
    }

    #[test]
    fn a_schema_one_ahead_is_run_on_and_two_ahead_is_refused_with_a_remedy() {
        let one_ahead = [ran(&TWO[0]), ran(&TWO[1]), (3, vec![7])];
        assert_eq!(versions(&one_ahead), Ok(vec![]));
        let refused = versions(&[ran(&TWO[0]), ran(&TWO[1]), (3, vec![7]), (4, vec![7])]).unwrap_err();
        assert!(refused.contains("version 4") && refused.contains("knows 2"), "{refused}");
        assert!(refused.contains("start a newer release"), "{refused}");
    }

    #[test]
    fn an_edited_migration_is_refused() {
        let refused = versions(&[(1, vec![0; 32])]).unwrap_err();
        assert!(refused.contains("migration 1 (first) ran here in another form"), "{refused}");
    }

    #[test]
    fn the_versions_count_up_from_one() {
        for (at, migration) in MIGRATIONS.iter().enumerate() {
            assert_eq!(migration.version, at as i64 + 1);
        }
    }
}
