//! Writes the documented default configuration from the types: [`reference`].

use std::fmt::Write;

use schemars::JsonSchema;
use serde_json::{Map, Value as Json};

use crate::node::{Key, Node, Shape};
use crate::problems::{join, quote};

const COLUMNS: usize = 100;

/// Writes the `config.toml` that names every key of `T`, with its documentation and default.
///
/// - A key with a default is written as `# key = default`: removing the comment mark changes nothing.
/// - A required key is written uncommented with its example (`#[schemars(example = …)]`), so that the text is itself a
///   configuration that loads. Without an example it gets an empty value of its kind.
/// - An optional key without default, or with an empty one, is written as `# key = example`, with a note that says so.
/// - A table is a section. Its header is commented out if its presence would change something.
/// - A map of tables has one section, or one for each value of the tag (`[sinks.lake]` with `type = "lake"`), of
///   which only the first is uncommented.
pub fn reference<T: JsonSchema>() -> String {
    let schema = schemars::schema_for!(T).to_value();
    let root = Node::root(&schema);
    let mut text = String::new();
    if let Some(doc) = root.doc {
        write_doc(&mut text, doc);
        text.push('\n');
    }
    let mut out = Writer { text, depth: 0 };
    out.body(&root, "", None, true);
    let text = out.text.trim_end();
    format!("{text}\n")
}

/// The header of a table: its path, its brackets, and whether it is uncommented.
#[derive(Clone, Copy)]
struct Section<'s> {
    path: &'s str,
    brackets: (&'s str, &'s str),
    live: bool,
}

struct Writer {
    text: String,
    /// Depth of nested sections. It is limited so that a type that contains itself ends.
    depth: usize,
}

impl Writer {
    /// Writes the keys of a table: first those of one line, then those that are sections. `fallback` is the table's
    /// value if it is left out as a whole.
    fn body(&mut self, node: &Node<'_>, path: &str, fallback: Option<&Json>, live: bool) {
        let keys = node.keys();
        let (sections, lines): (Vec<_>, Vec<_>) = keys.iter().partition(|key| is_section(&key.node));
        for key in lines {
            let fallback = fallback.and_then(|table| table.get(key.name));
            self.line(key, fallback, live);
        }
        for key in sections {
            let fallback = fallback.and_then(|table| table.get(key.name));
            self.key_section(key, &join(path, &quote(key.name)), fallback, live);
        }
    }

    fn line(&mut self, key: &Key<'_>, fallback: Option<&Json>, live: bool) {
        if let Some(doc) = key.node.doc {
            write_doc(&mut self.text, doc);
        }
        write_choices(&mut self.text, &key.node);
        let default = key.node.default.or(fallback).filter(|value| !value.is_null());
        let empty = default.is_some_and(is_empty) && key.node.example.is_some();
        let value = default.filter(|_| !empty).cloned().unwrap_or_else(|| example(&key.node));
        let note = match (key.required, default) {
            (true, _) => " # required",
            (false, None) => " # an example; not set by default",
            (false, Some(_)) if empty => " # an example; empty by default",
            (false, Some(_)) => "",
        };
        let mark = if key.required && live { "" } else { "# " };
        let _ = writeln!(self.text, "{mark}{} = {}{note}\n", quote(key.name), toml_literal(&value));
    }

    fn key_section(&mut self, key: &Key<'_>, path: &str, fallback: Option<&Json>, live: bool) {
        let default = key.node.default.or(fallback).filter(|value| !value.is_null());
        let plain = Section { path, brackets: ("[", "]"), live: live && key.required };
        match key.node.shape() {
            Shape::List(mut item) => {
                item.doc = key.node.doc.or(item.doc);
                self.sections(&item, Section { brackets: ("[[", "]]"), ..plain }, None);
            }
            _ => match key.node.values().filter(|_| key.node.keys().is_empty()) {
                Some(value) => {
                    self.heading(&key.node);
                    self.map(&value, plain);
                }
                None => {
                    // An empty table means the same as none if every key has a default.
                    let harmless = default.is_some() && key.node.variants().is_none() && optional(&key.node);
                    self.sections(&key.node, Section { live: live && (key.required || harmless), ..plain }, default);
                }
            },
        }
    }

    /// Writes the tables of a map. The user chooses their names; here a table is named after its variant.
    fn map(&mut self, value: &Node<'_>, section: Section<'_>) {
        let Some(variants) = value.variants() else {
            return self.sections(value, Section { path: &join(section.path, "name"), ..section }, None);
        };
        for (index, variant) in variants.iter().enumerate() {
            let path = join(section.path, &quote(variant.word));
            self.section(&variant.node, Section { path: &path, live: section.live && index == 0, ..section }, None);
        }
    }

