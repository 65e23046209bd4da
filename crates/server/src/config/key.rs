//! One definition per key: its name, type, default, text and remedy.
//!
//! [`settings!`] makes from it the struct that holds the value, the reader that fills it, and the rows
//! of `docs/reference/config.md`; `init` takes its lines from there too. So they cannot drift apart.

use super::{read::Reader, tree::Node};

/// A table of the configuration.
#[derive(Debug)]
pub struct Section {
    /// What it is for.
    pub doc: &'static str,
    /// Its keys, in the order of the reference.
    pub keys: &'static [Key],
}

/// One key.
#[derive(Debug)]
pub struct Key {
    /// Name in the file.
    pub name: &'static str,
    /// Type, for people.
    pub kind: &'static str,
    /// What to write, as the object of "write …".
    pub hint: &'static str,
    /// Whether it must be there, and what holds when it is not.
    pub presence: Presence,
    /// Whether `<name>_file` may name a file that holds the value.
    pub or_file: bool,
    /// What it does.
    pub doc: &'static str,
    /// How it is written.
    pub shape: Shape,
    /// The keys below it, where it is a table.
    pub section: fn() -> Option<&'static Section>,
}

impl Key {
    /// A value in TOML that would be accepted.
    pub fn example(&self) -> &'static str {
        match self.presence {
            Presence::Required { example } | Presence::Optional { example } => example,
            Presence::Default(text) => text,
            Presence::Table => "{}",
        }
    }

    /// What to do about a bad or missing value.
    pub(crate) fn remedy(&self) -> String {
        match self.example() {
            "[]" | "{}" => format!("write {}", self.hint),
            example => format!("write {}, for example `{} = {example}`", self.hint, self.name),
        }
    }
}

/// Whether a key must be there. Texts are TOML.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It must be there.
    Required {
        /// For example.
        example: &'static str,
    },
    /// Absent means "not used".
    Optional {
        /// For example.
        example: &'static str,
    },
    /// Absent means this.
    Default(&'static str),
    /// A table; absent means that every key in it has its default.
    Table,
}

/// How a key is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `key = value`.
    Value,
    /// `[key]`.
    Table,
    /// `[key.NAME]`.
    Named,
    /// `[[key]]`.
    Tables,
}

/// A type that a key can have.
pub(crate) trait Field: Sized {
    /// For the reference: "duration".
    const TYPE: &'static str;
    /// Object of "write …" in a remedy.
    const HINT: &'static str;
    /// How it is written.
    const SHAPE: Shape = Shape::Value;
    /// The keys below it.
    fn section() -> Option<&'static Section> {
        None
    }
    /// Reads it; what is wrong goes to `cx`. `None` only after a problem was recorded.
    fn read(node: Node, cx: &mut Reader<'_>, key: &Key) -> Option<Self>;
}

/// Declares the structs of the configuration. A field is
/// `name: Type = required "example"`, `= default "value"`, `= optional "example"` (its type becomes
/// `Option<Type>`) or `= table {}`; the literal is TOML. `, or_file` after it admits `name_file` as well.
macro_rules! settings {
    ($(
        $(#[doc = $section_doc:literal])+
        pub struct $Section:ident $(check $check:path)? {
            $(
                $(#[doc = $doc:literal])+
                $name:ident : $Type:ty = $mode:ident $toml:tt $(, $file:ident)?;
            )+
        }
    )+) => { $(
        $(#[doc = $section_doc])+
        #[derive(Clone, Debug)]
        pub struct $Section {
            $( $(#[doc = $doc])+ pub $name: settings!(@type $mode $Type), )+
        }

        impl $crate::config::key::Field for $Section {
            const TYPE: &'static str = "table";
            const HINT: &'static str = "a table";
            const SHAPE: $crate::config::key::Shape = $crate::config::key::Shape::Table;

            fn section() -> Option<&'static $crate::config::key::Section> {
                use $crate::config::key::{Field, Key, Presence, Section};
                static SECTION: Section = Section {
                    doc: concat!($($section_doc, "\n"),+),
                    keys: &[$(Key {
                        name: stringify!($name),
                        kind: <$Type as Field>::TYPE,
                        hint: <$Type as Field>::HINT,
                        presence: settings!(@presence $mode $toml),
                        or_file: settings!(@file $($file)?),
                        doc: concat!($($doc, "\n"),+),
                        shape: <$Type as Field>::SHAPE,
                        section: <$Type as Field>::section,
                    }),+],
                };
                Some(&SECTION)
            }

            fn read(
                node: $crate::config::tree::Node,
                cx: &mut $crate::config::read::Reader<'_>,
                key: &$crate::config::key::Key,
            ) -> Option<Self> {
                let mut table = cx.table(node, key);
                let mut keys = Self::section().into_iter().flat_map(|section| section.keys);
                $( let $name = settings!(@read $mode $Type, cx, &mut table, keys.next()?); )+
                cx.refuse_rest(table, Self::section()?);
                let section = Self { $($name: $name?),+ };
                $( $check(&section, cx); )?
                Some(section)
            }
        }
    )+ };
    (@type required $Type:ty) => { $Type };
    (@type default $Type:ty) => { $Type };
    (@type table $Type:ty) => { $Type };
    (@type optional $Type:ty) => { Option<$Type> };
    (@presence required $toml:tt) => { Presence::Required { example: stringify!($toml) } };
    (@presence optional $toml:tt) => { Presence::Optional { example: stringify!($toml) } };
    (@presence default $toml:tt) => { Presence::Default(stringify!($toml)) };
    (@presence table $toml:tt) => { Presence::Table };
    (@file) => { false };
    (@file or_file) => { true };
    (@read required $Type:ty, $cx:ident, $table:expr, $key:expr) => { $cx.required::<$Type>($table, $key) };
    (@read default $Type:ty, $cx:ident, $table:expr, $key:expr) => { $cx.or_default::<$Type>($table, $key) };
    (@read optional $Type:ty, $cx:ident, $table:expr, $key:expr) => { $cx.optional::<$Type>($table, $key) };
    (@read table $Type:ty, $cx:ident, $table:expr, $key:expr) => { $cx.section::<$Type>($table, $key) };
}
pub(crate) use settings;
