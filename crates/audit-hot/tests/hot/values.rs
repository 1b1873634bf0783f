//! What JSON each kind of value becomes.

use audit_core::expand::JsonRule;
use audit_core::protect::{MacKey, Policy};
use audit_core::rules::{Rules, TableRule};
use audit_hot::{HotConfig, HotSink, Side};
use audit_testkit::Fixture;
use serde_json::json;

use crate::fixture::{Hot, take, write};

/// PostgreSQL decides how it prints a value; the JSON that the core makes of it must be valid for `jsonb`.
#[tokio::test]
async fn every_type_goes_into_jsonb() {
    let hot = Hot::new().await;
    let values = [
        ("bool", "true", json!(true)),
        ("int2", "-32768", json!(-32768)),
        ("int4", "2147483647", json!(2_147_483_647)),
        ("int8", "-9223372036854775808", json!(i64::MIN)),
        ("float4", "'1.1754944e-38'", json!(1.175_494_4e-38)),
        ("float4", "'-Infinity'", json!("-Infinity")),
        ("float8", "'1.5e300'", json!(1.5e300)),
        ("float8", "'5e-324'", json!(5e-324)),
        ("float8", "'NaN'", json!("NaN")),
        ("float8", "'-0'", json!(0)),
        ("numeric", "'NaN'", json!("NaN")),
        ("numeric", "repeat('9', 131072)::numeric", json!("9".repeat(131_072))),
        ("numeric", "12.50", json!("12.50")),
        ("money", "'-1234.5'", json!("-$1,234.50")),
        (
            "text",
            "'q\"\\ é 😀 ' || chr(8232) || chr(1) || chr(31) || chr(127)",
            json!("q\"\\ é 😀 \u{2028}\u{1}\u{1f}\u{7f}"),
        ),
        ("char(4)", "'a'", json!("a   ")),
        ("bytea", "'\\x00ff'", json!("AP8=")),
        ("bit varying", "B'0101'", json!("0101")),
        ("date", "'0044-03-15 BC'", json!("-0043-03-15")),
        ("date", "'infinity'", json!("infinity")),
        ("time", "'24:00'", json!("24:00:00")),
        ("timetz", "'12:00+05:30'", json!("12:00:00+05:30")),
        ("timestamp", "'294276-12-31 23:59:59.999999'", json!("+294276-12-31T23:59:59.999999")),
        ("timestamptz", "'2026-03-01 09:30+02'", json!("2026-03-01T07:30:00Z")),
        ("timestamptz", "'-infinity'", json!("-infinity")),
        ("interval", "'-1 mon 3 days 04:05:06.7'", json!("-1 mons +3 days 04:05:06.7")),
        ("uuid", "'00000000-0000-0000-0000-0000000000ff'", json!("00000000-0000-0000-0000-0000000000ff")),
        (
            "json",
            "'{\"a\":1, \"a\": -0, \"s\": \"\\u0000\\ud800\"}'",
            json!("{\"a\":1, \"a\": -0, \"s\": \"\\u0000\\ud800\"}"),
        ),
        ("jsonb", "'{\"b\": 1e3, \"a\": [null, \"x\"]}'", json!({"a": [null, "x"], "b": 1000})),
        ("jsonb", "'null'", json!({"$json": null})),
        ("jsonb", "'\"text\"'", json!("text")),
        ("int4[]", "'{{1,NULL},{3,4}}'", json!([[1, null], [3, 4]])),
        ("text[]", "'[0:1]={\"a,\\\"b\",NULL}'", json!({"$bounds": "[0:1]", "items": ["a,\"b", null]})),
        ("jsonb[]", "ARRAY['null', '{\"a\": 1}']::jsonb[]", json!([{"$json": null}, {"a": 1}])),
        ("bytea[]", "ARRAY['\\x00'::bytea]", json!(["AA=="])),
        ("float8[]", "'{NaN,1.5}'", json!(["NaN", 1.5])),
        ("box[]", "'{(1,1),(0,0);(2,2),(1,1)}'", json!("{(1,1),(0,0);(2,2),(1,1)}")),
        ("int4range", "'[1,5)'", json!("[1,5)")),
        ("tstzrange", "'[2026-01-01,)'", json!("[\"2026-01-01 00:00:00+00\",)")),
        ("inet", "'10.0.0.1/8'", json!("10.0.0.1/8")),
        ("macaddr", "'08:00:2b:01:02:03'", json!("08:00:2b:01:02:03")),
        ("xml", "'<a>\"</a>'", json!("<a>\"</a>")),
        ("point", "'(1,2)'", json!("(1,2)")),
        ("tsvector", "'a:1 b'", json!("'a':1 'b'")),
        ("pg_lsn", "'16/B374D848'", json!("16/B374D848")),
        ("oid", "4294967295", json!("4294967295")),
    ];
    let client = hot.database.client().await;
    client.batch_execute("SET lc_monetary = 'C'; SET TimeZone = 'UTC'").await.unwrap();
    let (mut columns, mut row) = (Vec::new(), Vec::new());
    for (i, (sql_type, expression, _)) in values.iter().enumerate() {
        let found = client
            .query_one(&format!("SELECT concat(({expression})::{sql_type}), ({expression})::{sql_type}"), &[])
            .await
            .unwrap_or_else(|error| panic!("{sql_type} {expression}: {error:?}"));
        let kind = audit_core::value::Kind::of(found.columns()[1].type_().oid(), -1).unwrap();
        columns.push(format!("c{i} {kind}"));
        // `concat()` prints a value as the stream does; a cast to text is a different conversion.
        row.push(serde_json::Value::String(found.get(0)));
    }
    let row = serde_json::Value::Array(row);
    let fixture = format!("table public.types ({})\nbegin\ninsert public.types {row}\ncommit", columns.join(", "));
    write(&mut hot.taken().await, &Fixture::of(&fixture)).await.unwrap();
    let after: serde_json::Value = serde_json::from_str(&hot.sql("SELECT after FROM cdc_audit.versions")).unwrap();
    for (i, (sql_type, expression, expected)) in values.iter().enumerate() {
        assert_eq!(after[format!("c{i}")], *expected, "{sql_type} {expression}");
    }
}

