use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use audit_cipher::{KeyId, Limits, Sealer, SecretKey};
use audit_core::protect::{MacKey, Policy};
use audit_core::rules::{Rules, TableRule};
use audit_testkit::shared;
use cdc_audit_tests::majors;
use cdc_audit_tests::workload::random::has_xml;
use cdc_audit_tests::workload::values::{PRELUDE, SINCE_15, TYPES, Type, XML, identifier};

use crate::sides::Sides;

/// A rule in JSON, as the configuration has it.
fn rule(json: serde_json::Value) -> TableRule {
    serde_json::from_value(json).unwrap()
}

fn rules(baseline: bool) -> Rules {
    let everything = serde_json::json!({"name": "*", "baseline": baseline, "ignore_alone": []});
    Rules { tables: vec![rule(everything)], ..Rules::default() }
}

/// Floats whose shortest text is not the one that PostgreSQL prints, next to those that it prints the same way.
const FLOATS: [&str; 8] =
    ["5.684341886080801e-14", "5.684341886080802e-14", "9007199254740993", "1e-7", "1e22", "-1e-30", "0.3", "1e15"];

/// Each value of each type is inserted, changed to the next one, read by a baseline, and deleted.
#[tokio::test(flavor = "multi_thread")]
async fn every_value_of_every_type() {
    for major in majors() {
        let server = shared(major).await;
        let (_, url) = server.new_database();
        let mut types: Vec<&Type> = TYPES.iter().collect();
        types.extend(has_xml(&audit_testkit::connect(&url).await).await.then_some(&XML));
        types.extend(SINCE_15.iter().filter(|_| major >= 15));
        let columns: Vec<String> = types.iter().map(|kind| format!("{} {}", identifier(kind.name), kind.sql)).collect();
        let columns = columns.join(", ");
        let longest = types.iter().map(|kind| kind.texts.len()).max().unwrap_or_default();
        let rows: String = (0..longest)
            .map(|number| {
                let values = types.iter().map(|kind| kind.literal(kind.texts[number % kind.texts.len()]));
                format!("INSERT INTO v VALUES ({number}, {});\n", values.collect::<Vec<_>>().join(", "))
            })
            .collect();
        let before = format!(
            "{PRELUDE}CREATE TABLE v (\"Id\" int PRIMARY KEY, {columns}); CREATE TABLE w (LIKE v INCLUDING ALL); \
             ALTER TABLE v REPLICA IDENTITY FULL; CREATE TABLE f (id int PRIMARY KEY, d float8, r float4); {rows}"
        );
        let sides = Sides::new(server, &before, rules(true), Policy::default()).await;
        let mut sql = "INSERT INTO v (\"Id\") VALUES (-1); INSERT INTO w SELECT * FROM v;\n".to_owned();
        for kind in &types {
            let column = identifier(kind.name);
            for text in kind.texts {
                let literal = kind.literal(text);
                sql.push_str(&format!("UPDATE v SET {column} = {literal} WHERE \"Id\" IN (-1, 0);\n"));
                sql.push_str(&format!("UPDATE w SET {column} = {literal} WHERE \"Id\" = -1;\n"));
            }
            sql.push_str(&format!("UPDATE v SET {column} = NULL WHERE \"Id\" = -1;\n"));
        }
        for (id, float) in FLOATS.iter().enumerate() {
            sql.push_str(&format!("INSERT INTO f VALUES ({id}, {float}, {float});\n"));
        }
        sql.push_str("INSERT INTO f SELECT 1000 + i, power(2::float8, i), power(2::float8, i) FROM generate_series(-126, 127) AS i;");
        sql.push_str("DELETE FROM v; DELETE FROM w WHERE \"Id\" < 3; TRUNCATE w");
        sides.run(longest, &sql).await;
        let told = sides.agree().await;
        for event in ["snapshot", "created", "updated", "deleted", "truncated"] {
            assert!(told.iter().any(|told| told.record.event == event), "{event}");
        }
        let unlike = |told: &crate::sides::Told| told.canonical.bytes().len() > told.canonical.shared().len();
        assert!(told.iter().all(unlike));
    }
}

