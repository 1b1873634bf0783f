//! Finding and renaming the fields of a context. Numbers and nested values keep their text.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

pub struct Fields {
    pub actor_id: Option<String>,
    pub actor: Option<String>,
    pub reason: Option<String>,
    pub is_empty: bool,
}

type Object<'a> = BTreeMap<String, &'a RawValue>;

/// Returns `None` if the text is not a JSON object.
pub fn of(text: &str) -> Option<Fields> {
    let object: Object<'_> = serde_json::from_str(text).ok()?;
    let get = |name: &str| object.get(name).copied();
    Some(Fields {
        actor_id: get("actor_id").and_then(plain),
        actor: get("actor").map(|raw| raw.get().to_string()).filter(|json| json != "null"),
        reason: get("reason").and_then(plain),
        is_empty: object.is_empty(),
    })
}

/// A string as it is, a number or anything else as its JSON text, and `None` for null.
fn plain(raw: &RawValue) -> Option<String> {
    match serde_json::from_str::<serde_json::Value>(raw.get()).ok()? {
        serde_json::Value::Null => None,
        serde_json::Value::String(text) => Some(text),
        _ => Some(raw.get().to_string()),
    }
}

/// The field in which this program says what is missing; no application may set it.
const RESERVED: &str = "missing";

/// The text without the reserved field; `None` if it has none, as almost always.
pub fn without_reserved(text: &str) -> Option<String> {
    if !text.contains(RESERVED) {
        return None;
    }
    let mut object: Object<'_> = serde_json::from_str(text).ok()?;
    object.remove(RESERVED)?;
    serde_json::to_string(&object).ok()
}

/// The fields that are kept first when a context is cut.
const FIRST: [&str; 7] = ["actor_id", "user_id", "userId", "user", "actor", "reason", "request_id"];

/// Number of characters that are kept of a text when it is cut.
const TEXT_MAX: usize = 512;

/// What is kept of a content that is larger than `max` or whose end is missing: a JSON object of at most `max` bytes
/// that says `truncated`, with those fields that are complete and fit.
pub fn cut(content: &[u8], max: usize) -> String {
    const TRUNCATED: &str = r#""truncated": true}"#;
    let text = String::from_utf8_lossy(content);
    let Some(mut fields) = leading(&text) else {
        let beginning: String = text.chars().take(TEXT_MAX).collect();
        return serde_json::json!({ "text": beginning, "truncated": true }).to_string();
    };
    let rank = |name: &str| FIRST.iter().position(|first| *first == name).unwrap_or(FIRST.len());
    fields.sort_by_key(|(name, value)| (rank(name), value.len()));
    let mut json = "{".to_string();
    for (name, value) in fields.iter().filter(|(name, _)| name != "truncated") {
        let field = format!("{}: {value}, ", serde_json::Value::from(name.as_str()));
        if json.len() + field.len() + TRUNCATED.len() <= max {
            json.push_str(&field);
        }
    }
    json + TRUNCATED
}

/// The fields that a JSON object begins with, each with its JSON text; a last, incomplete one is left out with all that
/// follows it. Returns `None` if the text is not an object.
fn leading(text: &str) -> Option<Vec<(String, &str)>> {
    let mut rest = text.trim_start().strip_prefix('{')?;
    let mut fields = Vec::new();
    while let Some((name, after)) = first::<String>(rest) {
        let Some(after) = after.trim_start().strip_prefix(':') else { break };
        let Some((value, after)) = first::<&RawValue>(after) else { break };
        // A number may continue after the place where the text was cut.
        let Some(after) = after.trim_start().strip_prefix([',', '}']) else { break };
        fields.push((name, value.get()));
        rest = after;
    }
    Some(fields)
}

/// The JSON value at the beginning of a text, and the text after it.
fn first<'t, T: serde::Deserialize<'t>>(text: &'t str) -> Option<(T, &'t str)> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<T>();
    let value = values.next()?.ok()?;
    Some((value, &text[values.byte_offset()..]))
}

/// The names that other tools give to the actor; the first one that is present counts.
const ACTORS: [&str; 3] = ["user_id", "userId", "user"];

/// A field of Bemi that holds the whole statement, including the values in it.
const STATEMENT: &str = "SQL";

const ACTOR_ID: &str = "actor_id";

/// Another tool's content with our field names (`None` if nothing has to change), and the field that the actor's id was
/// taken from.
pub fn foreign(content: &[u8]) -> (Option<String>, Option<&'static str>) {
    let Ok(mut object) = serde_json::from_slice::<Object<'_>>(content) else { return (None, None) };
    let dropped = object.remove(STATEMENT).is_some();
    let actor = match object.contains_key(ACTOR_ID) {
        true => None,
        false => ACTORS.iter().find_map(|name| Some((*name, object.get(*name).copied()?))),
    };
    let actor = actor.filter(|(_, raw)| !raw.get().starts_with('{'));
    if let Some((_, raw)) = actor {
        object.insert(ACTOR_ID.to_string(), raw);
    }
    let altered = dropped || actor.is_some();
    (altered.then(|| serde_json::to_string(&object).ok()).flatten(), actor.map(|(name, _)| name))
}

/// Repairs a message in which `actor_id` is a copy of `field`. `left` is what protection left of it: if only one of the
/// two fields was protected, the other gets the protected value as well. Returns `None` if nothing has to change.
pub fn alike(raw: &str, left: &str, field: &str) -> Option<String> {
    let raw: Object<'_> = serde_json::from_str(raw).ok()?;
    let mut object: Object<'_> = serde_json::from_str(left).ok()?;
    let kept = |name: &str| {
        let text = |value: Option<&&RawValue>| value.map(|value| value.get().to_owned());
        text(raw.get(name)) == text(object.get(name))
    };
    let (from, to) = match (kept(field), kept(ACTOR_ID)) {
        (false, true) => (field, ACTOR_ID),
        (true, false) => (ACTOR_ID, field),
        _ => return None,
    };
    match object.get(from).copied() {
        Some(value) => object.insert(to.to_string(), value),
        None => object.remove(to),
    };
    serde_json::to_string(&object).ok()
}
