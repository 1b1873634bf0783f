//! Splits connection strings into options, and joins the remaining ones for the driver.
//!
//! The driver reads both forms of libpq's connection strings (PostgreSQL's manual, section "Connection Strings"), but
//! refuses options that it does not know, and knows fewer than libpq. So we separate the options first
//! ([`Options::parse`]), take ours out ([`Options::take`]), and pass the rest to the driver ([`Options::driver_text`]).

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::error::ConnectError;

/// A connection string's options in their order.
pub(crate) struct Options {
    /// Everything before the `?` of a URL, as written. `None` for the key/value form.
    base: Option<String>,
    options: Vec<(String, String)>,
}

impl Options {
    pub(crate) fn parse(text: &str) -> Result<Options, ConnectError> {
        let text = text.trim();
        let is_url = ["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme));
        if is_url { parse_url(text) } else { Ok(Options { base: None, options: parse_pairs(text)? }) }
    }

    /// Takes out all options of this name and returns the last, which is the one that counts.
    pub(crate) fn take(&mut self, name: &str) -> Option<String> {
        let taken = self.options.extract_if(.., |(key, _)| key == name);
        taken.last().map(|(_, value)| value)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.options.iter().map(|(key, _)| key.as_str())
    }

    pub(crate) fn rename(&mut self, from: &str, to: &str) {
        for (key, _) in self.options.iter_mut().filter(|(key, _)| key == from) {
            *key = to.to_owned();
        }
    }

    /// Writes the remaining options as a connection string of the same form.
    pub(crate) fn driver_text(&self) -> String {
        let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let quote = |text: &str| text.replace('\\', r"\\").replace('\'', r"\'");
        match &self.base {
            Some(base) => {
                let query: Vec<String> =
                    self.options.iter().map(|(key, value)| format!("{}={}", encode(key), encode(value))).collect();
                format!("{base}?{}", query.join("&"))
            }
            None => {
                let pairs: Vec<String> =
                    self.options.iter().map(|(key, value)| format!("{key}='{}'", quote(value))).collect();
                pairs.join(" ")
            }
        }
    }
}

fn parse_url(text: &str) -> Result<Options, ConnectError> {
    let scheme = text.find("://").map_or(0, |at| at + 3);
    // A password may contain a `?`, so the query begins after the first `@`, unless a `/` comes before that.
    let credentials = text[scheme..].find(['@', '/']).map_or(scheme, |at| scheme + at);
    let (base, query) = match text[credentials..].find('?') {
        Some(at) => (&text[..credentials + at], &text[credentials + at + 1..]),
        None => (text, ""),
    };
    if is_cut_wrongly(&base[scheme..]) {
        return Err(ConnectError::config(
            "the connection string cannot be read: a character in it ends a part too early",
            UNENCODED,
        ));
    }
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let options = pairs.map(parse_query_pair).collect::<Result<_, _>>()?;
    Ok(Options { base: Some(base.to_owned()), options })
}

/// ⚠ The error repeats nothing of such a string, because what looks like a host may be a piece of the password.
const UNENCODED: &str = "write user and password percent-encoded: @ as %40, / as %2F, : as %3A, # as %23, ? as %3F, % as %25; or keep the \
                         password out of it, in password_file";

/// Tells whether hosts, ports or database, in the part before the query, contain a character that they cannot contain.
/// Then the password ended too early.
fn is_cut_wrongly(text: &str) -> bool {
    let place = text.split_once('@').map_or(text, |(_, place)| place);
    let hosts = place.split('/').next().unwrap_or_default();
    let port = |host: &str| {
        let name_end = host.rfind(']').map_or(0, |at| at + 1);
        host[name_end..].split_once(':').map(|(_, port)| port.to_owned())
    };
    let wrong = |port: String| !port.bytes().all(|b| b.is_ascii_digit());
    place.contains(['@', '#']) || hosts.split(',').filter_map(port).any(wrong)
}

fn parse_query_pair(pair: &str) -> Result<(String, String), ConnectError> {
    let (key, value) = pair.split_once('=').ok_or_else(no_value)?;
    let decode = |text: &str| percent_decode_str(text).decode_utf8().map(|text| text.into_owned());
    match (decode(key), decode(value)) {
        (Ok(key), Ok(value)) => Ok((key, value)),
        _ => Err(invalid("an option's percent-encoding is not UTF-8")),
    }
}

fn parse_pairs(text: &str) -> Result<Vec<(String, String)>, ConnectError> {
    let mut options = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let end = rest.find(|c: char| c == '=' || c.is_whitespace()).ok_or_else(no_value)?;
        let (key, after) = rest.split_at(end);
        let after = after.trim_start().strip_prefix('=').ok_or_else(no_value)?;
        let (value, after) = parse_value(after.trim_start())?;
        options.push((key.to_owned(), value));
        rest = after.trim_start();
    }
    Ok(options)
}

