//! A pass through one document, from its first byte to its last.

use std::ops::Range;

use super::{Around, json_text};
use crate::companion::companion_name;
use crate::inside::{Form, Inside};
use crate::json::{skip_space, string_end, unquote, value_end, value_start};
use crate::method::{Method, MethodRule};
use crate::protect::bound::At;
use crate::protect::{Missing, Policy};

pub(super) struct Walk<'a> {
    policy: &'a Policy,
    at: At<'a>,
    inside: &'a Inside,
    text: &'a str,
    around: Around<'a>,
    out: String,
    /// Everything before this byte is in `out`.
    copied: usize,
    /// The open objects and lists; for an object, the key whose value is being read.
    open: Vec<Option<Range<usize>>>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        policy: &'a Policy,
        at: At<'a>,
        inside: &'a Inside,
        text: &'a str,
        around: Around<'a>,
    ) -> Walk<'a> {
        Walk { policy, at, inside, text, around, out: String::new(), copied: 0, open: Vec::new() }
    }

    /// What is left of the document, if anything in it was replaced. The outer `None` means that the text is not valid
    /// JSON.
    pub(super) fn run(mut self) -> Result<Option<Option<String>>, Missing> {
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
                        self.string(at..end)?;
                        at = end;
                    }
                }
                b' ' | b':' | b'\n' | b'\r' | b'\t' => at += 1,
                _ => {
                    let Some(end) = value_end(bytes, at).filter(|end| *end > at) else { return Ok(None) };
                    if byte.is_ascii_digit() || *byte == b'-' {
                        self.number(at..end)?;
                    }
                    at = end;
                }
            }
        }
        if !self.open.is_empty() {
            return Ok(None);
        }
        if self.copied == 0 {
            return Ok(Some(None));
        }
        self.copy(self.text.len());
        Ok(Some(Some(self.out)))
    }

    fn copy(&mut self, to: usize) {
        self.out.push_str(self.text.get(self.copied..to).unwrap_or_default());
        self.copied = to;
    }

    /// Replaces a part of the text with a JSON string.
    fn put(&mut self, place: Range<usize>, text: &str) {
        self.copy(place.start);
        self.out.push_str(&json_text(text));
        self.copied = place.end;
    }

    /// Reads a key, and also its value if that is protected. Returns where to continue, and whether another key is
    /// expected there.
    fn key(&mut self, key: Range<usize>) -> Result<Option<(usize, bool)>, Missing> {
        let bytes = self.text.as_bytes();
        let Some(start) = value_start(bytes, key.end) else { return Ok(None) };
        if let Some(open) = self.open.last_mut() {
            *open = Some(key.clone());
        }
        let name = unquote(&self.text[key.clone()]);
        // If no path rule can match the member, only its name is looked up.
        let methods = match self.inside.paths.is_empty() {
            true => self.inside.names.find(&name).filter(|methods| !methods.is_empty()),
            false => self.inside.of_member(self.keys().iter().map(String::as_str), &name),
        };
        if methods.is_some_and(|methods| methods[0].method == Method::Drop) {
            return Ok(value_end(bytes, start).map(|end| self.drop_member(key.start, end)));
        }
        let shown = self.policy.left_of_text(self.at, &self.inside.content, &name)?;
        if let Some(shown) = &shown {
            self.put(key.clone(), shown);
        }
        let Some(methods) = methods else { return Ok(Some((start, false))) };
        let Some(end) = value_end(bytes, start) else { return Ok(None) };
        self.copy(start);
        self.replace(&methods[0], start..end)?;
        for rule in &methods[1..] {
            let companion = companion_name(shown.as_deref().unwrap_or(&name), rule.method);
            self.out.push_str(&format!(", {}: ", json_text(&companion)));
            self.replace(rule, start..end)?;
        }
        self.copied = end;
        Ok(Some((end, false)))
    }

    /// Leaves a member out, together with the comma after it, or with the one before it if none follows.
    fn drop_member(&mut self, start: usize, end: usize) -> (usize, bool) {
        let bytes = self.text.as_bytes();
        self.copy(start);
        let next = skip_space(bytes, end);
        if bytes.get(next) == Some(&b',') {
            self.copied = skip_space(bytes, next + 1);
            return (self.copied, true);
        }
        self.copied = end;
        let kept = self.out.trim_end_matches([' ', '\n', '\r', '\t']);
        if let Some(kept) = kept.strip_suffix(',') {
            self.out.truncate(kept.len());
        }
        (end, false)
    }

    /// The keys that lead to the current place, including those of the documents that surround this one.
    fn keys(&self) -> Vec<String> {
        let own = self.open.iter().flatten().filter(|key| !key.is_empty());
        let own = own.map(|key| unquote(&self.text[key.clone()]).into_owned());
        self.around.keys.iter().cloned().chain(own).collect()
    }

    /// Appends what a method leaves of a member's value.
    fn replace(&mut self, rule: &MethodRule, value: Range<usize>) -> Result<(), Missing> {
        let value = &self.text[value];
        let text = unquote(value);
        let left = self.policy.member(self.at, rule, &self.keys(), Some(&*text).filter(|_| value != "null"))?;
        self.out.push_str(&left.map_or_else(|| "null".to_owned(), |left| json_text(&left)));
        Ok(())
    }

    /// Replaces what is protected in a string, which may be a document itself.
    fn string(&mut self, range: Range<usize>) -> Result<(), Missing> {
        let text = unquote(&self.text[range.clone()]);
        let document = super::may_be_document(&text);
        let left = match document {
            true => {
                let keys = self.keys();
                let around = Around { keys: &keys, depth: self.around.depth + 1 };
                self.policy.left_of(self.at, self.inside, Form::Text, &text, around)?
            }
            false => self.policy.left_of_text(self.at, &self.inside.content, &text)?,
        };
        if let Some(left) = left {
            self.put(range, &left);
        }
        Ok(())
    }

    /// Replaces content in a number.
    fn number(&mut self, range: Range<usize>) -> Result<(), Missing> {
        let left = self.policy.left_of_text(self.at, &self.inside.content, &self.text[range.clone()])?;
        if let Some(left) = left {
            self.put(range, &left);
        }
        Ok(())
    }
}