/// Two records of different versions are never the same.
fn distinct(told: &[crate::sides::Told]) {
    let mut seen = BTreeMap::new();
    for told in told {
        let other = seen.insert(told.canonical.shared().to_vec(), told.record.clone());
        assert!(other.is_none(), "{other:?} and {:?}", told.record);
    }
}

/// Contexts with odd JSON, documents member by member, NULL against absent, values that were not sent, soft deletion.
#[tokio::test(flavor = "multi_thread")]
async fn contexts_documents_and_what_is_not_known() {
    let server = shared(15).await;
    let before = "CREATE TABLE d (id int PRIMARY KEY, doc json, docb jsonb, body text, gone timestamptz, owner text, n float8); \
                  CREATE TABLE e (LIKE d INCLUDING ALL); ALTER TABLE d REPLICA IDENTITY FULL; \
                  ALTER TABLE e ALTER body SET STORAGE EXTERNAL";
    let table = serde_json::json!({
        "name": "*", "baseline": false, "ignore_alone": [], "include": ["owner", "n"], "tenant": "owner",
        "soft_delete": "gone", "json": {"doc": {"levels": 2}, "docb": {"levels": 1}},
    });
    let all = Rules { tables: vec![rule(table)], ..Rules::default() };
    let sides = Sides::new(server, before, all, Policy::default()).await;
    let long = "x".repeat(9_000);
    let mut sql = String::new();
    let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let contexts = [
        r#"{"actor_id": "ann", "reason": "a\u0000b", "n": [1E2, -0.00, 12e999, 1e5000, 1.50e1], "a": 1, "a": {"z": 1, "yy": [], "b": null}}"#.to_owned(),
        format!(r#"{{"actor": {{"id": "{}", "name": "\ud800x\u0000"}}, "x": "\u2028"}}"#, "é".repeat(600)),
        format!(r#"{{"actor_id": "{}\u0000{}", "deep": {}}}"#, "a".repeat(998), "b".repeat(30), deep(250)),
        "no JSON at all".to_owned(),
        r#"{"\u0000": 1, "\ufffd": 2, "é": "\/", "": {}}"#.to_owned(),
    ];
    let documents = [
        r#"{"a": 1e2, "b": {"c": "\u0000", "d": 1e5000}, "x.y": null, "a": -0}"#.to_owned(),
        format!(r#"{{"m\u0000": {{"k": {}}}, "m\ufffd": 1}}"#, deep(250)),
        r#"{"b": {"c": "\ud800\u0041", "d": [1.50, {"z": 1, "a": 2}]}}"#.to_owned(),
        "[1, 2]".to_owned(),
        "7".to_owned(),
    ];
    for (id, context) in contexts.iter().enumerate() {
        let context = context.replace('\'', "''");
        sql.push_str(&format!("BEGIN; SELECT pg_logical_emit_message(true, 'cdc-audit', '{context}');\n"));
        for table in ["d", "e"] {
            sql.push_str(&format!("INSERT INTO {table} VALUES ({id}, '{{}}', '{{\"b\": 1e20, \"aa\": null}}', '{long}{id}', NULL, 'o{id}', '-0');\n"));
            for document in &documents {
                sql.push_str(&format!("UPDATE {table} SET doc = '{document}' WHERE id = {id};\n"));
            }
            sql.push_str(&format!(
                "UPDATE {table} SET docb = '{{\"aa\": \"x\", \"c\": 1.10}}', n = 1e20 WHERE id = {id};\n"
            ));
            sql.push_str(&format!("UPDATE {table} SET docb = 'null', doc = NULL WHERE id = {id};\n"));
            sql.push_str(&format!(
                "UPDATE {table} SET gone = now() WHERE id = {id}; UPDATE {table} SET gone = NULL WHERE id = {id};\n"
            ));
            sql.push_str(&format!("UPDATE {table} SET id = id + 100, docb = NULL WHERE id = {id};\n"));
            sql.push_str(&format!("DELETE FROM {table} WHERE id = {id} + 100;\n"));
        }
        sql.push_str("COMMIT;\n");
    }
    // What no member of a document tells apart in the record, and a table with another shape.
    sql.push_str("ALTER TABLE d ADD later int DEFAULT 7, DROP body; INSERT INTO d VALUES (900); INSERT INTO d (id, later) VALUES (901, NULL); TRUNCATE d, e");
    sides.run(0, &sql).await;
    let told = sides.agree().await;
    distinct(&told);
    for event in ["created", "updated", "discarded", "restored", "deleted", "truncated"] {
        assert!(told.iter().any(|told| told.record.event == event), "{event}");
    }
    assert!(told.iter().any(|told| !told.record.unknown.is_empty()), "a value was not sent");
}

fn sealer() -> Arc<Sealer> {
    let limits = Limits {
        rotate_after: Duration::from_secs(3_600),
        rotate_count: 1 << 30,
        subjects_max: NonZeroUsize::MIN,
        subject_for: Duration::from_secs(3_600),
    };
    let sealer = Sealer::new(crate::sides::SOURCE, [("default".to_owned(), limits)]);
    let class = sealer.class("default").unwrap();
    let key = SecretKey::from_slice(&[7; SecretKey::LEN]).unwrap();
    sealer.install_data(class, KeyId::parse("d0123456789abcdef").unwrap(), &key);
    sealer.install_tokens(class, KeyId::parse("t0123456789abcdef").unwrap(), &key);
    Arc::new(sealer)
}

/// Columns under each method, in values of every form, alone and together, and inside documents.
#[tokio::test(flavor = "multi_thread")]
async fn protected_columns() {
    let server = shared(15).await;
    let types = ["text", "float8", "bytea", "jsonb", "int8", "timestamptz", "numeric(9,2)"];
    let methods = ["full", "partial", "hash", "token", "encrypt", "drop"];
    let mut columns = vec!["id text PRIMARY KEY".to_owned()];
    let mut protect = serde_json::Map::new();
    for (place, kind) in types.iter().enumerate() {
        for method in methods {
            columns.push(format!("{method}_{place} {kind}"));
            protect.insert(format!("{method}_{place}"), method.into());
        }
        columns.push(format!("two_{place} {kind}"));
        protect.insert(format!("two_{place}"), serde_json::json!(["partial", "encrypt"]));
    }
    protect.insert("id".to_owned(), "hash".into());
    let values =
        ["'YWJj'", "'NaN'", r"'\x616263'", r#"'{"a": "x", "b": 1e2}'"#, "42", "'2026-03-01 00:00:00+00'", "1.50"];
    let sets = |wanted: fn(usize) -> bool| -> Vec<String> {
        let each = columns.iter().skip(1).enumerate().filter(|(at, _)| wanted(*at));
        each.map(|(at, column)| format!("{} = {}", column.split(' ').next().unwrap(), values[at / 7])).collect()
    };
    let before = format!("CREATE TABLE p ({}); ALTER TABLE p REPLICA IDENTITY FULL", columns.join(", "));
    let table = serde_json::json!({"name": "*", "baseline": false, "ignore_alone": [], "protect": protect});
    let all = Rules { tables: vec![rule(table)], default_protection: true, ..Rules::default() };
    let key = |id: &str| Some(MacKey::new(id, b"0123456789abcdef"));
    let policy = Policy { hash_key: key("k1"), row_key: key("row"), sealer: Some(sealer()) };
    let sides = Sides::new(server, &before, all, policy).await;
    let sql = format!(
        "INSERT INTO p (id) VALUES ('a'), ('b'); UPDATE p SET {} WHERE id = 'a'; UPDATE p SET {}; \
         UPDATE p SET id = 'c' WHERE id = 'b'; DELETE FROM p",
        sets(|at| at % 2 == 0).join(", "),
        sets(|_| true).join(", "),
    );
    sides.run(0, &sql).await;
    let told = sides.agree().await;
    assert_eq!(told.len(), 8 + 1, "{told:?}");
    let reduced = told.iter().filter(|told| *told.canonical.meaning() != *told.canonical.shared()).count();
    assert!(reduced >= 5, "only {reduced} hold ciphertexts");
}
