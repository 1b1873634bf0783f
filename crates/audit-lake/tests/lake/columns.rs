use audit_core::method::Method;
use audit_core::position::Lsn;
use audit_core::protect::Policy;
use audit_core::rules::{Rules, TableRule};
use audit_testkit::Fixture;

use crate::common::{Lake, row_at};

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_is_kept_typed_or_exactly() {
    let lake = Lake::new();
    let columns = "id int8 key, b bool, i2 int2, i4 int4, f4 float4, f8 float8, n numeric(18,4), m numeric, small numeric(3,5), \
                   t text, y bytea, d date, ts timestamp, tz timestamptz, u uuid, j json, jb jsonb, a int4[]";
    let batches = Fixture::of(&format!(
        r#"table public.kinds ({columns}) full
         begin
         insert public.kinds ["-9223372036854775808", "t", "-32768", "2147483647", "1.5", "-0", "12345678901234.5678", "1e100", "0.00123", "ä\n", "\\x00ff", "2026-03-01", "2026-03-01 10:00:00.5", "2026-03-01 10:00:00.000001+00", "8a1f6f0e-0000-4000-8000-000000000001", "{{\"a\":1,\"a\":-0}}", "{{\"a\": [1, null]}}", "{{1,NULL,3}}"]
         insert public.kinds ["1", "f", null, null, "NaN", "-Infinity", "NaN", "NaN", null, "", "\\x", "0044-03-15 BC", "infinity", "294276-12-31 23:59:59.999999+00", null, "null", "null", "{{}}"]
         commit"#
    ));
    lake.write(&batches).await;
    let rows = lake.listed_batches("public.kinds");
    let (first, second) = (row_at(&rows, 0), row_at(&rows, 1));
    for (column, value) in [
        ("id", "-9223372036854775808"),
        ("b", "true"),
        ("i2", "-32768"),
        ("i4", "2147483647"),
        ("f4", "1.5"),
        ("f8", "-0.0"),
        ("n", "12345678901234.5678"),
        ("m", "1e100"),
        ("small", "0.00123"),
        ("t", "ä\n"),
        ("y", "00ff"),
        ("d", "2026-03-01"),
        ("ts", "2026-03-01T10:00:00.500Z"),
        ("tz", "2026-03-01T10:00:00.000001Z"),
        ("u", "8a1f6f0e-0000-4000-8000-000000000001"),
        ("j", r#"{"a":1,"a":-0}"#),
        ("jb", r#"{"a": [1, null]}"#),
        ("a", "[1, null, 3]"),
    ] {
        assert_eq!(first[column], value, "{column}");
    }
    assert!(!first.contains_key("cdc_exact"));
    for (column, value) in
        [("f4", "NaN"), ("f8", "-inf"), ("m", "NaN"), ("t", ""), ("jb", "null"), ("j", "null"), ("a", "[]")]
    {
        assert_eq!(second[column], value, "{column}");
    }
    for column in ["n", "d", "ts", "tz"] {
        assert!(!second.contains_key(column), "{column}");
    }
    let exact: serde_json::Value = serde_json::from_str(&second["cdc_exact"]).unwrap();
    assert_eq!(
        exact,
        serde_json::json!({"n": "NaN", "d": "0044-03-15 BC", "ts": "infinity", "tz": "294276-12-31 23:59:59.999999+00"})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_type_or_method_starts_a_column_of_its_own_and_the_old_one_goes_on_when_it_comes_back() {
    let lake = Lake::new();
    let mut fixture = Fixture::default();
    let batches = fixture.batches(
        r#"table public.t (id int4 key, v int4) full
         begin
         insert public.t [1, 7]
         commit
         ---
         table public.t (id int4 key, v text, "V" text) full
         begin
         insert public.t [2, "seven", "Seven"]
         commit
         ---
         table public.t (id int4 key, v int4) full
         begin
         insert public.t [3, 8]
         commit"#,
    );
    let mut sink = lake.write(&batches).await;
    let rows = lake.listed_batches("public.t");
    assert_eq!(row_at(&rows, 0)["v"], "7");
    assert_eq!((&row_at(&rows, 1)["v__2"][..], &row_at(&rows, 1)["V__3"][..]), ("seven", "Seven"));
    assert_eq!(row_at(&rows, 2)["v"], "8");
    // A method of protection changes the column too.
    let protect = TableRule {
        name: "public.t".into(),
        protect: [("v".to_string(), Method::Full.into())].into(),
        ..TableRule::default()
    };
    let mut fixture = Fixture::under(Rules { tables: vec![protect], ..Rules::default() }, Policy::default());
    fixture.epoch(2, Lsn(0x9000));
    let batches = fixture.batches(
        "table public.t (id int4 key, v int4) full
         begin
         insert public.t [4, 9]
         commit",
    );
    crate::common::write(&mut sink, &batches).await.unwrap();
    let rows = lake.listed_batches("public.t");
    assert_eq!(row_at(&rows, 3)["v__4"], "[REDACTED]");
    assert!(!row_at(&rows, 3).contains_key("v"));
    assert_eq!(lake.agreed("public.t").await.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn lake_names_are_plain_and_unique_without_regard_to_case() {
    let lake = Lake::new();
    let batches = Fixture::of(
        r#"table public.names ("id" int4 key, "a b" text, "a-b" text, "A_B" text, "year" int4, "cdc_key" text, "Ünï" text) full
         begin
         insert public.names [1, "one", "two", "three", 2026, "mine", "four"]
         commit"#,
    );
    lake.write(&batches).await;
    let row = row_at(&lake.listed_batches("public.names"), 0);
    for (column, value) in [
        ("a_b", "one"),
        ("a_b__2", "two"),
        ("A_B__3", "three"),
        ("year__2", "2026"),
        ("cdc_key", "1"),
        ("cdc_key__2", "mine"),
        ("_n_", "four"),
    ] {
        assert_eq!(row.get(column).map(String::as_str), Some(value), "{column} {row:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_row_before_is_kept_on_request() {
    let mut lake = Lake::new();
    lake.config.keep_before = true;
    let batches = Fixture::of(
        r#"table public.t (id int4 key, v text, d date) full
         begin
         insert public.t [1, "a", "2026-01-01"]
         update public.t [1, "a", "2026-01-01"] -> [1, "b", "infinity"]
         update public.t [1, "b", "infinity"] -> [1, "c", null]
         commit"#,
    );
    lake.write(&batches).await;
    let rows = lake.listed_batches("public.t");
    assert!(!row_at(&rows, 0).contains_key("cdc_before"));
    assert_eq!(row_at(&rows, 1)["cdc_before"], "{id: 1, v: a, d: 2026-01-01}");
    assert_eq!(row_at(&rows, 2)["cdc_exact"], r#"{"cdc_before.d": "infinity"}"#);
    assert_eq!(lake.agreed("public.t").await.len(), 3);
}
