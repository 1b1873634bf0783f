//! Any text of any kind becomes valid JSON; jsonb is left out, because it is passed on as the server sent it.
#![no_main]

use audit_core::value::{Kind, write_json_value};

const KINDS: &[&str] =
    &["bool", "int8", "float8", "numeric", "bytea", "date", "timestamp", "timestamptz", "uuid", "json", "text", "int4[]", "text[]"];

libfuzzer_sys::fuzz_target!(|input: (u8, &str)| {
    let (which, text) = input;
    let Ok(kind) = KINDS[which as usize % KINDS.len()].parse::<Kind>() else { return };
    let mut out = Vec::new();
    write_json_value(&mut out, &kind, text);
    assert!(serde_json::from_slice::<serde::de::IgnoredAny>(&out).is_ok());
});
