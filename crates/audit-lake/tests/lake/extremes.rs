//! The extreme values of each type are read back as they were written, and no bound of a file hides them.

use std::collections::BTreeMap;

use audit_core::value::{Kind, write_json_value};
use audit_lake::LakeReader;
use audit_testkit::Fixture;
use futures::TryStreamExt;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::common::Lake;

/// A kind, its extreme values as PostgreSQL prints them, and the bounds of a file that has all of them; some kinds have
/// no bounds.
type Extremes = (&'static str, &'static [&'static str], Option<(&'static str, &'static str)>);

const EXTREMES: &[Extremes] = &[
    ("int2", &["-32768", "32767"], Some(("-32768", "32767"))),
    ("int4", &["-2147483648", "2147483647"], Some(("-2147483648", "2147483647"))),
    ("int8", &["-9223372036854775808", "9223372036854775807"], Some(("-9223372036854775808", "9223372036854775807"))),
    ("float4", &["-3.4028235e+38", "3.4028235e+38", "1e-45", "NaN", "Infinity", "-Infinity"], None),
    ("float8", &["-1.7976931348623157e+308", "1.7976931348623157e+308", "5e-324", "NaN", "-Infinity"], None),
    ("numeric(4,2)", &["-99.99", "99.99", "0.01", "NaN"], Some(("-99.99", "99.99"))),
    (
        "numeric(38,38)",
        &["-0.99999999999999999999999999999999999999", "0.99999999999999999999999999999999999999"],
        Some(("-0.99999999999999999999999999999999999999", "0.99999999999999999999999999999999999999")),
    ),
    (
        "numeric(38,0)",
        &["-99999999999999999999999999999999999999", "99999999999999999999999999999999999999"],
        Some(("-99999999999999999999999999999999999999", "99999999999999999999999999999999999999")),
    ),
    (
        "date",
        &["0001-01-01", "9999-12-31", "4713-01-01 BC", "5874897-12-31", "infinity", "-infinity"],
        Some((r#""0001-01-01""#, r#""9999-12-31""#)),
    ),
    (
        "timestamp",
        &[
            "0001-01-01 00:00:00",
            "9999-12-31 23:59:59.999999",
            "4713-01-01 00:00:00 BC",
            "294276-12-31 23:59:59.999999",
        ],
        Some((r#""0001-01-01T00:00:00.000000Z""#, r#""9999-12-31T23:59:59.999999Z""#)),
    ),
    (
        "timestamptz",
        &["0001-01-01 00:00:00+00", "9999-12-31 23:59:59.999999+00", "infinity", "-infinity"],
        Some((r#""0001-01-01T00:00:00.000000Z""#, r#""9999-12-31T23:59:59.999999Z""#)),
    ),
    ("text", &["", "\u{10ffff}"], Some((r#""""#, "\"\u{10ffff}\""))),
    (
        "uuid",
        &["00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"],
        Some((r#""00000000-0000-0000-0000-000000000000""#, r#""ffffffff-ffff-ffff-ffff-ffffffffffff""#)),
    ),
    ("bytea", &["\\x", "\\x00ff"], None),
    ("bool", &["f", "t"], None),
    ("jsonb", &["null", "{}", "\"\"", "[null]"], None),
    ("json", &["null", "{}"], Some((r#""null""#, r#""{}""#))),
    ("jsonb[]", &["{}", "{NULL,\"null\"}"], None),
];

/// A row for each of a kind's values, as long as any kind has one.
fn rows() -> Vec<Vec<Option<&'static str>>> {
    let count = EXTREMES.iter().map(|(_, values, _)| values.len()).max().unwrap_or(0);
    (0..count).map(|row| EXTREMES.iter().map(|(_, values, _)| values.get(row).copied()).collect()).collect()
}

async fn written() -> Lake {
    let lake = Lake::new();
    let columns: String = EXTREMES.iter().enumerate().map(|(at, (kind, ..))| format!(", c{at} {kind}")).collect();
    let insert = |(id, row): (usize, Vec<Option<&str>>)| {
        let values: Vec<Value> = std::iter::once(id.into()).chain(row.into_iter().map(Value::from)).collect();
        format!("insert public.ends {}\n", Value::from(values))
    };
    let rows: String = rows().into_iter().enumerate().map(insert).collect();
    lake.write(&Fixture::of(&format!("table public.ends (id int4 key{columns}) full\nbegin\n{rows}commit"))).await;
    lake
}

#[tokio::test(flavor = "multi_thread")]
async fn they_come_back_as_they_went_in() {
    let lake = written().await;
    let records: Vec<_> = LakeReader::over(lake.store())
        .export("shop", "public.ends", None, None)
        .await
        .unwrap()
        .try_collect()
        .await
        .unwrap();
    assert_eq!(records.len(), rows().len());
    for (record, row) in records.iter().zip(rows()) {
        let after: BTreeMap<String, &RawValue> = serde_json::from_str(record.after.as_ref().unwrap().get()).unwrap();
        for (at, (value, (kind, ..))) in row.into_iter().zip(EXTREMES).enumerate() {
            let mut expected = b"null".to_vec();
            if let Some(text) = value {
                expected.clear();
                write_json_value(&mut expected, &kind.parse::<Kind>().unwrap(), text);
            }
            let (expected, found) = (String::from_utf8(expected).unwrap(), after[&format!("c{at}")].get());
            // Floats may be written in another form of the same number.
            let same = found == expected || kind.starts_with("float") && number(found) == number(&expected);
            assert!(same, "{kind}: {expected} came back as {found}");
        }
    }
}

fn number(text: &str) -> Option<f64> {
    text.parse().ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_bound_hides_them() {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Stats {
        min_values: BTreeMap<String, Box<RawValue>>,
        max_values: BTreeMap<String, Box<RawValue>>,
    }
    let lake = written().await;
    let log = std::fs::read_to_string(lake.path().join("public.ends/_delta_log/00000000000000000000.json")).unwrap();
    let actions: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let stats = actions.iter().find_map(|action| action.get("add")?.get("stats")?.as_str()).unwrap();
    let stats: Stats = serde_json::from_str(stats).unwrap();
    let text = |bounds: &BTreeMap<String, Box<RawValue>>, at: usize| {
        bounds.get(&format!("c{at}")).map(|raw| raw.get().to_string())
    };
    for (at, (kind, _, expected)) in EXTREMES.iter().enumerate() {
        let found = text(&stats.min_values, at).zip(text(&stats.max_values, at));
        assert_eq!(found, expected.map(|(min, max)| (min.to_string(), max.to_string())), "{kind}");
    }
}
