//! Checks a document against the schema of its type and finds everything that does not fit in one walk.

use toml::de::{DeTable, DeValue};

use crate::document::{Value, integer};
use crate::node::{Key, Node, Shape, Variant};
use crate::problems::{Problems, join, quote};
use crate::units::{ByteSize, Span, UnitError};

/// Pushes a problem for each value of `value` that `node` does not allow.
pub(crate) fn check(node: &Node<'_>, value: &Value<'_>, path: &str, problems: &mut Problems) {
    match (node.shape(), value.get_ref()) {
        (Shape::Any, _) | (Shape::Text, DeValue::String(_)) | (Shape::Bool, DeValue::Boolean(_)) => {}
        (Shape::Number, DeValue::Float(_) | DeValue::Integer(_)) => {}
        (Shape::Size, DeValue::String(text)) => unit(text.parse::<ByteSize>(), path, problems),
        (Shape::Span, DeValue::String(text)) => unit(text.parse::<Span>(), path, problems),
        (Shape::Integer | Shape::Size, DeValue::Integer(digits)) => range(node, integer(digits), path, problems),
        (Shape::Words(words), DeValue::String(text)) => word(&words, text, path, problems),
        (Shape::List(items), DeValue::Array(list)) => {
            for (index, value) in list.iter().enumerate() {
                check(&items, value, &format!("{path}[{index}]"), problems);
            }
        }
        (Shape::Table, DeValue::Table(table)) => match node.variants() {
            Some(variants) => variant(&variants, table, path, problems),
            None => keys(node, table, path, problems),
        },
        (Shape::OneKey(keys), DeValue::Table(table)) => one_key(&keys, table, path, problems),
        (Shape::Either(nodes), _) => either(nodes, value, path, problems),
        (shape, _) => mismatch(&shape, value, path, problems),
    }
}

fn keys(node: &Node<'_>, table: &DeTable<'_>, path: &str, problems: &mut Problems) {
    let keys = node.keys();
    let rest = node.values();
    let names: Vec<_> = keys.iter().map(|key| key.name).collect();
    let mut meant = Vec::new();
    for (name, value) in table {
        let name = name.get_ref().as_ref();
        let path = join(path, &quote(name));
        let key = keys.iter().find(|key| key.name == name).map(|key| &key.node);
        match key.or(rest.as_ref()) {
            Some(node) => check(node, value, &path, problems),
            None => {
                let free = names.iter().copied().filter(|name| !table.contains_key(*name)).collect::<Vec<_>>();
                meant.extend(nearest(name, &free));
                problems.push(&path, "unknown key", hint(name, &free, &names).as_deref());
            }
        }
    }
    let missing = |key: &&Key<'_>| key.required && !table.contains_key(key.name) && !meant.contains(&key.name);
    for key in keys.iter().filter(missing) {
        problems.push(&join(path, &quote(key.name)), "missing", summary(key).as_deref());
    }
}

/// Returns the hint for a missing key: the first sentence of its documentation.
fn summary(key: &Key<'_>) -> Option<String> {
    let paragraph = key.node.doc?.split("\n\n").next()?.replace('\n', " ");
    let end = paragraph.find(". ").map_or(paragraph.len(), |end| end + 1);
    Some(paragraph[..end].to_owned())
}

