//! Protects what is inside a value that is itself kept: see [`crate::inside`].

mod literal;
mod walk;

use std::ops::Range;

use super::bound::At;
use super::{Missing, Policy};
use crate::companion::companion_name;
use crate::content::Content;
use crate::inside::{Form, Found, Inside, may_be_document};
use crate::mac::Space;
use crate::method::{Method, MethodRule};
use crate::value::write_json_string;

use walk::Walk;

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
