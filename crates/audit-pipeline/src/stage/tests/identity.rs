//! Which table, key, columns and old rows a change has: this is decided by the stream and the catalog, and never by a
//! sink alone.

use std::collections::HashSet;

use audit_core::context::ContextKey;
use audit_core::events::RowEvent;
use audit_core::mac::MacKey;
use audit_core::method::{Method, Protect};
use audit_core::rules::{ProtectionRule, TableRule};
use audit_core::shape::{CatalogType, KeySource, ShapeColumn};

use super::*;

fn protecting(column: &str) -> Rules {
    let mut rule = rule("public.patients");
    rule.protect.insert(column.into(), Protect::from(Method::Full));
    Rules { tables: vec![rule], ..Rules::default() }
}

const PATIENTS: &str = "relation 5 patients full id:20 ssn:25";

/// The shape that a sink would have stored for [`PATIENTS`], as someone else may have altered it.
fn forged(alter: impl FnOnce(&mut Shape)) -> Shape {
    let Ok(Message::Relation(relation)) = decode(&relation(&PATIENTS["relation ".len()..]), &mut Scratch::default())
    else {
        panic!("no relation")
    };
    let shape = History::default().add(&relation, Some(&catalog(&relation)), Position::default());
    let mut shape = Shape { digest: relation.digest(), ..shape.as_ref().clone() };
    alter(&mut shape);
    shape
}

fn column(shape: &mut Shape) -> &mut ShapeColumn {
    &mut shape.columns[1]
}

#[test]
fn no_stored_shape_takes_protection_away() {
    let forgeries: [fn(&mut Shape); 7] = [
        |shape| column(shape).name = "s".into(),
        |shape| {
            column(shape).type_name = "bigint".into();
            column(shape).kind = Kind::Int8;
        },
        |shape| column(shape).type_oid = 20,
        |shape| shape.columns.reverse(),
        |shape| shape.columns.truncate(1),
        |shape| {
            shape.oid = None;
            column(shape).attnum = Some(7);
        },
        |shape| shape.seal = Some(format!("1:{}", "0".repeat(64))),
    ];
    let mut by_content = protecting("other");
    by_content.tables[0].protect = Default::default();
    by_content.default_protection = true;
    let script = format!("{PATIENTS}\n begin 1000\n insert 5 1 4111111111111111\n commit");
    for (n, forge) in forgeries.into_iter().enumerate() {
        for (rules, stored) in [(protecting("ssn"), 0), (protecting("ssn"), 2000), (by_content.clone(), 2000)] {
            let shape = forged(|shape| {
                shape.schema_version = 9;
                forge(shape);
            });
            let stored = Position::new(1, Lsn(stored), 0);
            let mut stage = Stage::new(StageConfig { shapes: vec![shape], stored, ..config(rules) });
            feed(&mut stage, &script).unwrap();
            let shown = show(&stage.take_batch());
            assert!(!shown.contains("4111111111111111") && shown.contains("created"), "forgery {n}: {shown}");
        }
    }
}

/// ⚠ Anybody who may write to a sink could else say that a column was called as a protected one is, and nobody would have its values.
#[test]
fn a_stored_shape_that_is_not_sealed_takes_no_column_out_of_the_record() {
    let keys = |ids: &[u32]| {
        let keys = ids.iter().map(|id| ContextKey::new(*id, &[*id as u8; 64]).unwrap()).collect();
        Contexts::new(Vec::new(), ContextKeys { keys, as_of: Lsn::ZERO })
    };
    let rules = protecting("password");
    let rules = Rules { tables: vec![rule("public.patients")], default_protection: true, ..rules };
    let script = format!("{PATIENTS}\n begin 3000\n insert 5 1 visible\n commit").replace("ssn", "remark");
    let shown = |seal: Option<String>, ids: &[u32]| {
        let shape = forged(|shape| {
            column(shape).name = "password".into();
            (shape.schema_version, shape.seal) = (1, seal);
        });
        let stored = Position::new(1, Lsn(2000), 0);
        let config = StageConfig { shapes: vec![shape], stored, contexts: keys(ids), ..config(rules.clone()) };
        let mut stage = Stage::new(config);
        feed(&mut stage, &script).unwrap();
        show(&stage.take_batch())
    };
    let sealed = |id: u32| {
        let shape = forged(|shape| {
            column(shape).name = "password".into();
            (shape.schema_version, shape.seal) = (1, None);
        });
        keys(&[id]).seal(&shape.unsealed())
    };
    assert!(shown(None, &[1]).contains("visible") && shown(Some("1:00".into()), &[1]).contains("visible"));
    assert!(!shown(sealed(1), &[1]).contains("visible"), "a daemon of this source knows what the column was");
    assert!(!shown(sealed(1), &[1, 2, 3, 4, 5]).contains("visible"), "also under a key that was rotated out");
    assert!(!shown(None, &[]).contains("visible"), "without keys nobody can tell");
}