fn variant(variants: &[Variant<'_>], table: &DeTable<'_>, path: &str, problems: &mut Problems) {
    let Some(tag) = variants.first().map(|variant| variant.tag) else { return };
    let words: Vec<_> = variants.iter().map(|variant| (variant.word, None)).collect();
    let place = join(path, tag);
    match table.get(tag) {
        None => problems.push(&place, "missing", one_of(&names(&words)).as_str()),
        Some(value) => match value.get_ref() {
            DeValue::String(text) => match variants.iter().find(|variant| variant.word == text) {
                Some(variant) => keys(&variant.node, table, path, problems),
                None => word(&words, text, &place, problems),
            },
            _ => mismatch(&Shape::Words(words), value, &place, problems),
        },
    }
}

fn one_key(keys: &[Key<'_>], table: &DeTable<'_>, path: &str, problems: &mut Problems) {
    let names: Vec<_> = keys.iter().map(|key| key.name).collect();
    for (name, value) in table {
        let name = name.get_ref().as_ref();
        let path = join(path, &quote(name));
        match keys.iter().find(|key| key.name == name) {
            Some(key) => check(&key.node, value, &path, problems),
            None => problems.push(&path, "unknown key", hint(name, &names, &names).as_deref()),
        }
    }
    if table.len() != 1 {
        problems.push(path, format!("expected exactly {}", one_of(&names)), None);
    }
}

/// Reports the problems of the alternative that the value fits best.
fn either(nodes: Vec<Node<'_>>, value: &Value<'_>, path: &str, problems: &mut Problems) {
    let fitting = nodes.iter().filter(|node| fits(&node.shape(), value.get_ref()));
    let attempts = fitting.map(|node| {
        let mut attempt = problems.fresh();
        check(node, value, path, &mut attempt);
        attempt
    });
    match attempts.min_by_key(Problems::len) {
        Some(attempt) => problems.append(attempt),
        None => mismatch(&Shape::Either(nodes), value, path, problems),
    }
}

fn word(words: &[(&str, Option<&str>)], text: &str, path: &str, problems: &mut Problems) {
    let names = names(words);
    if !names.contains(&text) {
        problems.push(path, "unknown value", hint(text, &names, &names).as_deref());
    }
}

fn unit<T>(parsed: Result<T, UnitError>, path: &str, problems: &mut Problems) {
    if let Err(error) = parsed {
        let message = error.to_string();
        let (message, hint) = message.split_once(": ").map_or((message.as_str(), None), |(m, h)| (m, Some(h)));
        problems.push(path, message, hint);
    }
}

fn range(node: &Node<'_>, number: Option<i128>, path: &str, problems: &mut Problems) {
    let (low, high) = node.range;
    let Some(number) = number else {
        return problems.push(path, "too large", None);
    };
    if low.is_some_and(|low| number < low) || high.is_some_and(|high| number > high) {
        let low = low.map(|low| format!("from {low}"));
        let high = high.map(|high| format!("to {high}"));
        let range = low.into_iter().chain(high).collect::<Vec<_>>().join(" ");
        problems.push(path, format!("out of range, expected a number {range}"), None);
    }
}

fn mismatch(shape: &Shape<'_>, value: &Value<'_>, path: &str, problems: &mut Problems) {
    let found = match value.get_ref() {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time without quotes",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    };
    problems.push(path, format!("expected {}, found {found}", describe(shape)), None);
}

fn fits(shape: &Shape<'_>, value: &DeValue<'_>) -> bool {
    match shape {
        Shape::Any => true,
        Shape::Text | Shape::Span | Shape::Words(_) => value.is_str(),
        Shape::Bool => value.is_bool(),
        Shape::Integer => value.is_integer(),
        Shape::Number => value.is_float() || value.is_integer(),
        Shape::Size => value.is_str() || value.is_integer(),
        Shape::List(_) => value.is_array(),
        Shape::Table | Shape::OneKey(_) => value.is_table(),
        Shape::Either(nodes) => nodes.iter().any(|node| fits(&node.shape(), value)),
    }
}

fn describe(shape: &Shape<'_>) -> String {
    match shape {
        Shape::Any => "anything".to_owned(),
        Shape::Text => "a string".to_owned(),
        Shape::Bool => "true or false".to_owned(),
        Shape::Integer => "an integer".to_owned(),
        Shape::Number => "a number".to_owned(),
        Shape::Size => "a size such as \"16 MiB\"".to_owned(),
        Shape::Span => "a duration such as \"5 s\"".to_owned(),
        Shape::Words(words) => one_of(&names(words)),
        Shape::List(_) => "a list".to_owned(),
        Shape::Table => "a table".to_owned(),
        Shape::OneKey(keys) => {
            format!("a table with {}", one_of(&keys.iter().map(|key| key.name).collect::<Vec<_>>()))
        }
        Shape::Either(nodes) => nodes.iter().map(|node| describe(&node.shape())).collect::<Vec<_>>().join(" or "),
    }
}

fn names<'a>(words: &[(&'a str, Option<&str>)]) -> Vec<&'a str> {
    words.iter().map(|(word, _)| *word).collect()
}

fn one_of(names: &[&str]) -> String {
    match names {
        [only] => format!("`{only}`"),
        _ => format!("one of `{}`", names.join("`, `")),
    }
}

/// Suggests the name that was probably meant (one of those in `free`), or else lists the known names.
fn hint(name: &str, free: &[&str], names: &[&str]) -> Option<String> {
    match nearest(name, free) {
        Some(near) => Some(format!("did you mean `{near}`?")),
        None if names.is_empty() => None,
        None => Some(format!("known here: `{}`", names.join("`, `"))),
    }
}

/// Returns the one of `names` that was probably meant, if one is similar enough.
pub fn nearest<'a>(name: &str, names: &[&'a str]) -> Option<&'a str> {
    let likeness = |known: &&'a str| (strsim::jaro_winkler(&name.to_lowercase(), known), *known);
    let best = names.iter().map(likeness).max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 > 0.8).then_some(best.1)
}
