//! Everything in which the SQL of the two engines differs.
//!
//! Statements and migrations are written once, in the common part: `$n` placeholders, BIGINT times, TEXT, no JSON
//! operators, arrays, `NOW()`. What has no common form stands in braces and is replaced here.

/// The engines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// SQLite 3.45 or newer (bundled).
    #[cfg(feature = "sqlite")]
    Sqlite,
    /// PostgreSQL 13 or newer.
    #[cfg(feature = "postgres")]
    Postgres,
}

/// Braces in migrations: types and table options.
const MIGRATION_WORDS: [(&str, &str, &str); 6] = [
    // word, SQLite, PostgreSQL
    ("{int}", "INTEGER", "BIGINT"),
    ("{bool}", "INTEGER", "BOOLEAN"),
    ("{bytes}", "BLOB", "BYTEA"),
    ("{uuid}", "BLOB", "UUID"),
    // AUTOINCREMENT: a number is never given twice, also after the newest row was purged.
    ("{serial}", "INTEGER PRIMARY KEY AUTOINCREMENT", "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY"),
    // A table that is its own primary-key index: one look-up instead of two.
    ("{keyed}", "STRICT, WITHOUT ROWID", ""),
];

/// The text of a statement for one engine.
pub(crate) fn statement(dialect: Dialect, text: &str) -> String {
    match dialect {
        // `$2` would be a named parameter there, numbered by first appearance; `?2` is the second. One writer at a
        // time: nothing is locked by anybody else.
        #[cfg(feature = "sqlite")]
        Dialect::Sqlite => {
            text.replace('$', "?").replace("{skip_locked}", "").replace("{lock_row}", "").replace("{lock_key}", "")
        }
        #[cfg(feature = "postgres")]
        Dialect::Postgres => {
            // The key as well: rows that are to refer to it wait, and those that do already are waited for.
            let text = text.replace("{lock_key}", "FOR UPDATE");
            text.replace("{skip_locked}", "FOR UPDATE SKIP LOCKED").replace("{lock_row}", "FOR NO KEY UPDATE")
        }
    }
}

/// The text of a migration for one engine.
pub(crate) fn migration(dialect: Dialect, text: &str) -> String {
    let mut out = text.to_owned();
    for (word, sqlite, postgres) in MIGRATION_WORDS {
        let engine = match dialect {
            #[cfg(feature = "sqlite")]
            Dialect::Sqlite => sqlite,
            #[cfg(feature = "postgres")]
            Dialect::Postgres => postgres,
        };
        #[cfg(not(all(feature = "sqlite", feature = "postgres")))]
        let _ = (sqlite, postgres);
        out = out.replace(word, engine);
    }
    // PostgreSQL's tables are strict by themselves.
    #[cfg(feature = "postgres")]
    if dialect == Dialect::Postgres {
        out = out.replace(" STRICT;", ";");
    }
    out
}
