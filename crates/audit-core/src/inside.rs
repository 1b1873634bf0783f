//! What is protected inside a value that is itself kept: members of documents by their names, and sensitive content in
//! text.
//!
//! A document is read once, from its first byte to its last, and copied except for what is replaced. A replacement is a
//! JSON string, so that a document stays a document. Documents are searched for wherever there is text: in text
//! columns, in strings of other documents, in the parts of arrays, rows and `hstore`s, and nested in one another.

mod literal;
mod names;
mod walk;

use std::ops::Range;
use std::sync::Arc;

use crate::content::Content;
use crate::mac::Space;
use crate::method::{Method, MethodRule};
use crate::protect::{Bound, Missing, Policy};
use crate::rules::matches;
use crate::shape::ShapeColumn;
use crate::table::companion_name;
use crate::value::{Kind, write_json_string};

pub use names::Names;
pub(crate) use names::snake_case;

use walk::Walk;

/// How the values of a column are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// As text, which may still be a document.
    #[default]
    Text,
    /// As JSON. ⚠ A value that is not valid JSON could hide anything, so it is hidden whole.
    Document,
    /// As arrays of documents.
    Documents,
    /// As arrays and types of the database's own: their values are searched part by part as far as they are arrays,
    /// rows or `hstore`s.
    Parts,
}

/// Built-in types of PostgreSQL have smaller OIDs (`FirstUnpinnedObjectId`).
const FIRST_OWN_TYPE: u32 = 10_000;

impl Form {
    /// The form of a column's values; `None` for numbers, dates and other values that hold no text.
    pub fn of(column: &ShapeColumn) -> Option<Form> {
        match &column.kind {
            Kind::Json | Kind::Jsonb => Some(Form::Document),
            Kind::Array(element) => match element.as_ref() {
                Kind::Json | Kind::Jsonb => Some(Form::Documents),
                Kind::Text => Some(Form::Parts),
                _ => None,
            },
            Kind::Text if column.type_oid < FIRST_OWN_TYPE => Some(Form::Text),
            Kind::Text => Some(Form::Parts),
            _ => None,
        }
    }
}

/// Protects what is at a path in the documents of one column.
#[derive(Clone, Debug)]
pub struct PathRule {
    /// Keys from the top level on, each with `*` and `?`. Lists are not a level: a path goes through all of their
    /// items.
    pub keys: Vec<String>,
    pub methods: Vec<MethodRule>,
}

/// What is protected inside the values of a column; see the module's documentation.
#[derive(Clone, Debug, Default)]
pub struct Inside {
    pub form: Form,
    /// Rules by path, which decide before `names`.
    pub paths: Vec<PathRule>,
    pub names: Arc<Names>,
    /// Each match is replaced by what the method leaves of it.
    pub content: Vec<(Content, MethodRule)>,
}

impl Inside {
    /// Whether there is nothing to look for.
    pub fn is_empty(&self) -> bool {
        self.content.is_empty() && !self.names_members()
    }

    fn names_members(&self) -> bool {
        !(self.paths.is_empty() && self.names.is_empty())
    }

    /// Whether something in a value may become a ciphertext.
    pub(crate) fn encrypts(&self) -> bool {
        self.of_members().any(|rule| rule.method == Method::Encrypt)
    }

    fn of_members(&self) -> impl Iterator<Item = &MethodRule> {
        self.paths.iter().flat_map(|path| &path.methods).chain(self.names.methods())
    }

    /// All methods, of members and of content.
    pub(crate) fn methods(&self) -> impl Iterator<Item = &MethodRule> {
        self.of_members().chain(self.content.iter().map(|(_, rule)| rule))
    }

    /// Passes the parts of all rules to `each`: two columns with the same parts protect the same.
    pub(crate) fn each_part(&self, mut each: impl FnMut(&str)) {
        each(&format!("{:?}", self.form));
        for path in &self.paths {
            each(&path.keys.join("."));
            path.methods.iter().for_each(|method| each(&method.to_string()));
        }
        self.names.each_part(&mut each);
        for (content, method) in &self.content {
            each(content.plural());
            each(&method.to_string());
        }
    }

    /// A description for people of what is left out of a value.
    pub fn describe(&self) -> String {
        let content = self.content.iter().map(|(content, method)| format!("{} ({})", content.plural(), method));
        let members = || match self.form {
            Form::Text => "members of documents that rules name".to_owned(),
            Form::Parts => "members of documents and keys of `hstore`s that rules name".to_owned(),
            Form::Document | Form::Documents => "members that rules name".to_owned(),
        };
        let parts: Vec<String> = self.names_members().then(members).into_iter().chain(content).collect();
        parts.join(", ")
    }

    /// Whether something in this value may be protected. For plain text the answer is exact; for a document only
    /// reading it through would tell.
    pub(crate) fn may_find(&self, text: &str) -> bool {
        self.form != Form::Text || may_be_document(text) || Found::new(&self.content).next(text, 0).is_some()
    }