#[tokio::test]
async fn a_version_is_stored_with_every_field() {
    let hot = Hot::new().await;
    let rule = TableRule {
        name: "public.users".into(),
        item_type: Some("user".into()),
        include: Some(vec!["account".into()]),
        tenant: Some("account".into()),
        ..TableRule::default()
    };
    let mut fixture = Fixture::under(Rules { tables: vec![rule], ..Rules::default() }, Policy::default());
    let batches = fixture.batches(
        r#"table public.users (id int4 key, name text, account text, doc jsonb)
           begin at=2026-03-01T09:30:00.000001Z lsn=0/5000 xid=4000000000
           context {"actor_id": "u1", "actor": {"name": "Ann"}, "reason": "fix", "ticket": 7}
           update public.users [1, "Ann", "a", null] -> [2, "Bea", "a", "{\"k\": [1]}"]
           commit"#,
    );
    write(&mut hot.taken().await, &batches).await.unwrap();
    let stored = hot.sql("SELECT to_jsonb(v) - 'recorded_at' FROM cdc_audit.versions v");
    let expected = json!({
        "source": "shop", "position": "0001:0000000000005000:0000000000", "table_name": "public.users", "item_type": "user",
        "key": "2", "old_key": "1", "event": "updated",
        "changes": {"id": [1, 2], "name": ["Ann", "Bea"], "doc": [null, {"k": [1]}]}, "before": null, "after": null,
        "changed": ["id", "name", "doc"], "before_known": true, "unknown": null, "carried": null, "included": {"account": "a"},
        "actor_id": "u1", "actor": {"name": "Ann"}, "reason": "fix",
        "context": {"actor_id": "u1", "actor": {"name": "Ann"}, "reason": "fix", "ticket": 7}, "actor_source": "context",
        "context_verified": false, "xid": 4_000_000_000_u32, "commit_lsn": "0/5000", "lsn": "0/5008", "seq": 0,
        "committed_at": "2026-03-01T09:30:00.000001+00:00", "schema_version": 1, "baseline": null, "tenant": "a"
    });
    assert_eq!(serde_json::from_str::<serde_json::Value>(&stored).unwrap(), expected);
}

