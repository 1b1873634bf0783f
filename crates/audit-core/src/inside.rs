//! What is protected inside of a value that is itself kept: members of JSON documents by their names, and sensitive content in free text.
//!
//! A document is walked once, from its first byte to its last, and copied but for what is replaced. What is replaced becomes a JSON string, so that
//! a document stays one.

use std::ops::Range;

use aho_corasick::AhoCorasick;
use regex::{RegexSet, RegexSetBuilder};

use crate::content::Content;
use crate::json::{skip_space, string_end, unquote, value_end, value_start};
use crate::mac::Space;
use crate::method::{Method, MethodRule};
use crate::protect::{Bound, Missing, Policy, REDACTED};
use crate::table::companion_name;
use crate::value::write_json_string;

/// Rules by name, asked for many names: which one comes first is found in one pass over the name. Nearly all names have nothing in common with any
/// rule, and are told by that.
#[derive(Clone, Debug, Default)]
pub struct Names {
    set: RegexSet,
    /// A part of each pattern, one of which is in every ASCII name that any of them matches.
    parts: Option<AhoCorasick>,
    methods: Vec<Vec<MethodRule>>,
}

impl Names {
    /// From patterns with `*` and `?`, the one that decides first; case does not matter. Without methods a pattern keeps what it names as it is.
    pub fn new<'p>(rules: impl IntoIterator<Item = (&'p str, &'p [MethodRule])>) -> Names {
        let (patterns, methods): (Vec<&str>, Vec<_>) =
            rules.into_iter().map(|(pattern, methods)| (pattern, methods.to_vec())).unzip();
        let parts: Option<Vec<&str>> = patterns.iter().map(|pattern| longest_part(pattern)).collect();
        let parts = parts.and_then(|parts| AhoCorasick::builder().ascii_case_insensitive(true).build(parts).ok());
        let set = RegexSetBuilder::new(patterns.into_iter().map(as_regex))
            .case_insensitive(true)
            .dot_matches_new_line(true)
            .build();
        // Escaped text and wildcards are always an expression; one too large for the library's limit would be longer than a configuration may be.
        Names { set: set.unwrap_or_default(), parts, methods }
    }

    pub fn is_empty(&self) -> bool {
        self.methods.is_empty()
    }

    fn find(&self, name: &str) -> Option<&[MethodRule]> {
        if name.is_ascii() && self.parts.as_ref().is_some_and(|parts| !parts.is_match(name)) {
            return None;
        }
        let first = self.set.matches(name).iter().next()?;
        self.methods.get(first).map(Vec::as_slice).filter(|methods| !methods.is_empty())
    }
}

/// The longest part of a pattern without wildcards. None of one beyond ASCII, which may match an ASCII name that is written otherwise.
fn longest_part(pattern: &str) -> Option<&str> {
    let part = pattern.split(['*', '?']).max_by_key(|part| part.len()).filter(|part| !part.is_empty());
    part.filter(|_| pattern.is_ascii())
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

/// Protects what lies at a path in the documents of one column.
#[derive(Clone, Debug)]
pub struct PathRule {
    /// Keys from the top on, each with `*` and `?`. Lists do not count: a path goes through all of their items.
    pub keys: Vec<String>,
    pub methods: Vec<MethodRule>,
}

/// See the module's text.
#[derive(Clone, Debug, Default)]
pub struct Inside {
    /// The values are JSON documents.
    pub json: bool,
    /// Asked before `names`.
    pub paths: Vec<PathRule>,
    pub names: std::sync::Arc<Names>,
    /// What is found is replaced by what the method leaves of it.
    pub content: Vec<(Content, MethodRule)>,
}

impl Inside {
    /// Whether there is nothing to look for.
    pub fn is_empty(&self) -> bool {
        self.content.is_empty() && (!self.json || (self.paths.is_empty() && self.names.is_empty()))
    }

    /// Whether something in a value may become a ciphertext.
    pub(crate) fn encrypts(&self) -> bool {
        let rules = self.paths.iter().flat_map(|path| &path.methods).chain(self.names.methods.iter().flatten());
        self.json && rules.into_iter().any(|rule| rule.method == Method::Encrypt)
    }

    /// What is left out of a value, for people.
    pub fn describe(&self) -> String {
        let content = self.content.iter().map(|(content, method)| format!("{} ({})", content.plural(), method));
        let members = self.json && !(self.paths.is_empty() && self.names.is_empty());
        let parts: Vec<String> =
            members.then(|| "members that rules name".to_owned()).into_iter().chain(content).collect();
        parts.join(", ")
    }

    /// Whether there may be something in this value: of text that is known, of a document only after a walk through it.
    pub(crate) fn may_find(&self, text: &str) -> bool {
        self.json || first(&self.content, text, 0).is_some()
    }
}

/// Where a value stands, for spaces of hashes, and what ciphertexts are made with.
#[derive(Clone, Copy)]
pub(crate) struct At<'a> {
    pub table: &'a str,
    pub column: &'a str,
    pub bound: Bound<'a>,
}