    /// The rules for the member that the keys lead to; the last key is `name`.
    fn of_member<'k>(&self, keys: impl Iterator<Item = &'k str> + Clone, name: &str) -> Option<&[MethodRule]> {
        let is_at = |path: &PathRule| {
            keys.clone().count() == path.keys.len()
                && keys.clone().zip(&path.keys).all(|(key, pattern)| matches(pattern, key))
        };
        let by_path = self.paths.iter().find(|path| is_at(path)).map(|path| path.methods.as_slice());
        by_path.or_else(|| self.names.find(name)).filter(|methods| !methods.is_empty())
    }
}

/// Finds the next content of any wanted kind in a text. A match that was found further on is remembered, so that a text
/// is searched only once for each kind, however many matches it has.
struct Found<'r> {
    rules: &'r [(Content, MethodRule)],
    /// The next match of each [`Content`]: `None` if there is no further one, an empty range if it is not known.
    next: [Option<Range<usize>>; Content::COUNT],
}

impl<'r> Found<'r> {
    fn new(rules: &'r [(Content, MethodRule)]) -> Found<'r> {
        Found { rules, next: [const { Some(0..0) }; Content::COUNT] }
    }

    /// The first match at or after `from`, which never decreases.
    fn next(&mut self, text: &str, from: usize) -> Option<(Range<usize>, Content, &'r MethodRule)> {
        let mut first: Option<(Range<usize>, Content, &MethodRule)> = None;
        for (content, rule) in self.rules {
            let next = &mut self.next[*content as usize];
            if next.as_ref().is_some_and(|known| known.is_empty() || known.start < from) {
                *next = content.find(text, from);
            }
            if let Some(found) =
                next.as_ref().filter(|found| first.as_ref().is_none_or(|(first, ..)| found.start < first.start))
            {
                first = Some((found.clone(), *content, rule));
            }
        }
        first
    }
}

/// Where a value is (for the spaces of hashes), and what its ciphertexts are bound to.
#[derive(Clone, Copy)]
pub(crate) struct At<'a> {
    pub table: &'a str,
    pub column: &'a str,
    pub bound: Bound<'a>,
}

/// The keys of the documents around a value, and the number of documents, arrays, rows and `hstore`s around it.
#[derive(Clone, Copy, Default)]
struct Around<'a> {
    keys: &'a [String],
    depth: usize,
}

/// Each level of quotation doubles the backslashes of the one before, so nobody nests this deep. ⚠ What is deeper could
/// hide anything, so it is hidden.
const DEPTH_MAX: usize = 8;

impl Policy {
    /// Appends a value without what is protected inside it.
    pub(crate) fn inside(&self, at: At<'_>, inside: &Inside, text: &str, out: &mut String) -> Result<(), Missing> {
        match self.left_of(at, inside, inside.form, text, Around::default())? {
            Some(left) => out.push_str(&left),
            None => out.push_str(text),
        }
        Ok(())
    }

    /// What is left of a value; `None` if nothing in it was replaced.
    fn left_of(
        &self,
        at: At<'_>,
        inside: &Inside,
        form: Form,
        text: &str,
        around: Around<'_>,
    ) -> Result<Option<String>, Missing> {
        let document = match form {
            Form::Document => true,
            Form::Text | Form::Parts => match is_document(text) {
                Document::Whole => true,
                Document::No => false,
                Document::Cut => return Ok(Some(hidden(text))),
            },
            Form::Documents => false,
        };
        if document {
            if around.depth > DEPTH_MAX {
                return Ok(Some(hidden(text)));
            }
            // In a text that is not valid JSON, the protected parts cannot be found.
            let left = Walk::new(self, at, inside, text, around).run()?;
            return Ok(left.map_or_else(|| Some(json_text(&hidden(text))), |left| left.filter(|left| left != text)));
        }
        match form {
            Form::Documents | Form::Parts => self.left_of_parts(at, inside, form, text, around),
            _ => self.left_of_text(at, &inside.content, text),
        }
    }

    /// What is left of a text in which content is replaced.
    fn left_of_text(&self, at: At<'_>, rules: &[(Content, MethodRule)], text: &str) -> Result<Option<String>, Missing> {
        let (mut found, mut out, mut copied) = (Found::new(rules), String::new(), 0);
        while let Some((place, content, rule)) = found.next(text, copied) {
            out.push_str(&text[copied..place.start]);
            let here = &text[place.clone()];
            let known = if rule.shape_decides() { content.plain(here) } else { here.into() };
            self.leave(rule, &space(rule, at.table, at.column), at.bound, &known, &mut out)?;
            copied = place.end;
        }
        if copied == 0 {
            return Ok(None);
        }
        out.push_str(&text[copied..]);
        Ok(Some(out))
    }