#[tokio::test]
async fn one_whole_row_is_stored_where_there_is_no_other_and_more_on_request() {
    let text = r#"table public.t (id int4 key, a text)
        table public.d (id int4 key, a text) default
        begin
        insert public.t [1, "x"]
        update public.t [1, "x"] -> [1, "y"]
        delete public.t [1, "y"]
        update public.d -> [1, {}]
        delete public.d key [1, null]
        truncate public.t
        commit"#;
    let query = "SELECT event, before, after, changes, unknown FROM cdc_audit.versions ORDER BY position";
    let hot = Hot::new().await;
    write(&mut hot.taken().await, &Fixture::of(text)).await.unwrap();
    let usual = [
        r#"created||{"a": "x", "id": 1}||"#,
        r#"updated|||{"a": ["x", "y"]}|"#,
        r#"deleted|{"a": "y", "id": 1}|||"#,
        r#"updated||{"id": 1}||{a}"#,
        r#"deleted|{"id": 1}|||"#,
        "truncated||||",
    ];
    assert_eq!(hot.sql(query), usual.join("\n"));

    let hot = Hot::new().await;
    let config = HotConfig { keep: vec![Side::Before, Side::After], ..hot.config.clone() };
    let mut sink = HotSink::new("hot", &config);
    take(&mut sink).await.unwrap();
    write(&mut sink, &Fixture::of(text)).await.unwrap();
    let both = usual.join("\n").replace("updated|||", r#"updated|{"a": "x", "id": 1}|{"a": "y", "id": 1}|"#);
    assert_eq!(hot.sql(query), both);
}

#[tokio::test]
async fn the_view_shows_the_record_as_readers_see_it() {
    let hot = Hot::new().await;
    let batches = Fixture::of(
        r#"table public.t (id int4 key, a text)
           begin
           insert public.t [1, null]
           update public.t [1, null] -> [1, "y"]
           delete public.t [1, "y"]
           truncate public.t
           commit"#,
    );
    write(&mut hot.taken().await, &batches).await.unwrap();
    let expected = [
        r#"created|{"a": [null, null], "id": [null, 1]}|{}"#,
        r#"updated|{"a": [null, "y"]}|{}"#,
        r#"deleted|{"a": ["y", null], "id": [1, null]}|{}"#,
        "truncated||{}",
    ];
    assert_eq!(hot.sql("SELECT event, changes, unknown FROM cdc_audit.trail ORDER BY position"), expected.join("\n"));
}

#[tokio::test]
async fn a_value_that_does_not_fit_is_marked_named_and_counted() {
    let hot = Hot::new().await;
    let mut sink = hot.sink().with_field_max(1_000);
    take(&mut sink).await.unwrap();
    let (long, quotes) = ("x".repeat(998), "\\\"".repeat(600));
    let numbers = format!("[{}]", vec!["1"; 150].join(", "));
    let rule = TableRule { name: "*".into(), include: Some(vec!["a".into()]), ..TableRule::default() };
    let mut fixture = Fixture::under(Rules { tables: vec![rule], ..Rules::default() }, Policy::default());
    let batches = fixture.batches(&format!(
        r#"table public.t (id int4 key, a text, b text, c jsonb, d int4[])
           begin
           insert public.t [1, "{long}", "small", "[1]", "{{1}}"]
           insert public.t [2, "a", "{long}", "[1]", "{{1}}"]
           insert public.t [3, "{quotes}", "small", "[1]", "{{1}}"]
           insert public.t [4, "a", "small", "{numbers}", null]
           insert public.t [5, "a", "small", null, "{{{}}}"]
           update public.t [1, "{long}", "", null, null] -> [1, "{long}x", "", null, null]
           commit
           begin
           context {{"actor_id": "{}", "long": "{long}{long}"}}
           insert public.t [6, "a", "small", null, null]
           commit"#,
        &numbers[1..numbers.len() - 1],
        "é".repeat(800),
    ));
    write(&mut sink, &batches).await.unwrap();
    let query = "SELECT key, unknown, coalesce(after - 'id', changes), included FROM cdc_audit.versions ORDER BY position LIMIT 6";
    let expected = [
        format!(r#"1|{{a}}|{{"a": {{"$too_large": 998}}, "b": "small", "c": [1], "d": [1]}}|{{"a": "{long}"}}"#),
        r#"2|{b}|{"a": "a", "b": {"$too_large": 998}, "c": [1], "d": [1]}|{"a": "a"}"#.to_owned(),
        r#"3|{a}|{"a": {"$too_large": 600}, "b": "small", "c": [1], "d": [1]}|{"a": {"$too_large": 600}}"#.to_owned(),
        r#"4|{c}|{"a": "a", "b": "small", "c": {"$too_large": 450}, "d": null}|{"a": "a"}"#.to_owned(),
        r#"5|{d}|{"a": "a", "b": "small", "c": null, "d": {"$too_large": 450}}|{"a": "a"}"#.to_owned(),
        format!(r#"1|{{a}}|{{"a": ["{long}", {{"$too_large": 999}}]}}|{{"a": {{"$too_large": 999}}}}"#),
    ];
    let found = hot.sql(query);
    for (found, expected) in found.lines().zip(&expected) {
        assert_eq!(found, expected);
    }
    let context = "SELECT context, length(actor_id) FROM cdc_audit.versions WHERE key = '6'";
    assert!(hot.sql(context).starts_with("{\"$too_large\": "), "{}", hot.sql(context));
    assert!(hot.sql(context).ends_with("|500"), "{}", hot.sql(context));
    let counted = sink.counters().too_large.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(counted, 1 + 1 + 2 + 1 + 1 + 2 + 1);
}

#[tokio::test]
async fn whatever_an_application_says_about_itself_is_stored() {
    let hot = Hot::new().await;
    let deep = format!("{{\"actor_id\": \"deep\", \"d\": {}{}}}", "[".repeat(5_000), "]".repeat(5_000));
    let contexts = [
        r#"{"actor_id": "nul\u0000", "reason": "\u0000", "half": "\ud800", "big": 1e200000, "tiny": 1e-200000}"#,
        r#"{"actor_id": {"a": 1}, "actor": "just a name", "reason": ["x"]}"#,
        "not json",
        &deep,
    ];
    let text: String =
        contexts.iter().map(|context| format!("begin\ncontext {context}\ninsert public.t [1]\ncommit\n")).collect();
    write(&mut hot.taken().await, &Fixture::of(&format!("table public.t (id int4 key)\n{text}"))).await.unwrap();
    let found = hot.sql("SELECT left(context::text, 110), actor, reason FROM cdc_audit.versions ORDER BY position");
    let expected = [
        "{\"big\": \"1e200000\", \"half\": \"\u{fffd}\", \"tiny\": \"1e-200000\", \"reason\": \"\u{fffd}\", \"actor_id\": \"nul\u{fffd}\"}||\u{fffd}".to_owned(),
        r#"{"actor": "just a name", "reason": ["x"], "actor_id": {"a": 1}}|"just a name"|["x"]"#.to_owned(),
        r#"{"text": "not json"}||"#.to_owned(),
        format!("{}||", &format!("{{\"text\": \"{{\\\"actor_id\\\": \\\"deep\\\", \\\"d\\\": {}", "[".repeat(110))[..110]),
    ];
    assert_eq!(found, expected.join("\n"));
}

/// PostgreSQL's `json` keeps what its `jsonb` refuses, in values and in names.
#[tokio::test]
async fn members_of_json_columns_are_stored_whatever_they_are() {
    let hot = Hot::new().await;
    let rule =
        TableRule { name: "*".into(), json: [("doc".to_owned(), JsonRule::default())].into(), ..TableRule::default() };
    let mut fixture = Fixture::under(Rules { tables: vec![rule], ..Rules::default() }, Policy::default());
    let deep = format!("{}{}", "[".repeat(9_000), "]".repeat(9_000));
    let documents = [
        r#"{"a": "x\u0000y", "half": {"\ud800": 1}}"#.to_owned(),
        r#"{"n\u0000": 1e200000, "\udc00": [-0, "\ud83d\ude00"]}"#.to_owned(),
        format!(r#"{{"deep": {deep}}}"#),
    ];
    let row = |id: usize, doc: &str| json!([id, doc]).to_string();
    let lines: String = documents
        .iter()
        .enumerate()
        .map(|(id, doc)| format!("insert public.t {0}\nupdate public.t {0} -> {1}\n", row(id, doc), row(id, "{}")))
        .collect();
    let batches = fixture.batches(&format!("table public.t (id int4 key, doc json)\nbegin\n{lines}commit"));
    write(&mut hot.taken().await, &batches).await.unwrap();
    let found = hot.sql("SELECT left((changes - 'id')::text, 80) FROM cdc_audit.versions ORDER BY position");
    let expected = [
        "{\"doc.a\": [null, \"x\u{fffd}y\"], \"doc.half\": [null, {\"\u{fffd}\": 1}]}".to_owned(),
        "{\"doc.a\": [\"x\u{fffd}y\", null], \"doc.half\": [{\"\u{fffd}\": 1}, null]}".to_owned(),
        "{\"doc.n\u{fffd}\": [null, \"1e200000\"], \"doc.\\\\udc00\": [null, [0, \"😀\"]]}".to_owned(),
        "{\"doc.n\u{fffd}\": [\"1e200000\", null], \"doc.\\\\udc00\": [[0, \"😀\"], null]}".to_owned(),
        format!("{{\"doc.deep\": [null, {{\"text\": \"{}", &"[".repeat(80)[..50]),
        format!("{{\"doc.deep\": [{{\"text\": \"{}", &"[".repeat(80)[..56]),
    ];
    assert_eq!(found, expected.join("\n"));
}

#[tokio::test]
async fn keys_and_names_of_any_size_are_stored() {
    let hot = Hot::new().await;
    let long: String = (0..40_000).map(|i| char::from_u32(0x4e00 + i * 7919 % 20_000).unwrap()).collect();
    let batches = Fixture::of(&format!(
        r#"table public.t (id text key, a text)
           begin
           insert public.t ["{long}", "x"]
           update public.t ["{long}", "x"] -> ["{long}é", "x"]
           commit"#
    ));
    write(&mut hot.taken().await, &batches).await.unwrap();
    let history = hot.reader().await.history("shop", "public.t", &long, 10).await.unwrap();
    let events: Vec<&str> = history.iter().map(|version| version.event.as_str()).collect();
    assert_eq!(events, ["updated", "created"]);
}

/// Only what protection leaves of a value is stored.
#[tokio::test]
async fn a_protected_value_is_nowhere_in_the_table() {
    let hot = Hot::new().await;
    let rule = TableRule {
        name: "*".into(),
        protect: [
            ("mail".to_owned(), audit_core::method::Method::Hash.into()),
            ("pin".to_owned(), audit_core::method::Method::Full.into()),
        ]
        .into(),
        include: Some(vec!["mail".into()]),
        ..TableRule::default()
    };
    let key = MacKey::new("k1", b"secret");
    let policy = Policy { hash_key: Some(key.clone()), row_key: Some(key), ..Policy::default() };
    let mut fixture = Fixture::under(Rules { tables: vec![rule], ..Rules::default() }, policy);
    let batches = fixture.batches(
        r#"table public.t (mail text key, pin text)
           begin
           insert public.t ["ann@example.com", "swordfish"]
           update public.t ["ann@example.com", "swordfish"] -> ["bea@example.com", "swordtail"]
           delete public.t ["bea@example.com", "swordtail"]
           commit"#,
    );
    write(&mut hot.taken().await, &batches).await.unwrap();
    let all = hot.sql("SELECT v::text FROM cdc_audit.versions v");
    assert!(!all.contains("example.com") && !all.contains("sword"), "{all}");
    assert_eq!(all.matches("hmac-sha256:k1:").count(), 3 + 5 + 3, "{all}");
}
