//! Cookies of a request, read strictly (RFC 6265 §5.4 says how browsers write them).

use http::{HeaderMap, header};

use crate::{decision::Denial, reason::Reason};

/// All `name=value` pairs of all `Cookie` lines, as bytes.
///
/// Split at `;` only; blanks and tabs around a pair do not count, nothing else is trimmed, so a name
/// with a Unicode space before it stays another name. A pair without `=` or without a name is no
/// cookie of ours.
pub(crate) fn pairs(headers: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    let lines = headers.get_all(header::COOKIE).iter();
    lines.flat_map(|line| line.as_bytes().split(|&byte| byte == b';')).filter_map(pair)
}

/// Takes one crumb of a `Cookie` line apart.
pub(crate) fn pair(crumb: &[u8]) -> Option<(&[u8], &[u8])> {
    let crumb = trim(crumb);
    let at = crumb.iter().position(|&byte| byte == b'=')?;
    (at > 0).then(|| (&crumb[..at], &crumb[at + 1..]))
}

/// Drops blanks and tabs at both ends, and nothing else.
pub(crate) fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

/// The value of the cookie `name`: exact bytes, case and all.
///
/// `None` also for an empty value, which is how a cleared cookie can look.
///
/// # Errors
/// `ambiguous_credential` if the name occurs with different values: another site's cookie for a parent
/// path or domain may be among them.
pub fn value<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a [u8]>, Denial> {
    let mut found: Option<&[u8]> = None;
    for (_, value) in pairs(headers).filter(|(other, _)| *other == name.as_bytes()) {
        if found.is_some_and(|first| first != value) {
            return Err(Denial::from(Reason::AmbiguousCredential).with_note(format!("cookie: {name} twice")));
        }
        found = Some(value);
    }
    Ok(found.filter(|value| !value.is_empty()))
}