impl Policy {
    /// Appends a value, without what is protected inside of it.
    pub(crate) fn inside(&self, at: At<'_>, inside: &Inside, text: &str, out: &mut String) -> Result<(), Missing> {
        if !inside.json {
            return self.content(at, &inside.content, text, out);
        }
        let start = out.len();
        let mut walk = Walk { policy: self, at, inside, text, out, copied: 0, open: Vec::new() };
        if walk.run()?.is_none() {
            // No JSON: nothing of it can be told from what is protected.
            out.truncate(start);
            let mut left = String::new();
            crate::mask::redacted(text, &mut left);
            push_json(out, &left);
        }
        Ok(())
    }

    /// Appends a text in which what is found is replaced.
    fn content(
        &self,
        at: At<'_>,
        rules: &[(Content, MethodRule)],
        text: &str,
        out: &mut String,
    ) -> Result<(), Missing> {
        let mut copied = 0;
        while let Some((found, rule)) = first(rules, text, copied) {
            out.push_str(&text[copied..found.start]);
            self.leave(rule, &space(rule, at.table, at.column), at.bound, &text[found.clone()], out)?;
            copied = found.end;
        }
        out.push_str(&text[copied..]);
        Ok(())
    }
}

/// What is found first, at or behind `from`.
fn first<'r>(rules: &'r [(Content, MethodRule)], text: &str, from: usize) -> Option<(Range<usize>, &'r MethodRule)> {
    let found = rules.iter().filter_map(|(content, rule)| Some((content.find(text, from)?, rule)));
    found.min_by_key(|(range, _)| range.start)
}

fn space(rule: &MethodRule, table: &str, column: &str) -> Space {
    rule.domain.as_deref().map_or_else(|| Space::column(table, column), Space::domain)
}

fn push_json(out: &mut String, text: &str) {
    let mut json = Vec::new();
    write_json_string(&mut json, text);
    out.push_str(&String::from_utf8(json).unwrap_or_default());
}

/// A way through one document.
struct Walk<'a> {
    policy: &'a Policy,
    at: At<'a>,
    inside: &'a Inside,
    text: &'a str,
    out: &'a mut String,
    /// Everything before is in `out`.
    copied: usize,
    /// Objects and lists that are open: of an object the key under way.
    open: Vec<Option<Range<usize>>>,
}

