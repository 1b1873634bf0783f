#![allow(clippy::unwrap_used, clippy::panic)]

use super::*;
use audit_core::change::Value;
use expect_test::{Expect, expect};
use proptest::prelude::*;

/// Makes bytes from words: numbers have a width (`u16:3`), quoted texts get a closing zero, plain texts do not.
fn bytes(words: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for word in words.split_whitespace() {
        match word.split_once(':') {
            Some(("u8", n)) => out.push(n.parse().unwrap()),
            Some(("u16", n)) => out.extend(n.parse::<u16>().unwrap().to_be_bytes()),
            Some(("u32", n)) => out.extend(n.parse::<u32>().unwrap().to_be_bytes()),
            Some(("u64", n)) => out.extend(n.parse::<u64>().unwrap().to_be_bytes()),
            _ => match word.strip_prefix('"') {
                Some(text) => out.extend([text.trim_end_matches('"').as_bytes(), b"\0"].concat()),
                None => out.extend(word.as_bytes()),
            },
        }
    }
    out
}

fn row(row: &Row<'_>) -> String {
    let value = |i| match row.get(i) {
        Value::Null => "NULL".to_string(),
        Value::Unknown => "unknown".to_string(),
        Value::Text(text) => format!("{:?}", std::str::from_utf8(text).unwrap()),
    };
    (0..row.len()).map(value).collect::<Vec<_>>().join(", ")
}

fn check(words: &str, expected: Expect) {
    let data = bytes(words);
    let mut scratch = Scratch::default();
    let shown = match decode(&data, &mut scratch) {
        Ok(Message::Insert { relation, new }) => format!("insert {relation} ({})", row(&new)),
        Ok(Message::Update { relation, old, new }) => match old {
            Old::None => format!("update {relation} ({})", row(&new)),
            Old::Key(old) => format!("update {relation} key ({}) ({})", row(&old), row(&new)),
            Old::Full(old) => format!("update {relation} full ({}) ({})", row(&old), row(&new)),
        },
        Ok(other) => format!("{other:?}"),
        Err(error) => error.to_string(),
    };
    expected.assert_eq(&shown);
}

#[test]
fn messages_are_read_as_the_manual_gives_them() {
    check(
        "B u64:4096 u64:0 u32:7",
        expect!["Begin { commit_lsn: Lsn(4096), committed_at: Micros(946684800000000), xid: 7 }"],
    );
    check("C u8:0 u64:4096 u64:4144 u64:0", expect!["Commit { commit_lsn: Lsn(4096), end_lsn: Lsn(4144) }"]);
    check(r#"O u64:9 "node_a""#, expect![[r#"Origin { name: "node_a" }"#]]);
    check(r#"Y u32:16390 "public" "mood""#, expect![[r#"Type { oid: 16390, schema: "public", name: "mood" }"#]]);
    check("T u32:2 u8:1 u32:5 u32:6", expect!["Truncate { relations: [5, 6] }"]);
    check(
        r#"M u8:1 u64:1 "cdc-audit" u32:2 {}"#,
        expect![[r#"Logical { transactional: true, prefix: "cdc-audit", content: [123, 125] }"#]],
    );
}

#[test]
fn rows_keep_null_apart_from_unchanged_and_empty() {
    check("I u32:5 N u16:4 t u32:3 abc n u t u32:0", expect![[r#"insert 5 ("abc", NULL, unknown, "")"#]]);
    check("U u32:5 N u16:1 t u32:1 a", expect![[r#"update 5 ("a")"#]]);
    check("U u32:5 K u16:1 t u32:1 a N u16:1 n", expect![[r#"update 5 key ("a") (NULL)"#]]);
    check("U u32:5 O u16:1 n N u16:1 u", expect!["update 5 full (NULL) (unknown)"]);
}

#[test]
fn malformed_input_is_named_with_its_offset() {
    check("", expect!["malformed empty message: it ends too early at byte 0"]);
    check("Z", expect!["malformed unknown message: an unknown kind of message at byte 1"]);
    check("B u64:1", expect!["malformed Begin message: it ends too early at byte 9"]);
    check("C u8:0 u64:1 u64:1 u64:1 x", expect!["malformed Commit message: it goes on behind its end at byte 26"]);
    check(
        "I u32:5 N u16:1 t u32:4294967295 a",
        expect!["malformed Insert message: a length is negative or larger than the message at byte 13"],
    );
    check("I u32:5 N u16:1 b u32:1 a", expect!["malformed Insert message: a column in binary form at byte 9"]);
    check(
        "T u32:4294967295 u8:0",
        expect!["malformed Truncate message: a length is negative or larger than the message at byte 6"],
    );
    check("O u64:9 node", expect!["malformed Origin message: a name is not terminated or not UTF-8 at byte 9"]);
}

proptest! {
    #[test]
    fn no_input_makes_it_panic(kind in prop::sample::select(b"BCORYIUDTMZ".to_vec()), rest in prop::collection::vec(any::<u8>(), 0..80)) {
        let data = [vec![kind], rest].concat();
        let mut scratch = Scratch::default();
        if let Err(error) = decode(&data, &mut scratch) {
            prop_assert!(error.offset <= data.len());
        }
    }

    #[test]
    fn a_cut_message_is_malformed(cut in 0usize..20) {
        let data = bytes("I u32:5 N u16:2 t u32:3 abc n");
        let mut scratch = Scratch::default();
        let whole = data.len();
        prop_assert_eq!(decode(&data[..cut.min(whole)], &mut scratch).is_ok(), cut >= whole);
    }
}
