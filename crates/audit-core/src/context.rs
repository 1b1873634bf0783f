//! Who made a change, and why, as the application said it: in a transactional logical message of its transaction.
//!
//! Three kinds of messages are understood ([`Contexts::read`]): our own, with the prefix [`CONTEXT_PREFIX`], and those
//! of two other tools. Anyone who may write may also emit a message. So only one is believed to tell the truth about
//! its session: that of `cdc_audit.set_context`, which ends in a signature over the transaction's id and the text. A
//! copy of it in another transaction counts as an ordinary message.

pub(crate) mod fields;
mod signature;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::position::Lsn;

pub use signature::ContextKey;

use fields::Fields;

/// The prefix of the logical message that carries a transaction's context.
pub const CONTEXT_PREFIX: &str = "cdc-audit";

/// Largest size of a stored context in bytes; it is stored with every change of its transaction. A larger one is cut to
/// members that fit, and says `truncated`. `cdc_audit.set_context` does the same before it signs.
pub const BYTES_MAX: usize = 16 << 10;

/// The prefixes of all messages that are understood.
pub const PREFIXES: [&str; 4] = [CONTEXT_PREFIX, BEMI_PREFIX, SEQUIN_SET_PREFIX, SEQUIN_CLEAR_PREFIX];

const BEMI_PREFIX: &str = "_bemi";
const SEQUIN_SET_PREFIX: &str = "sequin:transaction_annotations.set";
const SEQUIN_CLEAR_PREFIX: &str = "sequin:transaction_annotations.clear";

/// The context of the changes that follow its message in the transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// The whole message, a JSON object, without its signature.
    pub json: String,
    pub actor_id: Option<String>,
    /// The actor as a JSON text: id, name, e-mail and role at that time.
    pub actor: Option<String>,
    pub reason: Option<String>,
    /// Whether it came through `cdc_audit.set_context`; `None` if it came from no application.
    pub verified: Option<bool>,
    /// The field from which another tool's message was given its `actor_id`. Both hold the same value, so protection of
    /// one of the two applies to both.
    pub actor_field: Option<&'static str>,
    /// What a version under this context should have said but does not.
    pub missing: Missing,
}

/// What the configuration requires of a version and nobody provided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    pub actor: bool,
    pub reason: bool,
}

impl Missing {
    pub fn is_nothing(self) -> bool {
        self == Missing::default()
    }

    fn names(self) -> &'static str {
        match (self.actor, self.reason) {
            (true, true) => r#""actor", "reason""#,
            (true, false) => r#""actor""#,
            (false, true) => r#""reason""#,
            (false, false) => "",
        }
    }
}

/// Another tool's way to say who changes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Convention {
    /// Messages with the prefix `_bemi`, a JSON object each.
    Bemi,
    /// Messages `sequin:transaction_annotations.set` and `sequin:transaction_annotations.clear`.
    Sequin,
}

impl Context {
    /// Reads a message's content. `None` for an empty object or an empty text, which clears the context. Anything but a
    /// JSON object is kept as `{"text": …}`: whatever the application sent is never a reason to lose a change. A
    /// content that is too large is cut.
    pub fn parse(content: &[u8]) -> Option<Context> {
        match content.len() > BYTES_MAX {
            true => Context::of(&fields::cut(content, BYTES_MAX)),
            false => Context::of(&String::from_utf8_lossy(content)),
        }
    }

    /// Does the same for a text of any length.
    pub(crate) fn of(text: &str) -> Option<Context> {
        // PostgreSQL's jsonb cannot hold a NUL character, so a sink would refuse it.
        let text = text.replace('\0', "\u{fffd}");
        let text = fields::without_reserved(&text).unwrap_or(text);
        let context = match fields::of(&text) {
            Some(fields) if fields.is_empty => return None,
            Some(Fields { actor_id, actor, reason, .. }) => {
                Context { json: text.trim().to_string(), actor_id, actor, reason, ..Context::default() }
            }
            None if text.trim().is_empty() => return None,
            None => Context { json: serde_json::json!({ "text": text }).to_string(), ..Context::default() },
        };
        Some(Context { verified: Some(false), ..context })
    }

    /// The context of a `gap` or `error` record.
    pub fn note(value: &serde_json::Value) -> Context {
        Context { json: value.to_string(), ..Context::default() }
    }