    /// What is left of an array, a row or an `hstore`, part by part; another text is left as it is.
    fn left_of_parts(
        &self,
        at: At<'_>,
        inside: &Inside,
        form: Form,
        text: &str,
        around: Around<'_>,
    ) -> Result<Option<String>, Missing> {
        let plain = form == Form::Parts && !text.contains('"') && Found::new(&inside.content).next(text, 0).is_none();
        if plain {
            return Ok(None);
        }
        if let Some(pairs) = literal::pairs(text) {
            return self.left_of_pairs(at, inside, text, &pairs, around);
        }
        let Some(parts) = literal::parts(text) else { return self.left_of_text(at, &inside.content, text) };
        if around.depth > DEPTH_MAX {
            return Ok(Some(hidden(text)));
        }
        let form = if form == Form::Documents { Form::Document } else { Form::Parts };
        let around = Around { depth: around.depth + 1, ..around };
        let (mut out, mut copied) = (String::new(), 0);
        for part in parts {
            let Some(left) = self.left_of(at, inside, form, &literal::read(&text[part.clone()]), around)? else {
                continue;
            };
            out.push_str(&text[copied..part.start]);
            literal::write(&left, &mut out);
            copied = part.end;
        }
        out.push_str(&text[copied..]);
        Ok((copied > 0).then_some(out))
    }

    /// What is left of an `hstore`, whose keys are names as those of members are.
    fn left_of_pairs(
        &self,
        at: At<'_>,
        inside: &Inside,
        text: &str,
        pairs: &[(Range<usize>, Range<usize>)],
        around: Around<'_>,
    ) -> Result<Option<String>, Missing> {
        if around.depth > DEPTH_MAX {
            return Ok(Some(hidden(text)));
        }
        let (mut left, mut changed) = (Vec::new(), false);
        for (key, value) in pairs {
            let name = literal::read(&text[key.clone()]);
            let mut keys = around.keys.to_vec();
            keys.push(name.clone().into_owned());
            let around = Around { keys: &keys, depth: around.depth + 1 };
            let shown = self.left_of_text(at, &inside.content, &name)?;
            changed |= shown.is_some();
            let shown = shown.as_deref().unwrap_or(&name);
            let value = Some(&text[value.clone()]).filter(|value| *value != "NULL").map(literal::read);
            let Some(methods) = inside.of_member(keys.iter().map(String::as_str), &name) else {
                let found = value.as_deref().map(|value| self.left_of(at, inside, Form::Parts, value, around));
                let found = found.transpose()?.flatten();
                changed |= found.is_some();
                left.push((shown.to_owned(), found.or_else(|| value.map(Into::into))));
                continue;
            };
            changed = true;
            for (index, rule) in methods.iter().enumerate().filter(|(_, rule)| rule.method != Method::Drop) {
                let name = if index == 0 { shown.to_owned() } else { companion_name(shown, rule.method) };
                left.push((name, self.member(at, rule, &keys, value.as_deref())?));
            }
        }
        let pair = |(key, value): &(String, Option<String>)| {
            let mut out = String::new();
            literal::write(key, &mut out);
            out.push_str("=>");
            match value {
                Some(value) => literal::write(value, &mut out),
                None => out.push_str("NULL"),
            }
            out
        };
        Ok(changed.then(|| left.iter().map(pair).collect::<Vec<_>>().join(", ")))
    }

    /// What a method leaves of a member's value; `None` stands for null.
    fn member(
        &self,
        at: At<'_>,
        rule: &MethodRule,
        keys: &[String],
        value: Option<&str>,
    ) -> Result<Option<String>, Missing> {
        let text = match (rule.method, value) {
            (Method::Full, _) => "",
            (_, None) => return Ok(None),
            (_, Some(text)) => text,
        };
        let path = [at.column].into_iter().chain(keys.iter().map(String::as_str)).collect::<Vec<_>>().join(".");
        let mut left = String::new();
        self.leave(rule, &space(rule, at.table, &path), at.bound, text, &mut left)?;
        Ok(Some(left))
    }
}

/// Whether a text is a document.
enum Document {
    No,
    Whole,
    /// It begins as a document and ends too early, or is nested too deep to be read: its contents cannot be found.
    Cut,
}

fn may_be_document(text: &str) -> bool {
    matches!(text.trim_start().as_bytes().first(), Some(b'{' | b'[' | b'"'))
}

/// Whether a text is a document; several documents, one after the other, are one too.
fn is_document(text: &str) -> Document {
    if !may_be_document(text) {
        return Document::No;
    }
    let documents = serde_json::Deserializer::from_str(text).into_iter::<serde::de::IgnoredAny>();
    match documents.collect::<Result<Vec<_>, _>>() {
        Ok(_) => Document::Whole,
        Err(_) if text.trim_start().starts_with('"') => Document::No,
        Err(error) if error.is_eof() && text.contains('"') => Document::Cut,
        Err(error) if error.to_string().starts_with("recursion limit exceeded") => Document::Cut,
        Err(_) => Document::No,
    }
}

fn hidden(text: &str) -> String {
    let mut out = String::new();
    crate::mask::redacted(text, &mut out);
    out
}

fn space(rule: &MethodRule, table: &str, column: &str) -> Space {
    rule.domain.as_deref().map_or_else(|| Space::column(table, column), Space::domain)
}

/// A text as a JSON string.
fn json_text(text: &str) -> String {
    let mut json = Vec::new();
    write_json_string(&mut json, text);
    String::from_utf8(json).unwrap_or_default()
}

#[cfg(test)]
mod tests;
