//! Finds the rule that applies to a member's name: [`Names`].

use std::sync::OnceLock;

use aho_corasick::AhoCorasick;
use regex::{RegexSet, RegexSetBuilder};

use crate::method::{Method, MethodRule};

/// Rules by name, looked up for many names: one pass over a name finds the rule that decides first. There is a fast
/// path, because almost no name matches a rule: a name that contains no literal part of any pattern cannot match.
#[derive(Clone, Debug)]
pub struct Names {
    patterns: Vec<String>,
    /// How many of the patterns, counted from the end, match a name in every style in which programs write it.
    any_style: usize,
    methods: Vec<Vec<MethodRule>>,
    /// What happens to every member if the patterns cannot be compiled.
    hidden: [MethodRule; 1],
    /// Compiled for the first name, because most tables have no documents.
    asked: OnceLock<Option<Asked>>,
}

#[derive(Clone, Debug)]
struct Asked {
    set: RegexSet,
    any_style: RegexSet,
    /// Literal parts of the patterns. Every ASCII name that a pattern matches contains the part of that pattern.
    parts: Option<AhoCorasick>,
}

impl Default for Names {
    fn default() -> Names {
        Names::new([], [])
    }
}

impl Names {
    /// Makes the rules from patterns with `*` and `?`; the first one that matches decides, and case does not matter. A
    /// pattern without methods keeps the members that it names as they are. `any_style` patterns come after `rules`;
    /// where they say `api_key` they also match `apiKey`, `api-key` and `Api Key`.
    pub fn new<'p>(
        rules: impl IntoIterator<Item = (&'p str, &'p [MethodRule])>,
        any_style: impl IntoIterator<Item = (&'p str, &'p [MethodRule])>,
    ) -> Names {
        let owned = |(pattern, methods): (&str, &[MethodRule])| (pattern.to_owned(), methods.to_vec());
        let (mut patterns, mut methods): (Vec<String>, Vec<_>) = rules.into_iter().map(owned).unzip();
        let exact = patterns.len();
        let (others, their_methods): (Vec<String>, Vec<_>) = any_style.into_iter().map(owned).unzip();
        patterns.extend(others);
        methods.extend(their_methods);
        let any_style = patterns.len() - exact;
        Names { patterns, any_style, methods, hidden: [Method::Full.into()], asked: OnceLock::new() }
    }

    pub fn is_empty(&self) -> bool {
        self.methods.is_empty()
    }

    /// All methods of the patterns, for whichever members.
    pub(super) fn methods(&self) -> impl Iterator<Item = &MethodRule> {
        self.methods.iter().flatten()
    }

    /// Passes the parts of all rules to `each`, in their order.
    pub(super) fn each_part(&self, each: &mut impl FnMut(&str)) {
        each(&self.any_style.to_string());
        for (pattern, methods) in self.patterns.iter().zip(&self.methods) {
            each(pattern);
            methods.iter().for_each(|method| each(&method.to_string()));
        }
    }

    /// Whether there are more patterns than can be searched for together. Then every member is hidden.
    pub fn too_many(&self) -> bool {
        self.asked().is_none()
    }

    fn asked(&self) -> Option<&Asked> {
        self.asked.get_or_init(|| self.prepare()).as_ref()
    }

    fn prepare(&self) -> Option<Asked> {
        let (exact, any_style) = self.patterns.split_at(self.patterns.len() - self.any_style);
        let parts = exact.iter().map(|pattern| longest_part(pattern).map(|part| vec![part.to_owned()]));
        let parts = parts.chain(any_style.iter().map(|pattern| styled_parts(pattern)));
        let parts: Option<Vec<String>> = parts.collect::<Option<Vec<_>>>().map(|parts| parts.concat());
        let parts = parts.and_then(|parts| AhoCorasick::builder().ascii_case_insensitive(true).build(parts).ok());
        Some(Asked { set: set(&self.patterns)?, any_style: set(any_style)?, parts })
    }

    pub(crate) fn find(&self, name: &str) -> Option<&[MethodRule]> {
        if self.is_empty() {
            return None;
        }
        // ⚠ When a library's limit is exceeded, nothing may stay in clear text.
        let Some(asked) = self.asked() else { return Some(&self.hidden) };
        if name.is_ascii() && asked.parts.as_ref().is_some_and(|parts| !parts.is_match(name)) {
            return None;
        }
        let exact = self.patterns.len() - self.any_style;
        let styled = || Some(exact + asked.any_style.matches(&snake_case(name)?).iter().next()?);
        let first = asked.set.matches(name).iter().next().or_else(styled)?;
        self.methods.get(first).map(Vec::as_slice).filter(|methods| !methods.is_empty())
    }
}

fn set(patterns: &[String]) -> Option<RegexSet> {
    let patterns = patterns.iter().map(|pattern| as_regex(pattern));
    RegexSetBuilder::new(patterns).case_insensitive(true).dot_matches_new_line(true).build().ok()
}

/// The characters that separate the words of a name.
const BETWEEN: [char; 4] = ['_', '-', ' ', '.'];

