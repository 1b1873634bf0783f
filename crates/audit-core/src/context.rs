//! Who made a change, and why, as the application said it.

use serde_json::value::RawValue;

/// The prefix of the logical message that carries a transaction's context.
pub const CONTEXT_PREFIX: &str = "cdc-audit";

/// The context of the changes that follow it in its transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// The whole message, a JSON text.
    pub json: String,
    pub actor_id: Option<String>,
    /// A JSON text: id, name, e-mail, role as of then.
    pub actor: Option<String>,
    pub reason: Option<String>,
}

#[derive(serde::Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    actor_id: Option<&'a RawValue>,
    #[serde(borrow)]
    actor: Option<&'a RawValue>,
    #[serde(borrow)]
    reason: Option<&'a RawValue>,
}

impl Context {
    /// Reads a message's content. `None` for an empty object or empty text, which clears the context. What is not a JSON object is
    /// kept as `{"text": …}`: whatever the application sent is never a reason to lose a change.
    pub fn parse(content: &[u8]) -> Option<Context> {
        // PostgreSQL's jsonb knows no NUL character, which a sink would refuse.
        let text = String::from_utf8_lossy(content).replace('\0', "\u{fffd}");
        let Ok(fields) = serde_json::from_str::<Fields>(&text) else {
            return (!text.trim().is_empty()).then(|| Context::of_text(&text));
        };
        let actor = fields.actor.map(|raw| raw.get().to_string()).filter(|json| json != "null");
        let context = Context {
            actor_id: fields.actor_id.and_then(plain),
            actor,
            reason: fields.reason.and_then(plain),
            json: text.trim().to_string(),
        };
        let empty =
            serde_json::from_str::<serde_json::Map<_, serde_json::Value>>(&context.json).is_ok_and(|m| m.is_empty());
        (!empty).then_some(context)
    }

    fn of_text(text: &str) -> Context {
        Context { json: serde_json::json!({ "text": text }).to_string(), ..Context::default() }
    }

    /// What a `gap` or `error` record says about itself.
    pub fn note(value: &serde_json::Value) -> Context {
        Context { json: value.to_string(), ..Context::default() }
    }
}

/// A string as it is, a number or anything else as its JSON text, null as nothing.
fn plain(raw: &RawValue) -> Option<String> {
    match serde_json::from_str::<serde_json::Value>(raw.get()).ok()? {
        serde_json::Value::Null => None,
        serde_json::Value::String(text) => Some(text),
        _ => Some(raw.get().to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_taken_out_and_the_rest_is_kept() {
        let context =
            Context::parse(br#"{"actor_id": 7, "actor": {"name": "Ann"}, "reason": "fix", "ticket": 12}"#).unwrap();
        assert_eq!(context.actor_id.as_deref(), Some("7"));
        assert_eq!(context.actor.as_deref(), Some(r#"{"name": "Ann"}"#));
        assert_eq!(context.reason.as_deref(), Some("fix"));
        assert!(context.json.contains("ticket"));
    }

    #[test]
    fn odd_content_never_fails() {
        assert_eq!(Context::parse(b""), None);
        assert_eq!(Context::parse(b"{}"), None);
        assert_eq!(Context::parse(b"hello").unwrap().json, r#"{"text":"hello"}"#);
        assert_eq!(Context::parse(b"[1]").unwrap().json, r#"{"text":"[1]"}"#);
        assert!(Context::parse(b"\xff\x00").is_some());
    }
}