    /// The same context, with what it lacks under `missing`. A `context` of `None` means that nothing was said at all.
    pub fn flagged(context: Option<&Context>, missing: Missing) -> Context {
        let mut flagged = context.cloned().unwrap_or_default();
        flagged.missing = missing;
        let names = missing.names();
        // Protection may have removed all fields.
        flagged.json = match flagged.json.strip_suffix('}').filter(|fields| fields.trim_end() != "{") {
            Some(fields) => format!(r#"{fields}, "missing": [{names}]}}"#),
            None => format!(r#"{{"missing": [{names}]}}"#),
        };
        flagged
    }
}

/// The meaning of a logical message.
#[derive(Debug, PartialEq, Eq)]
pub enum Said {
    /// The message is of no kind that is understood.
    Nothing,
    /// The context from here on; `None` clears it.
    Context(Option<Context>),
    /// The message is signed with a key that was made after [`Contexts::keys`] were read.
    UnknownKey,
}

/// The keys of `cdc_audit.set_context` that are known.
#[derive(Clone, Debug, Default)]
pub struct ContextKeys {
    /// Also those that were rotated out.
    pub keys: Vec<ContextKey>,
    /// Anyone who wrote a message before this LSN could see only these keys: a signature under any other key is forged.
    pub as_of: Lsn,
}

/// So many keys are valid: the newest ones.
const VALID: u32 = 3;

/// Who wrote a text, as far as its seal tells. Who is known best comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Author {
    /// A daemon of this source, under a valid key.
    Own,
    /// The same under a key that was rotated out, which others may have by now; or there are no keys, and nothing is sealed.
    Unsure,
    /// Nobody who had a key of this source.
    Foreign,
}

/// Reads messages, with the keys of `cdc_audit.set_context`.
#[derive(Debug, Default)]
pub struct Contexts {
    conventions: Vec<Convention>,
    known: ContextKeys,
}

impl Contexts {
    pub fn new(conventions: Vec<Convention>, known: ContextKeys) -> Contexts {
        Contexts { conventions, known }
    }

    /// Replaces the known keys with the current ones.
    pub fn keys(&mut self, known: ContextKeys) {
        self.known = known;
    }

    /// Proves later, to a daemon of the same source, that one wrote `text`: see [`Author`]. `None` without a key.
    pub fn seal(&self, text: &str) -> Option<String> {
        self.known.keys.iter().max_by_key(|key| key.id()).map(|key| key.seal(text))
    }

    pub fn author(&self, text: &str, seal: Option<&str>) -> Author {
        let sealed = |key: &&ContextKey| seal.is_some_and(|seal| key.sealed(text, seal));
        match self.known.keys.iter().find(sealed) {
            Some(key) if self.is_valid(key) => Author::Own,
            None if !self.known.keys.is_empty() => Author::Foreign,
            _ => Author::Unsure,
        }
    }

    fn is_valid(&self, key: &ContextKey) -> bool {
        let newest = self.known.keys.iter().map(ContextKey::id).max().unwrap_or_default();
        newest - key.id() < VALID
    }

    /// `xid` is the id of the message's transaction, `lsn` the message's own position.
    pub fn read(&self, prefix: &str, content: &[u8], xid: u32, lsn: Lsn) -> Said {
        let understood = |convention| self.conventions.contains(&convention);
        match prefix {
            CONTEXT_PREFIX => self.own(content, xid, lsn),
            BEMI_PREFIX if understood(Convention::Bemi) => self.foreign(content),
            SEQUIN_SET_PREFIX if understood(Convention::Sequin) => self.foreign(content),
            SEQUIN_CLEAR_PREFIX if understood(Convention::Sequin) => Said::Context(None),
            _ => Said::Nothing,
        }
    }

    fn own(&self, content: &[u8], xid: u32, lsn: Lsn) -> Said {
        let Some(signed) = signature::split(content) else { return Said::Context(Context::parse(content)) };
        let ContextKeys { keys, as_of } = &self.known;
        let key = keys.iter().find(|key| key.id() == signed.key);
        let newest = keys.iter().map(ContextKey::id).max();
        if key.is_none() && lsn >= *as_of && newest.is_some_and(|newest| signed.key > newest) {
            return Said::UnknownKey;
        }
        let verified = key.is_some_and(|key| self.is_valid(key) && key.verifies(&signed, xid));
        Said::Context(Context::parse(&signed.text).map(|context| Context { verified: Some(verified), ..context }))
    }

    /// Reads the message when no newer key can be fetched.
    pub fn unverified(&self, content: &[u8]) -> Option<Context> {
        match signature::split(content) {
            Some(signed) => Context::parse(&signed.text),
            None => Context::parse(content),
        }
    }

    /// Other tools name the actor differently, and one of them sends the statement, including its values.
    fn foreign(&self, content: &[u8]) -> Said {
        // It may be the statement that makes the content too large, also if only its beginning arrived.
        let whole = serde_json::from_slice::<&serde_json::value::RawValue>(content).is_ok();
        let cut = (content.len() > BYTES_MAX && !whole).then(|| fields::cut(content, BYTES_MAX));
        let content = cut.as_deref().map_or(content, str::as_bytes);
        let (text, actor_field) = fields::foreign(content);
        let context = Context::parse(text.as_deref().map_or(content, str::as_bytes));
        Said::Context(context.map(|context| Context { actor_field, ..context }))
    }
}

#[cfg(test)]
mod tests;