/// A name in the style of the default set: `apiKey`, `APIKey`, `Api-Key` and `api.key` become `api_key`. `None` if it
/// is already written so.
pub(crate) fn snake_case(name: &str) -> Option<String> {
    if !name.contains(|c: char| c.is_uppercase() || (c != '_' && BETWEEN.contains(&c))) {
        return None;
    }
    let mut out = String::with_capacity(name.len() + 4);
    let (mut before, mut chars) = (None::<char>, name.chars().peekable());
    while let Some(c) = chars.next() {
        let begins = |before: char| {
            before.is_lowercase()
                || before.is_numeric()
                || (before.is_uppercase() && chars.peek().is_some_and(|c| c.is_lowercase()))
        };
        if c.is_uppercase() && before.is_some_and(begins) {
            out.push('_');
        }
        match BETWEEN.contains(&c) {
            true => out.push('_'),
            false => out.extend(c.to_lowercase()),
        }
        before = Some(c);
    }
    Some(out)
}

/// The longest part of a pattern without wildcards. `None` for a pattern beyond ASCII, which may match an ASCII name
/// that is written differently.
fn longest_part(pattern: &str) -> Option<&str> {
    let part = pattern.split(['*', '?']).max_by_key(|part| part.len()).filter(|part| !part.is_empty());
    part.filter(|_| pattern.is_ascii())
}

/// The same part in each style in which its words may be joined.
fn styled_parts(pattern: &str) -> Option<Vec<String>> {
    let part = longest_part(pattern)?.trim_matches('_');
    if part.matches('_').count() > 1 {
        return part.split('_').max_by_key(|word| word.len()).map(|word| vec![word.to_owned()]);
    }
    let separators = BETWEEN.iter().map(char::to_string).chain([String::new()]);
    Some(separators.map(|separator| part.replace('_', &separator)).collect())
}

fn as_regex(pattern: &str) -> String {
    let mut out = String::from("^");
    let mut character = [0; 4];
    for c in pattern.chars() {
        match c {
            '*' => out.push_str(".*"),
            '?' => out.push('.'),
            c => out.push_str(&regex::escape(c.encode_utf8(&mut character))),
        }
    }
    out.push('$');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash() -> Vec<MethodRule> {
        vec![Method::Hash.into()]
    }

    /// The fast path must agree with the rules.
    #[test]
    fn a_name_is_found_however_its_case_is() {
        let hash = hash();
        let names =
            Names::new([("*pass?word*", &hash[..]), ("ssn", &hash), ("?card", &hash), ("*\u{212a}ey", &hash)], []);
        for name in ["MyPass_Word1", "pass-word", "SSN", "\u{17f}sn", "xCARD", "api_key", "API\u{212a}EY"] {
            assert!(names.find(name).is_some(), "{name}");
        }
        for name in ["password", "ssns", "card", "xxcard", "kez", ""] {
            assert!(names.find(name).is_none(), "{name}");
        }
        let all_ascii = Names::new([("*pass?word*", &hash[..]), ("ssn", &hash), ("?card", &hash)], []);
        let filtered = |names: &Names| names.asked().is_some_and(|asked| asked.parts.is_some());
        assert!(filtered(&all_ascii) && !filtered(&names));
        for name in ["MyPass_Word1", "SSN", "\u{17f}sn", "xCARD"] {
            assert!(all_ascii.find(name).is_some(), "{name}");
        }
        assert!(Names::new([("*", &hash[..])], []).find("anything").is_some());
    }

    #[test]
    fn the_default_names_are_found_in_every_style() {
        let full = [MethodRule::from(Method::Full)];
        let defaults = || crate::rules::DEFAULT_PROTECTED.iter().map(|name| (*name, &full[..]));
        let names = Names::new([("openToken", &[][..])], defaults());
        for name in [
            "privateKey",
            "PrivateKey",
            "private-key",
            "private.key",
            "Private Key",
            "accessKey",
            "api-key",
            "X-Api-Key",
            "APIKey",
            "socialSecurityNumber",
            "patientSsn",
            "patientSSN",
            "cardCvv",
            "authorization",
            "Authorization",
            "Proxy-Authorization",
            "cookie",
            "Set-Cookie",
            "jwt",
            "userJwt",
            "cardNumber",
            "userPin",
            "resetPassword",
            "OTP-Code",
            "passwordSalt",
        ] {
            assert!(names.find(name).is_some(), "{name}");
        }
        for name in ["opinion", "spin", "basalt", "lessn", "openToken", "keyboard", "author", "compan"] {
            assert!(names.find(name).is_none(), "{name}");
        }
    }

    #[test]
    fn patterns_that_are_too_many_hide_every_member() {
        let (hash, patterns) = (hash(), (0..200).map(|i| format!("*{}{i}", "?".repeat(500))).collect::<Vec<_>>());
        let names = Names::new(patterns.iter().map(|pattern| (pattern.as_str(), &hash[..])), []);
        assert!(names.too_many());
        assert_eq!(names.find("name").map(|methods| methods[0].method), Some(Method::Full));
    }
}