impl Walk<'_> {
    /// `None` where the text is no JSON.
    fn run(&mut self) -> Result<Option<()>, Missing> {
        let bytes = self.text.as_bytes();
        let mut at = skip_space(bytes, 0);
        let mut key_next = false;
        while let Some(byte) = bytes.get(at) {
            match byte {
                b'{' | b'[' => {
                    self.open.push((*byte == b'{').then_some(0..0));
                    key_next = *byte == b'{';
                    at += 1;
                }
                b'}' | b']' => {
                    if self.open.pop().is_none() {
                        return Ok(None);
                    }
                    key_next = false;
                    at += 1;
                }
                b',' => {
                    key_next = matches!(self.open.last(), Some(Some(_)));
                    at += 1;
                }
                b'"' => {
                    let Some(end) = string_end(bytes, at) else { return Ok(None) };
                    if key_next {
                        let Some(next) = self.key(at..end)? else { return Ok(None) };
                        (at, key_next) = next;
                    } else {
                        self.value(at..end)?;
                        at = end;
                    }
                }
                b' ' | b':' | b'\n' | b'\r' | b'\t' => at += 1,
                _ => {
                    let Some(end) = value_end(bytes, at).filter(|end| *end > at) else { return Ok(None) };
                    if byte.is_ascii_digit() {
                        self.value(at..end)?;
                    }
                    at = end;
                }
            }
        }
        self.copy(self.text.len());
        Ok(self.open.is_empty().then_some(()))
    }

    fn copy(&mut self, to: usize) {
        self.out.push_str(self.text.get(self.copied..to).unwrap_or_default());
        self.copied = to;
    }

    /// Takes in a key; and its value, if that is protected. Says where to go on, and whether another key stands there.
    fn key(&mut self, key: Range<usize>) -> Result<Option<(usize, bool)>, Missing> {
        let bytes = self.text.as_bytes();
        let Some(start) = value_start(bytes, key.end) else { return Ok(None) };
        if let Some(open) = self.open.last_mut() {
            *open = Some(key.clone());
        }
        let name = unquote(&self.text[key.clone()]);
        let inside = self.inside;
        let by_path = inside.paths.iter().find(|rule| self.is_at(&rule.keys)).map(|rule| rule.methods.as_slice());
        let Some(methods) = by_path.or_else(|| inside.names.find(&name)).filter(|methods| !methods.is_empty()) else {
            return Ok(Some((start, false)));
        };
        let Some(end) = value_end(bytes, start) else { return Ok(None) };
        if methods[0].method == Method::Drop {
            return Ok(Some(self.drop_member(key.start, end)));
        }
        let value = &self.text[start..end];
        self.copy(start);
        self.replace(&methods[0], value)?;
        for rule in &methods[1..] {
            self.out.push_str(", ");
            push_json(self.out, &companion_name(&name, rule.method));
            self.out.push_str(": ");
            self.replace(rule, value)?;
        }
        self.copied = end;
        Ok(Some((end, false)))
    }

    /// Leaves a member out, with the comma behind it, else with the one before.
    fn drop_member(&mut self, start: usize, end: usize) -> (usize, bool) {
        let bytes = self.text.as_bytes();
        self.copy(start);
        let behind = skip_space(bytes, end);
        if bytes.get(behind) == Some(&b',') {
            self.copied = skip_space(bytes, behind + 1);
            return (self.copied, true);
        }
        self.copied = end;
        let kept = self.out.trim_end_matches([' ', '\n', '\r', '\t']);
        if let Some(kept) = kept.strip_suffix(',') {
            self.out.truncate(kept.len());
        }
        (end, false)
    }

    /// Whether the key under way lies at a path.
    fn is_at(&self, path: &[String]) -> bool {
        let keys = self.open.iter().flatten();
        keys.clone().count() == path.len()
            && keys.zip(path).all(|(key, pattern)| crate::rules::matches(pattern, &unquote(&self.text[key.clone()])))
    }

    /// Appends what a method leaves of a member's value.
    fn replace(&mut self, rule: &MethodRule, value: &str) -> Result<(), Missing> {
        if rule.method == Method::Full {
            push_json(self.out, REDACTED);
            return Ok(());
        }
        if value == "null" {
            self.out.push_str(value);
            return Ok(());
        }
        let mut path = self.at.column.to_owned();
        for key in self.open.iter().flatten() {
            path.push('.');
            path.push_str(&unquote(&self.text[key.clone()]));
        }
        let mut left = String::new();
        self.policy.leave(rule, &space(rule, self.at.table, &path), self.at.bound, &unquote(value), &mut left)?;
        push_json(self.out, &left);
        Ok(())
    }

    /// Replaces content in a string or number.
    fn value(&mut self, range: Range<usize>) -> Result<(), Missing> {
        if self.inside.content.is_empty() {
            return Ok(());
        }
        let text = unquote(&self.text[range.clone()]);
        if first(&self.inside.content, &text, 0).is_none() {
            return Ok(());
        }
        let mut left = String::new();
        self.policy.content(self.at, &self.inside.content, &text, &mut left)?;
        self.copy(range.start);
        push_json(self.out, &left);
        self.copied = range.end;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
