//! The [JSON Schemas][1] (draft 2020-12) of a message's value. `docs/schemas` contains them, and a test checks that
//! real messages conform to them.
//!
//! [1]: https://json-schema.org/draft/2020-12

use audit_core::version::Event;
use serde_json::{Value, json};

use crate::config::Format;

/// Returns the schema of the values of a format.
pub fn schema(format: Format) -> Value {
    let (title, mut body) = match format {
        Format::Record => ("A version record", record()),
        Format::CloudEvents => ("A version record in a CloudEvent", cloud_event()),
        Format::Debezium => ("A change in Debezium's envelope, with its schema or without", debezium()),
    };
    if let Some(members) = body.as_object_mut() {
        members.shift_insert(0, "$schema".into(), json!("https://json-schema.org/draft/2020-12/schema"));
        members.shift_insert(1, "title".into(), json!(title));
    }
    body
}

const POSITION: &str = "^[0-9a-f]{4}:[0-9a-f]{16}:[0-9]{10}$";
const LSN: &str = "^[0-9A-F]{1,8}/[0-9A-F]{1,8}$";

/// Describes an object that has all of these properties and no others.
fn closed(properties: Value) -> Value {
    let names: Vec<&String> = properties.as_object().map(|members| members.keys().collect()).unwrap_or_default();
    json!({ "type": "object", "required": names, "additionalProperties": false, "properties": properties })
}

fn record() -> Value {
    let text = json!({ "type": "string" });
    let text_or_null = json!({ "type": ["string", "null"] });
    let names = json!({ "type": "array", "items": { "type": "string" } });
    let row = json!({ "type": ["object", "null"] });
    let time = json!({ "type": "string", "format": "date-time" });
    let lsn = json!({ "type": "string", "pattern": LSN });
    let count = json!({ "type": "integer", "minimum": 0 });
    let count_or_null = json!({ "type": ["integer", "null"], "minimum": 0 });
    let pair = json!({ "type": "array", "minItems": 2, "maxItems": 2 });
    let events: Vec<&str> = Event::ALL.iter().map(|event| event.name()).collect();
    closed(json!({
        "source": text, "position": { "type": "string", "pattern": POSITION }, "table_name": text, "item_type": text,
        "key": text_or_null, "old_key": text_or_null, "event": { "enum": events },
        "changes": { "type": ["object", "null"], "additionalProperties": pair, "description": "[old, new] by column" },
        "before": row, "after": row, "changed": { "type": ["array", "null"], "items": { "type": "string" } },
        "before_known": { "type": "boolean" }, "unknown": names, "carried": names, "included": row,
        "actor_id": text_or_null, "actor": {}, "reason": text_or_null, "context": {},
        "actor_source": { "enum": ["context", "row", "row_unchanged", null] }, "context_verified": { "type": ["boolean", "null"] },
        "xid": count, "commit_lsn": lsn, "lsn": lsn, "seq": count, "committed_at": time, "recorded_at": time,
        "schema_version": count, "baseline": count_or_null, "tenant": text_or_null, "summary": text,
    }))
}

fn cloud_event() -> Value {
    let text = json!({ "type": "string", "minLength": 1 });
    closed(json!({
        "specversion": { "const": "1.0" }, "source": { "type": "string", "pattern": "^/cdc-audit/", "format": "uri-reference" },
        "id": { "type": "string", "pattern": POSITION.replacen('^', "/", 1) },
        "type": { "type": "string", "pattern": "^cdc-audit\\.version\\.[a-z]+$" }, "subject": text,
        "time": { "type": "string", "format": "date-time" }, "datacontenttype": { "const": "application/json" }, "data": record(),
    }))
}

fn debezium() -> Value {
    let text = json!({ "type": "string" });
    let number = json!({ "type": "integer" });
    let row = json!({ "type": ["object", "null"] });
    let nothing = json!({ "type": "null" });
    let source = closed(json!({
        "version": text, "connector": { "const": "postgresql" }, "name": text, "ts_ms": number,
        "snapshot": { "enum": ["false", "incremental"] }, "db": text, "sequence": text, "ts_us": number, "ts_ns": number,
        "schema": text, "table": text, "txId": number, "lsn": number, "xmin": nothing, "origin": nothing, "origin_lsn": nothing,
    }));
    let change = closed(json!({
        "before": row, "after": row, "source": { "$ref": "#/$defs/source" }, "transaction": nothing, "op": { "enum": ["c", "u", "d", "r", "t"] },
        "ts_ms": number, "ts_us": number, "ts_ns": number,
    }));
    let message = closed(
        json!({ "prefix": { "const": "cdc-audit" }, "content": { "type": "string", "contentEncoding": "base64" } }),
    );
    let note = closed(json!({
        "op": { "const": "m" }, "ts_ms": number, "source": { "$ref": "#/$defs/source" }, "transaction": nothing, "message": message,
    }));
    let with_schema = closed(json!({ "schema": { "type": "object" }, "payload": { "$ref": "#/$defs/payload" } }));
    json!({
        "oneOf": [with_schema, { "$ref": "#/$defs/payload" }],
        "$defs": { "source": source, "change": change, "note": note, "payload": { "oneOf": [{ "$ref": "#/$defs/change" }, { "$ref": "#/$defs/note" }] } },
    })
}