#[test]
fn a_type_that_the_catalog_has_forgotten_is_unknown_whatever_a_sink_says() {
    let odd = |shape: &mut Shape| {
        column(shape).type_oid = 99_999;
        column(shape).type_name = "bigint".into();
        column(shape).kind = Kind::Int8;
    };
    let shape = forged(|shape| {
        odd(shape);
        shape.digest = String::new();
    });
    let mut rules = protecting("other");
    rules.tables[0].protect = Default::default();
    rules.default_protection = true;
    let stored = Position::new(1, Lsn(2000), 0);
    let mut stage = Stage::new(StageConfig { shapes: vec![shape], stored, ..config(rules) });
    let script = "relation 5 patients full id:20 ssn_no:99999\n begin 1000\n insert 5 1 4111111111111111\n commit";
    feed_with(&mut stage, script, |_| None).unwrap();
    let shown = show(&stage.take_batch());
    assert!(!shown.contains("4111111111111111") && shown.contains("created"), "{shown}");
}

#[test]
fn a_type_that_is_gone_counts_as_every_type_though_it_was_known() {
    let inet =
        ProtectionRule { column: None, type_name: Some("inet".into()), content: None, method: Method::Full.into() };
    let rules = Rules { protection: vec![inet], ..Rules::default() };
    let keys = || {
        Contexts::new(Vec::new(), ContextKeys { keys: vec![ContextKey::new(1, &[7; 64]).unwrap()], as_of: Lsn::ZERO })
    };
    let mut stage = Stage::new(StageConfig { contexts: keys(), ..config(rules.clone()) });
    let domain = |relation: &Relation| {
        let mut plain = relation.clone();
        plain.columns.iter_mut().filter(|c| c.type_oid == 99_999).for_each(|c| c.type_oid = 25);
        let mut table = catalog(&plain);
        for (column, sent) in
            table.columns.iter_mut().zip(&relation.columns).filter(|(_, sent)| sent.type_oid == 99_999)
        {
            column.type_oid = sent.type_oid;
            column.type_name = "address".into();
            column.holds = vec!["inet".into()];
        }
        Some(table)
    };
    let first = "begin 1000\n relation 5 t full id:20 ip:99999\n insert 5 1 raw-1\n commit";
    let gone = "begin 2000\n relation 5 t full id:20 ip:99999 x:20\n insert 5 2 raw-2 3\n commit";
    feed_with(&mut stage, first, domain).unwrap();
    let batch = stage.take_batch();
    assert!(show(&batch).contains("[REDACTED]"));
    // The shape as it is read back from a sink, sealed, without the types that its type consists of.
    let shape = serde_json::to_string(batch.versions().next().unwrap().table().shape.as_ref()).unwrap();
    let shapes = vec![serde_json::from_str(&shape).unwrap()];
    let mut stage = Stage::new(StageConfig { shapes, contexts: keys(), ..config(rules) });
    // Table and type no longer exist; a built-in type still has its name.
    let bigint =
        CatalogType { type_oid: 20, typmod: -1, type_name: "bigint".into(), holds: Vec::new(), kind: Kind::Int8 };
    let rest =
        CatalogTable { oid: 0, partitioned: false, columns: Vec::new(), primary_key: Vec::new(), types: vec![bigint] };
    feed_with(&mut stage, gone, |_| Some(rest.clone())).unwrap();
    let shown = show(&stage.take_batch());
    assert!(!shown.contains("raw-") && shown.contains("[REDACTED]"), "{shown}");
}