/// Returns a value, quoted or not, and the text after it. A backslash takes the next character as it is.
fn parse_value(text: &str) -> Result<(String, &str), ConnectError> {
    let quoted = text.starts_with('\'');
    let mut chars = text.char_indices().skip(usize::from(quoted));
    let mut value = String::new();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            '\'' if quoted => return Ok((value, &text[at + 1..])),
            c if !quoted && c.is_whitespace() => return Ok((value, &text[at..])),
            c => value.push(c),
        }
    }
    if quoted { Err(invalid("a quote is not closed")) } else { Ok((value, "")) }
}

/// Makes an error that does not repeat the text, because it may be a piece of a password that contains a blank.
fn no_value() -> ConnectError {
    invalid("an option has no value")
}

fn invalid(what: &str) -> ConnectError {
    let form = "write postgres://user@host:port/database?option=value, or host=… user=… dbname=… with values that \
                hold blanks in single quotes";
    ConnectError::config(format!("invalid connection string: {what}"), form)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn check(text: &str, taken: &[(&str, &str)], driver: &str) {
        let mut options = Options::parse(text).unwrap();
        for (name, value) in taken {
            assert_eq!(options.take(name).as_deref(), Some(*value), "{name} of {text}");
        }
        assert_eq!(options.driver_text(), driver);
    }

    #[test]
    fn options_of_both_forms_are_taken_out() {
        check(
            "postgres://ann:p%40ss@db:5433/shop?sslmode=verify-full&application_name=a%20b&sslrootcert=%2Fca.pem",
            &[("sslmode", "verify-full"), ("sslrootcert", "/ca.pem")],
            "postgres://ann:p%40ss@db:5433/shop?application%5Fname=a%20b",
        );
        check(
            "host=db  user = ann password='it\\'s \\\\ here' sslmode=require",
            &[("sslmode", "require")],
            r"host='db' user='ann' password='it\'s \\ here'",
        );
        check("sslmode=disable host=a sslmode=require", &[("sslmode", "require")], "host='a'");
    }

    #[test]
    fn the_query_begins_behind_the_credentials() {
        check("postgres://ann:wh?t@db/shop?sslmode=require", &[("sslmode", "require")], "postgres://ann:wh?t@db/shop?");
        check("postgres:///shop?user=a@b&passfile=/x", &[("passfile", "/x")], "postgres:///shop?user=a%40b");
    }

    #[test]
    fn what_cannot_be_read_is_refused_without_repeating_it() {
        for text in [
            "password=two words host=db",
            "host='db",
            "postgres://db/shop?words",
            "words",
            "postgres://ann:p@ss/words@db/shop",
            "postgres://ann:p@words#x@db",
            "postgres://ann:pa/wo?words=rd@db/shop",
            "postgres://ann:pa#@words/shop#x",
            "postgres://ann:words?sslmode=x",
        ] {
            let error = Options::parse(text).err().unwrap();
            assert!(!format!("{error} {error:?}").contains("words"), "{error}");
            assert!(error.hint().is_some());
        }
    }
}