    /// Writes the documentation that several sections in a row share.
    fn heading(&mut self, node: &Node<'_>) {
        if let Some(doc) = node.doc {
            write_doc(&mut self.text, doc);
            self.text.push('\n');
        }
    }

    /// Writes the table once, or once for each of its variants.
    fn sections(&mut self, node: &Node<'_>, section: Section<'_>, fallback: Option<&Json>) {
        let Some(variants) = node.variants() else {
            return self.section(node, section, fallback);
        };
        self.heading(node);
        for (index, variant) in variants.iter().enumerate() {
            self.section(&variant.node, Section { live: section.live && index == 0, ..section }, fallback);
        }
    }

    fn section(&mut self, node: &Node<'_>, section: Section<'_>, fallback: Option<&Json>) {
        let Section { path, brackets: (open, close), live } = section;
        if self.depth == 8 {
            return;
        }
        self.depth += 1;
        if let Some(doc) = node.doc {
            write_doc(&mut self.text, doc);
        }
        let mark = if live { "" } else { "# " };
        let _ = writeln!(self.text, "{mark}{open}{path}{close}");
        self.body(node, path, fallback, live);
        self.depth -= 1;
    }
}

/// Tells whether a key is written as a section of its own, rather than on one line.
fn is_section(node: &Node<'_>) -> bool {
    match node.shape() {
        Shape::Table => {
            let of_tables = node.values().is_some_and(|value| matches!(value.shape(), Shape::Table));
            of_tables || node.variants().is_some() || !node.keys().is_empty()
        }
        Shape::List(item) => matches!(item.shape(), Shape::Table),
        _ => false,
    }
}

/// Tells whether no key of the table is required.
fn optional(node: &Node<'_>) -> bool {
    node.keys().iter().all(|key| !key.required)
}

/// Returns the documented example, or else the simplest value of the kind.
fn example(node: &Node<'_>) -> Json {
    if let Some(example) = node.example {
        return example.clone();
    }
    match node.shape() {
        Shape::Any | Shape::Text => "".into(),
        Shape::Bool => false.into(),
        Shape::Integer | Shape::Number => 0.max(node.range.0.unwrap_or(0) as i64).into(),
        Shape::Size => "1 MiB".into(),
        Shape::Span => "1 s".into(),
        Shape::Words(words) => words.first().map(|(word, _)| *word).into(),
        Shape::List(_) => Json::Array(Vec::new()),
        Shape::Table => Json::Object(Map::new()),
        Shape::OneKey(keys) => keys.first().map(one_key).into(),
        Shape::Either(nodes) => nodes.first().map(example).into(),
    }
}

fn one_key(key: &Key<'_>) -> Json {
    Json::Object(Map::from_iter([(key.name.to_owned(), example(&key.node))]))
}

fn is_empty(value: &Json) -> bool {
    value.as_array().is_some_and(Vec::is_empty) || value.as_object().is_some_and(Map::is_empty)
}

fn toml_literal(value: &Json) -> String {
    toml::Value::try_from(value).map_or_else(|_| String::from("\"\""), |value| value.to_string())
}

/// Writes comment lines of at most [`COLUMNS`] columns. Paragraphs and list items of the doc comment stay separate.
fn write_doc(text: &mut String, doc: &str) {
    let mut line = String::from("#");
    for source in doc.lines() {
        let starts_anew = source.trim().is_empty() || source.trim_start().starts_with("- ");
        if starts_anew && line != "#" {
            let _ = writeln!(text, "{line}");
            line.truncate(1);
        }
        if source.trim().is_empty() {
            text.push_str("#\n");
        }
        for word in source.split_whitespace() {
            if line.chars().count() + 1 + word.chars().count() > COLUMNS {
                let _ = writeln!(text, "{line}");
                line.truncate(1);
            }
            line.push(' ');
            line.push_str(word);
        }
    }
    let _ = writeln!(text, "{line}");
}

/// Writes the values that a key may have, with their meaning, if there are only a few.
fn write_choices(text: &mut String, node: &Node<'_>) {
    let choices: Vec<_> = match node.shape() {
        Shape::Words(words) => words.iter().map(|(word, doc)| (toml_literal(&(*word).into()), *doc)).collect(),
        Shape::OneKey(keys) => keys.into_iter().map(|key| (toml_literal(&one_key(&key)), key.node.doc)).collect(),
        _ => return,
    };
    if choices.len() < 2 {
        return;
    }
    if choices.iter().all(|(_, doc)| doc.is_none() || *doc == node.doc) {
        let literals: Vec<_> = choices.into_iter().map(|(literal, _)| literal).collect();
        return write_doc(text, &format!("One of {}.", literals.join(", ")));
    }
    for (literal, doc) in choices {
        write_doc(text, &format!("- {literal}: {}", doc.unwrap_or_default()));
    }
}
