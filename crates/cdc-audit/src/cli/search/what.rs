//! How one version is shown in a line.

use audit_core::position::Micros;
use audit_core::stored::Record;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::value::RawValue;

use crate::actors::Actors;

/// Columns that are shown of a version.
const COLUMNS_MAX: usize = 4;
/// Characters that are shown of a value.
const VALUE_MAX: usize = 40;

/// `2026-01-15 13:30:00`, in the zone.
pub fn time(at: Micros, zone: &TimeZone) -> String {
    match Timestamp::from_microsecond(at.0) {
        Ok(timestamp) => zone.to_datetime(timestamp).strftime("%Y-%m-%d %H:%M:%S").to_string(),
        Err(_) => at.to_string(),
    }
}

/// The actor: its id and its name, if it has one. A question mark follows where nobody verified it.
pub fn actor(record: &Record, actors: &Actors<'_>) -> String {
    let shown = actors.of(record);
    let unsure = record.context_verified != Some(true) && record.actor_source.as_deref() != Some("row");
    if unsure && !shown.is_empty() { format!("{shown}?") } else { shown }
}

/// What the version did: `state open → paid`.
pub fn what(record: &Record) -> String {
    let changes = record.changes.as_deref().and_then(members).unwrap_or_default();
    let known = record.before_known || record.event != "updated";
    let shown: Vec<String> = changes.iter().take(COLUMNS_MAX).filter_map(|change| one(&record.event, change)).collect();
    let more = changes.len().saturating_sub(COLUMNS_MAX);
    let more = if more > 0 { format!(", … ({more} more)") } else { String::new() };
    let shown = format!("{}{more}", shown.join(", "));
    match (record.event.as_str(), shown.is_empty()) {
        ("updated", false) => shown,
        ("updated", true) if !known => "updated; what changed is not known".to_owned(),
        (event, true) => event.to_owned(),
        (event, false) => format!("{event}: {shown}"),
    }
}

fn one(event: &str, (column, sides): &(String, Box<RawValue>)) -> Option<String> {
    let [old, new]: [&RawValue; 2] = serde_json::from_str(sides.get()).ok()?;
    Some(match event {
        "created" | "snapshot" => format!("{column} {}", value(new)),
        "deleted" => format!("{column} {}", value(old)),
        _ => format!("{column} {} → {}", value(old), value(new)),
    })
}

/// A value in a few characters: NULL is `∅`.
fn value(json: &RawValue) -> String {
    let text = match json.get() {
        "null" => return "∅".to_owned(),
        json => serde_json::from_str::<String>(json).unwrap_or_else(|_| json.to_owned()),
    };
    match text.char_indices().nth(VALUE_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// The members of an object, in their order.
fn members(object: &RawValue) -> Option<Vec<(String, Box<RawValue>)>> {
    struct Members;
    impl<'de> serde::de::Visitor<'de> for Members {
        type Value = Vec<(String, Box<RawValue>)>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a JSON object")
        }

        fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut members = Vec::new();
            while let Some(member) = map.next_entry()? {
                members.push(member);
            }
            Ok(members)
        }
    }
    let mut deserializer = serde_json::Deserializer::from_str(object.get());
    serde::Deserializer::deserialize_map(&mut deserializer, Members).ok()
}
