//! Reads libpq's password file (PostgreSQL's manual, section "The Password File"). It has lines of the form
//! `hostname:port:database:username:password`, and the first line that matches counts. `*` matches anything, a
//! backslash takes `:` and `\` as they are.

use std::path::{Path, PathBuf};
use std::{env, fs};

use audit_config::secret::read_guarded;

/// The values that a line must match.
pub(crate) struct Wanted<'a> {
    pub(crate) host: &'a str,
    pub(crate) port: u16,
    pub(crate) dbname: &'a str,
    pub(crate) user: &'a str,
}

/// Returns `PGPASSFILE`, or else `~/.pgpass`.
pub(crate) fn default_path() -> Option<PathBuf> {
    let named = env::var_os("PGPASSFILE").filter(|path| !path.is_empty()).map(PathBuf::from);
    named.or_else(|| env::home_dir().map(|home| home.join(".pgpass")))
}

/// Searches the password for what is wanted. `None` if there is no such line, or no file. The error says why the file
/// is not used.
pub(crate) fn search(path: &Path, wanted: &Wanted<'_>) -> Result<Option<Vec<u8>>, String> {
    let Ok(metadata) = fs::metadata(path) else { return Ok(None) };
    if !metadata.is_file() {
        return Err("it is not a plain file".to_owned());
    }
    let content = read_guarded(path).map_err(|error| format!("{error}; {}", error.hint()))?;
    Ok(content.split(|&byte| byte == b'\n').find_map(|line| password_in(line, wanted)))
}

fn password_in(line: &[u8], wanted: &Wanted<'_>) -> Option<Vec<u8>> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.is_empty() || line.starts_with(b"#") {
        return None;
    }
    let port = wanted.port.to_string();
    let mut rest = line;
    for value in [wanted.host, &port, wanted.dbname, wanted.user] {
        let (field, after) = next_field(rest)?;
        if field != Field::Any && field != Field::Text(value.as_bytes().to_vec()) {
            return None;
        }
        rest = after;
    }
    // The password reaches to the end of the line; a colon in it may be written without a backslash.
    Some(unescape(rest))
}

#[derive(PartialEq)]
enum Field {
    Any,
    Text(Vec<u8>),
}

/// Returns the field up to the next colon, and the text after the colon.
fn next_field(text: &[u8]) -> Option<(Field, &[u8])> {
    let mut escaped = false;
    let end = text.iter().position(|&byte| {
        let ends = byte == b':' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })?;
    let field = if &text[..end] == b"*" { Field::Any } else { Field::Text(unescape(&text[..end])) };
    Some((field, &text[end + 1..]))
}

fn unescape(text: &[u8]) -> Vec<u8> {
    let mut bytes = text.iter().copied();
    let mut plain = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        let is_escape = byte == b'\\';
        plain.extend(if is_escape { bytes.next().or(Some(byte)) } else { Some(byte) });
    }
    plain
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn check(content: &str, expected: Option<&str>) {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), content).unwrap();
        let wanted = Wanted { host: "db:1", port: 5432, dbname: "shop", user: "ann" };
        let found = search(file.path(), &wanted).unwrap().map(|bytes| String::from_utf8(bytes).unwrap());
        assert_eq!(found.as_deref(), expected, "{content}");
    }

    #[test]
    fn the_first_line_that_matches_counts() {
        check("# a comment\n\ndb\\:1:5432:shop:bob:no\n*:*:shop:ann:first\r\n*:*:*:*:second\n", Some("first"));
        check("db\\:1:5432:shop:ann:a\\:b\\\\c:d", Some("a:b\\c:d"));
        check("*:5433:*:*:no\n*:*:*:*", None);
        check("\\*:*:*:*:no", None);
        check("", None);
    }

    #[test]
    fn a_file_that_others_can_read_is_not_used() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "*:*:*:*:secret").unwrap();
        fs::set_permissions(file.path(), fs::Permissions::from_mode(0o644)).unwrap();
        let wanted = Wanted { host: "db", port: 5432, dbname: "shop", user: "ann" };
        let why = search(file.path(), &wanted).unwrap_err();
        assert!(why.contains("chmod 600"), "{why}");
        assert!(search(Path::new("/nowhere/.pgpass"), &wanted).unwrap().is_none());
    }
}