/// The present catalog, with this primary key for the table of a script.
fn keyed_by(attnums: Vec<i16>) -> impl FnMut(&Relation) -> Option<CatalogTable> {
    move |relation| Some(CatalogTable { primary_key: attnums.clone(), ..catalog(relation) })
}

#[test]
fn a_key_that_is_added_changed_or_dropped_under_full_is_noticed_where_the_table_is_described_again() {
    let mut stage = Stage::new(config(Rules::default()));
    let again =
        |commit: u64, row: &str| format!("begin {commit}\n relation 5 t full id:20 code:20\n insert 5 {row}\n commit");
    let mut shown = String::new();
    for (commit, row, key) in [
        (1000, "1 10", vec![]),
        (2000, "2 20", vec![1]),
        (3000, "3 30", vec![2]),
        (4000, "4 40", vec![]),
        (5000, "5 50", vec![]),
    ] {
        feed_with(&mut stage, &again(commit, row), keyed_by(key)).unwrap();
        shown.push_str(&show(&stage.take_batch()));
    }
    expect![[r#"
        1000.0 created t - {"id": 1, "code": 10}
        2000.0 created t 2 {"id": 2, "code": 20} v2
        3000.0 created t 30 {"id": 3, "code": 30} v3
        4000.0 created t - {"id": 4, "code": 40} v4
        5000.0 created t - {"id": 5, "code": 50} v4
    "#]]
    .assert_eq(&shown);
}

#[test]
fn shapes_with_different_keys_have_different_digests() {
    let mut history = History::default();
    let Ok(Message::Relation(relation)) = decode(&relation("5 t full id:20 code:20"), &mut Scratch::default()) else {
        panic!("no relation")
    };
    let mut digest = |key: Vec<i16>| {
        let table = CatalogTable { primary_key: key, ..catalog(&relation) };
        history.add(&relation, Some(&table), Position::default()).digest.clone()
    };
    let digests: HashSet<String> = [vec![], vec![1], vec![2], vec![1, 2]].map(&mut digest).into();
    assert_eq!(digests.len(), 4);
}

#[test]
fn where_the_stream_passes_again_the_key_is_the_one_that_sinks_have() {
    let script = "begin 1000
         relation 5 t full id:20 code:20
         insert 5 1 10
         commit
         begin 2000
         insert 5 2 20
         commit
         begin 3000
         insert 5 3 30
         commit";
    // The first time, the table had no key yet at 1000, and one was found at 2000.
    let mut first = Stage::new(config(Rules::default()));
    feed_with(&mut first, "begin 1000\n relation 5 t full id:20 code:20\n insert 5 1 10\n commit", keyed_by(vec![]))
        .unwrap();
    feed_with(&mut first, "begin 2000\n relation 5 t full id:20 code:20\n insert 5 2 20\n commit", keyed_by(vec![1]))
        .unwrap();
    let shapes: Vec<Shape> =
        first.take_batch().versions().map(|version| version.table().shape.as_ref().clone()).collect();
    let stored = Position::new(1, Lsn(2000), 0);
    let mut again = Stage::new(StageConfig { shapes, stored, ..config(Rules::default()) });
    let asked = feed_with(&mut again, script, keyed_by(vec![2])).unwrap();
    expect![[r#"
        1000.0 created t - {"id": 1, "code": 10}
        2000.0 created t 2 {"id": 2, "code": 20} v2
        3000.0 created t 30 {"id": 3, "code": 30} v3
    "#]]
    .assert_eq(&show(&again.take_batch()));
    assert_eq!(asked, [5, 5, 5], "at the first change, at the next stored shape, and beyond what is stored");
}

#[test]
fn a_shape_without_versions_has_no_number_so_that_a_replay_counts_alike() {
    let rules = || Rules {
        tables: vec![TableRule { ignore: Some(vec!["seen".into()]), ..rule("public.t") }],
        ..Rules::default()
    };
    let script = "begin 1000
         relation 5 t full id:20 seen:20
         insert 5 1 1
         relation 5 t full id:20 seen:20 a:20
         update 5 1 1 NULL | 1 2 NULL
         relation 5 t full id:20 seen:20 a:20 b:20
         insert 5 2 1 1 1
         commit";
    let mut first = Stage::new(config(rules()));
    feed(&mut first, script).unwrap();
    let batch = first.take_batch();
    let expected = show(&batch);
    expect![[r#"
        1000.0 created t 1 {"id": 1}
        1000.2 created t 2 {"id": 2, "a": 1, "b": 1} v2
    "#]]
    .assert_eq(&expected);
    let shapes: Vec<Shape> = batch.versions().map(|version| version.table().shape.as_ref().clone()).collect();
    // One sink has all shapes, or only the last version's shape, or a shape that was counted under other rules is
    // missing in between.
    for shapes in [shapes.clone(), shapes[1..].to_vec(), shapes[..1].to_vec()] {
        let stored = Position::new(1, Lsn(1000), 2);
        let mut again = Stage::new(StageConfig { shapes, stored, ..config(rules()) });
        feed(&mut again, script).unwrap();
        assert_eq!(show(&again.take_batch()), expected);
    }
}

#[test]
fn a_shape_that_is_met_late_does_not_hide_those_that_follow_it() {
    let script = "begin 1000
         relation 5 t full id:20
         insert 5 1
         relation 5 t full id:20 a:20
         insert 5 2 2
         relation 5 t full id:20 a:20 b:20
         insert 5 3 3 3
         insert 5 4 4 4
         commit";
    let mut first = Stage::new(config(Rules::default()));
    feed(&mut first, script).unwrap();
    let mut shapes: Vec<Shape> =
        first.take_batch().versions().map(|version| version.table().shape.as_ref().clone()).collect();
    // No sink has the second shape; the third has the next number all the same.
    shapes.truncate(3);
    shapes.remove(1);
    shapes[1].schema_version = 2;
    let stored = Position::new(1, Lsn(1000), 3);
    let mut again = Stage::new(StageConfig { shapes, stored, ..config(Rules::default()) });
    feed(&mut again, script).unwrap();
    expect![[r#"
        1000.0 created t 1 {"id": 1}
        1000.1 created t 2 {"id": 2, "a": 2} v3
        1000.2 created t 3 {"id": 3, "a": 3, "b": 3} v2
        1000.3 created t 4 {"id": 4, "a": 4, "b": 4} v2
    "#]]
    .assert_eq(&show(&again.take_batch()));
}

#[test]
fn a_partition_is_nobodys_target_and_is_not_looked_up() {
    let strict = TableRule { strict: Some(true), ..rule("public.*") };
    let allowed = TableRule { allow: Some(vec!["*".into()]), ..rule("public.orders") };
    let mut stage = Stage::new(config(Rules { tables: vec![strict, allowed], ..Rules::default() }));
    let mut script = "begin 1000\n".to_owned();
    for leaf in 0..100 {
        let (oid, id) = (100 + leaf, leaf);
        write!(script, "relation 5 orders full id:20\n relation {oid} orders_p{leaf} full id:20\n insert 5 {id}\n")
            .unwrap();
    }
    script.push_str("commit");
    let asked = feed_with(&mut stage, &script, |relation| Some(catalog(relation))).unwrap();
    assert_eq!(asked, [5]);
    assert_eq!(stage.take_counts().versions, 100);
    // Whatever invalidates the root describes it again together with a known partition: the table is then looked up,
    // once.
    let again = "begin 2000
        relation 5 orders full id:20\n relation 100 orders_p0 full id:20\n insert 5 1000
        relation 5 orders full id:20\n relation 101 orders_p1 full id:20\n insert 5 1001
        commit";
    assert_eq!(feed_with(&mut stage, again, |relation| Some(catalog(relation))).unwrap(), [5]);
}

#[test]
fn tables_of_one_truncate_are_no_partitions_of_one_another() {
    check(
        "begin 1000
         relation 5 users full id:20 name:25
         relation 6 posts default id:20 name:25
         truncate 5 6
         update 5 1 NULL | 1 Ann
         commit",
        expect![[r#"
            1000.0 truncated users - 
            1000.1 truncated posts - 
            1000.2 updated users 1 {"name": [null, "Ann"]}
        "#]],
    );
}

#[test]
fn a_partition_with_an_index_as_its_identity_gives_no_key_of_nulls() {
    // The root's identity is its primary key, the partition's another column: the server marks the row as a key, with
    // NULL for what it does not send.
    check(
        "begin 1000
         relation 5 parted default id:20 code:25
         insert 5 1 a
         delete 5 key NULL a
         commit",
        expect![[r#"
            1000.0 created parted 1 {"id": 1, "code": "a"}
            1000.1 deleted parted - {"code": "a"} before unknown
        "#]],
    );
}

#[test]
fn rows_that_a_migration_left_behind_have_the_key_that_it_kept() {
    let mut stage = Stage::new(config(Rules::default()));
    let later = |relation: &Relation| {
        let mut later = relation.clone();
        later.columns.push(RelationColumn { name: "new".into(), type_oid: 20, typmod: -1, in_identity: true });
        Some(catalog(&later))
    };
    let script = "begin 1000\n relation 5 t full id:20 name:25\n insert 5 7 Ann\n commit";
    feed_with(&mut stage, script, later).unwrap();
    let batch = stage.take_batch();
    assert_eq!(batch.versions().next().unwrap().table().shape.key_source, KeySource::Carried);
    expect![[r#"
        1000.0 created t 7 {"id": 7, "name": "Ann"}
    "#]]
    .assert_eq(&show(&batch));
}

#[test]
fn shapes_that_earlier_releases_stored_are_read_and_go_on() {
    let text = r#"{"schema": "public", "table": "patients", "schema_version": 4, "digest": "DIGEST",
        "first": "0001:0000000000000064:0000000000", "key": ["id"], "key_source": "catalog", "whole_old_rows": true, "columns": [
        {"name": "id", "type_oid": 20, "typmod": -1, "type_name": "t", "kind": "int8", "attnum": 1, "in_identity": true},
        {"name": "ssn", "type_oid": 25, "typmod": -1, "type_name": "text", "kind": "text", "attnum": 2, "in_identity": true}]}"#;
    let digest = forged(|_| {}).digest;
    let shape: Shape = serde_json::from_str(&text.replace("DIGEST", &digest)).unwrap();
    let mut stage = Stage::new(StageConfig { shapes: vec![shape], ..config(Rules::default()) });
    feed(&mut stage, &format!("{PATIENTS}\n begin 1000\n insert 5 1 x\n commit")).unwrap();
    expect![[r#"
        1000.0 created patients 1 {"id": 1, "ssn": "x"} v5
    "#]]
    .assert_eq(&show(&stage.take_batch()));
}

/// What is derived from earlier versions depends on the rules, so every version says by its shape which it was made
/// under.
#[test]
fn other_rules_are_another_shape_and_the_same_rules_are_not() {
    let mut shapes: Vec<Shape> = Vec::new();
    let mut number = |rules: Rules, lsn: u64, hash_key: &str| {
        let stored = Position::new(1, Lsn(lsn - 1), 0);
        let mut given = StageConfig { shapes: shapes.clone(), stored, ..config(rules) };
        given.policy.hash_key = Some(MacKey::new(hash_key, b"secret"));
        let mut stage = Stage::new(given);
        feed(&mut stage, &format!("{PATIENTS}\n begin {lsn}\n insert 5 1 x\n commit")).unwrap();
        let batch = stage.take_batch();
        let shape = batch.versions().next().unwrap().table().shape.as_ref().clone();
        shapes.retain(|known| known.schema_version != shape.schema_version);
        shapes.push(shape.clone());
        shape.schema_version
    };
    let under = |change: fn(&mut TableRule)| {
        let mut rules = protecting("other");
        rules.tables[0].protect = [("ssn".to_owned(), Protect::from(Method::Hash))].into();
        change(&mut rules.tables[0]);
        rules
    };
    assert_eq!(number(under(|_| {}), 1000, "1"), 1);
    assert_eq!(number(under(|_| {}), 2000, "1"), 1);
    assert_eq!(number(under(|_| {}), 3000, "2"), 2, "another key");
    assert_eq!(number(under(|rule| rule.events = Some(vec![RowEvent::Created])), 4000, "2"), 3);
    assert_eq!(number(under(|rule| rule.row_filter = Some("id > 0".into())), 5000, "2"), 4);
    assert_eq!(number(under(|rule| rule.ignore_alone = Some(vec!["ssn".into()])), 6000, "2"), 5);
    assert_eq!(number(under(|rule| rule.protect = Default::default()), 7000, "2"), 6);
    assert_eq!(number(under(|rule| rule.protect = Default::default()), 8000, "3"), 6, "nothing is hashed");
}
