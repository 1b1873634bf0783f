//! Renaming a column, a table or a schema is not a decision about what is protected.

use audit_core::context::{ContextKey, ContextKeys};
use audit_core::mac::MacKey;
use audit_core::method::{Method, Protect};

use super::*;

fn protecting(table: &str, column: &str) -> TableRule {
    let mut rule = rule(table);
    rule.protect.insert(column.into(), Protect::from(Method::Full));
    rule
}

fn rules(table: TableRule) -> Rules {
    Rules { tables: vec![table], ..Rules::default() }
}

fn keys() -> Contexts {
    let keys = vec![ContextKey::new(1, &[7; 64]).unwrap()];
    Contexts::new(Vec::new(), ContextKeys { keys, as_of: Lsn::ZERO })
}

fn insert(commit: u64, relation: &str) -> String {
    format!("begin {commit}\n relation 5 {relation}\n insert 5 1 secret x\n commit")
}

/// What is recorded for each relation in turn; with `restart`, each is recorded by a new daemon.
fn recorded(rules: &Rules, relations: &[&str], restart: bool) -> String {
    let fresh = |shapes: Vec<Shape>, stored| {
        Stage::new(StageConfig { shapes, stored, contexts: keys(), ..config(rules.clone()) })
    };
    let mut stage = fresh(Vec::new(), Position::default());
    let (mut shapes, mut shown) = (Vec::new(), String::new());
    for (n, relation) in relations.iter().enumerate() {
        let commit = 1000 * (n as u64 + 1);
        if let Err(error) = feed(&mut stage, &insert(commit, relation)) {
            return format!("{shown}{error}: {}\n", error.hint());
        }
        let batch = stage.take_batch();
        shown.push_str(&show(&batch));
        shapes.extend(batch.versions().map(|version| version.table().shape.as_ref().clone()));
        if restart {
            // The shapes as they are read back from a sink.
            let back = |shape: &Shape| serde_json::from_str(&serde_json::to_string(shape).unwrap()).unwrap();
            stage = fresh(shapes.iter().map(back).collect(), Position::new(1, Lsn(commit), 0));
        }
    }
    shown
}

#[test]
fn a_renamed_column_stays_protected() {
    let rules = rules(protecting("public.patients", "ssn"));
    let relations = [
        "patients full id:20 ssn:25 note:25",
        "patients full id:20 social_no:25 note:25",
        "patients full id:20 no:25 note:25",
    ];
    for restart in [false, true] {
        let shown = recorded(&rules, &relations, restart);
        expect![[r#"
            1000.0 created patients 1 {"id": 1, "ssn": "[REDACTED]", "note": "x"}
            2000.0 created patients 1 {"id": 1, "social_no": "[REDACTED]", "note": "x"} v2
            3000.0 created patients 1 {"id": 1, "no": "[REDACTED]", "note": "x"} v3
        "#]]
        .assert_eq(&shown);
    }
}

#[test]
fn whatever_protected_or_left_out_a_column_does_so_under_its_new_name() {
    let pattern = rules(protecting("public.*", "*_ssn"));
    let ignored = rules(TableRule { ignore: Some(vec!["my_ssn".into()]), ..rule("public.patients") });
    let default = Rules { default_protection: true, ..Rules::default() };
    let relations = ["patients full id:20 my_ssn:25 note:25", "patients full id:20 social_no:25 note:25"];
    for rules in [pattern, ignored, default] {
        for restart in [false, true] {
            let shown = recorded(&rules, &relations, restart);
            assert!(!shown.contains("secret") && shown.contains("2000.0 created"), "{shown}");
        }
    }
}

/// A pattern that allows columns was not written for the new name; an exact name was.
#[test]
fn a_pattern_that_permits_does_not_end_protection_at_a_rename() {
    let relations = ["patients full id:20 ssn:25 note:25", "patients full id:20 social_no:25 note:25"];
    for (allow, is_shown) in [("*", false), ("*_no", false), ("social_no", true)] {
        let rule = TableRule { allow: Some(vec![allow.into()]), ..protecting("public.patients", "ssn") };
        for restart in [false, true] {
            let shown = recorded(&rules(rule.clone()), &relations, restart);
            assert_eq!(shown.contains("secret"), is_shown, "{allow}: {shown}");
        }
    }
}

#[test]
fn a_column_that_was_left_out_is_recorded_once_a_rule_names_it_as_it_is_called_now() {
    let ignored = TableRule { ignore: Some(vec!["ssn".into()]), ..rule("public.*") };
    let allowed = TableRule { allow: Some(vec!["nickname".into()]), ..ignored.clone() };
    let mut protected = ignored;
    protected.protect.insert("nickname".into(), Protect::from(Method::Full));
    let relations = ["patients full id:20 ssn:25 note:25", "patients full id:20 nickname:25 note:25"];
    for (rule, expected) in [(allowed, r#""nickname": "secret""#), (protected, r#""nickname": "[REDACTED]""#)] {
        for restart in [false, true] {
            let shown = recorded(&rules(rule.clone()), &relations, restart);
            assert!(shown.contains(expected), "{shown}");
        }
    }
}

/// An operator who writes the new name into the configuration restarts the daemon, which may still have to read what
/// was done before the rename.
#[test]
fn a_rule_for_the_new_name_holds_for_what_the_stream_has_of_the_old_one() {
    let before = "patients full id:20 ssn:25 note:25";
    let later = |relation: &Relation| {
        let mut table = catalog(relation);
        table.columns[1].name = "social_no".into();
        Some(table)
    };
    let mut stage = Stage::new(StageConfig { contexts: keys(), ..config(rules(protecting("public.patients", "ssn"))) });
    feed(&mut stage, &insert(1000, before)).unwrap();
    let sealed = stage.take_batch().versions().next().unwrap().table().shape.as_ref().clone();
    let unsealed = Shape { seal: None, ..sealed.clone() };
    for (shapes, expected) in [
        (vec![sealed], r#"{"id": 1, "ssn": "[REDACTED]", "note": "x"}"#),
        (vec![unsealed], r#"{"id": 1, "note": "x"}"#),
        (Vec::new(), r#"{"id": 1, "note": "x"}"#),
    ] {
        let named = rules(protecting("public.patients", "social_no"));
        let mut stage = Stage::new(StageConfig { shapes, contexts: keys(), ..config(named) });
        feed_with(&mut stage, &insert(2000, before), later).unwrap();
        let shown = show(&stage.take_batch());
        assert!(shown.contains(expected), "{shown}");
    }
}

#[test]
fn permission_is_not_carried_to_a_new_name() {
    let mut open = protecting("public.patients", "*");
    open.allow = Some(vec!["note".into(), "id".into()]);
    let relations = ["patients full id:20 ssn:25 note:25", "patients full id:20 ssn:25 remark:25"];
    let shown = recorded(&rules(open), &relations, false);
    assert!(shown.contains(r#""note": "x""#) && shown.contains(r#""remark": "[REDACTED]""#), "{shown}");
}

#[test]
fn names_that_are_exchanged_exchange_nothing() {
    let rules = rules(protecting("public.patients", "ssn"));
    let relations = ["patients full id:20 ssn:25 note:25", "patients full id:20 note:25 ssn:25"];
    let shown = recorded(&rules, &relations, false);
    assert!(!shown.lines().nth(1).unwrap().contains("secret"), "{shown}");
}

/// The stream describes the table as before, and only the catalog's number shows that the column is another one.
#[test]
fn a_column_that_was_added_again_stays_protected_under_its_next_name() {
    let rules = rules(protecting("public.patients", "ssn"));
    let fresh = |shapes: Vec<Shape>, stored| {
        Stage::new(StageConfig { shapes, stored, contexts: keys(), ..config(rules.clone()) })
    };
    let again = |relation: &Relation| {
        let mut table = catalog(relation);
        table.columns[2].attnum = 4;
        Some(table)
    };
    let row = |commit: u64, column: &str| {
        format!("begin {commit}\n relation 5 patients full id:20 note:25 {column}:25\n insert 5 1 x secret\n commit")
    };
    for restart in [false, true] {
        let mut stage = fresh(Vec::new(), Position::default());
        feed(&mut stage, &row(1000, "ssn")).unwrap();
        feed_with(&mut stage, &row(2000, "ssn"), again).unwrap();
        let batch = stage.take_batch();
        if restart {
            let shapes = batch.versions().map(|version| version.table().shape.as_ref().clone()).collect();
            stage = fresh(shapes, Position::new(1, Lsn(2000), 0));
        }
        feed_with(&mut stage, &row(3000, "social_no"), again).unwrap();
        let shown = show(&batch) + &show(&stage.take_batch());
        assert!(shown.contains("3000.0 created") && !shown.contains("secret"), "{shown}");
    }
}

#[test]
fn what_may_be_a_protected_column_is_withheld_where_nobody_can_say() {
    let mut stage = Stage::new(config(rules(protecting("public.patients", "ssn"))));
    let known = |relation: &Relation| Some(catalog(relation));
    feed_with(&mut stage, &insert(1000, "patients full id:20 ssn:25 note:25"), known).unwrap();
    feed_with(&mut stage, &insert(2000, "patients full id:20 social_no:25 note:25"), |_| None).unwrap();
    let batch = stage.take_batch();
    expect![[r#"
        1000.0 created patients 1 {"id": 1, "ssn": "[REDACTED]", "note": "x"}
        2000.0 created patients 1 {"id": 1, "note": "x"} v2
    "#]]
    .assert_eq(&show(&batch));
    let last = batch.versions().last().unwrap();
    assert_eq!(
        (last.table().withheld.as_slice(), last.table().lost.as_slice()),
        (&["social_no".to_owned()][..], &["social_no".to_owned()][..])
    );
    let lost: u64 = batch.table_counts().map(|(_, count)| count.lost_protection).sum();
    assert_eq!(lost, 1);
}

#[test]
fn a_name_in_protect_that_no_column_has_is_refused_unless_it_was_there_before() {
    let own = rules(protecting("public.patients", "ssn"));
    let (with, without) = ("patients full id:20 ssn:25 note:25", "patients full id:20 social_no:25 note:25");
    let said = recorded(&own, &[without], false);
    expect![[r#"
        table public.patients: the rules protect column ssn, and the table has no such column: name the column in `protect` as it is called now: its columns are id, social_no, note. For a column that is still to come a pattern will do: `ssn*`
    "#]]
    .assert_eq(&said);
    // A rule for many tables may name columns that only some of them have.
    assert!(recorded(&rules(protecting("public.*", "ssn")), &[without], false).contains("secret"));
    // The catalog is ahead of the stream: the column will come.
    let mut stage = Stage::new(config(own.clone()));
    let later = |relation: &Relation| {
        let mut later = relation.clone();
        later.columns.push(RelationColumn { name: "ssn".into(), type_oid: 25, typmod: -1, in_identity: true });
        Some(catalog(&later))
    };
    feed_with(&mut stage, &insert(1000, without), later).unwrap();
    // A shape that anyone may have written does not prove that the column was dropped.
    let mut stage = Stage::new(StageConfig { contexts: keys(), ..config(own.clone()) });
    feed(&mut stage, &insert(1000, with)).unwrap();
    let sealed = stage.take_batch().versions().next().unwrap().table().shape.as_ref().clone();
    let mut moved = sealed.clone();
    moved.columns[1].attnum = Some(9);
    let rotated = || {
        let keys = (1..5).map(|id| ContextKey::new(id, &[7; 64]).unwrap()).collect();
        Contexts::new(Vec::new(), ContextKeys { keys, as_of: Lsn::ZERO })
    };
    for (shape, contexts, expected) in [
        (sealed.clone(), keys(), true),
        (moved, keys(), false),
        (Shape { seal: None, ..sealed.clone() }, keys(), false),
        // Others may have a key that was rotated out.
        (sealed, rotated(), false),
    ] {
        let stored = Position::new(1, Lsn(1000), 0);
        let mut stage = Stage::new(StageConfig { shapes: vec![shape], stored, contexts, ..config(own.clone()) });
        let fed = feed(&mut stage, &insert(2000, without));
        assert_eq!(fed.is_ok(), expected, "{fed:?}");
        assert!(!show(&stage.take_batch()).contains("secret"));
    }
}

#[test]
fn a_renamed_table_keeps_its_rules_until_it_is_named() {
    let before = "patients full id:20 ssn:25 note:25";
    let after = "patients_2025 full id:20 ssn:25 note:25";
    let own = protecting("public.patients", "ssn");
    for restart in [false, true] {
        let shown = recorded(&rules(own.clone()), &[before, after], restart);
        expect![[r#"
            1000.0 created patients 1 {"id": 1, "ssn": "[REDACTED]", "note": "x"}
            2000.0 created patients_2025 1 {"id": 1, "ssn": "[REDACTED]", "note": "x"}
        "#]]
        .assert_eq(&shown);
    }
    // The table is still captured if only named tables are.
    let taken = TableRule { capture: Some(true), ..own.clone() };
    assert!(recorded(&rules(taken), &[before, after], false).contains("2000.0 created"));
    // An operator who names it decides.
    let named = Rules { tables: vec![own.clone(), rule("public.patients_2025")], ..Rules::default() };
    assert!(recorded(&named, &[before, after], false).contains("secret"));
    // A rule with both names applies to both.
    let both = TableRule { name: "public.patients_2025".into(), former_names: vec!["public.patients".into()], ..own };
    let shown = recorded(&rules(both), &[before, after], false);
    assert!(!shown.contains("secret") && shown.lines().count() == 2, "{shown}");
}

#[test]
fn a_renamed_table_is_counted_as_one_whose_protection_hangs_on_a_name() {
    let mut stage = Stage::new(config(rules(protecting("public.patients", "ssn"))));
    for (commit, table, expected) in [(1000, "patients", 0), (2000, "patients_2025", 1)] {
        feed(&mut stage, &insert(commit, &format!("{table} full id:20 ssn:25 note:25"))).unwrap();
        let lost: u64 = stage.take_batch().table_counts().map(|(_, count)| count.lost_protection).sum();
        assert_eq!(lost, expected);
    }
}

/// A table with a partition, and what is inserted into the two: into the partition as part of the table, then by itself.
const DETACHED: [&str; 2] = [
    "begin 1000\n relation 5 m full id:20 ssn:25 note:25\n relation 6 m_01 full id:20 ssn:25 note:25\n insert 5 1 secret x\n commit",
    "begin 2000\n relation 6 m_01 full id:20 ssn:25 note:25\n insert 6 2 secret x\n commit",
];

#[test]
fn a_partition_that_is_detached_keeps_the_rules_of_its_table_until_it_is_named() {
    let own = protecting("public.m", "ssn");
    let names = FormerNames::default();
    let fresh = |rules| Stage::new(StageConfig { contexts: keys(), names: names.clone(), ..config(rules) });
    let mut stage = fresh(rules(own.clone()));
    feed(&mut stage, DETACHED[0]).unwrap();
    feed(&mut stage, DETACHED[1]).unwrap();
    let batch = stage.take_batch();
    expect![[r#"
        1000.0 created m 1 {"id": 1, "ssn": "[REDACTED]", "note": "x"}
        2000.0 created m_01 2 {"id": 2, "ssn": "[REDACTED]", "note": "x"}
    "#]]
    .assert_eq(&show(&batch));
    let lost: u64 = batch.table_counts().map(|(_, count)| count.lost_protection).sum();
    assert_eq!(lost, 1, "it hangs on what the partition was");
    // What the source has stored of names is known after a start.
    let mut stage = fresh(rules(own.clone()));
    feed(&mut stage, DETACHED[1]).unwrap();
    assert!(!show(&stage.take_batch()).contains("secret"));
    // Who names it decides.
    let mut stage = fresh(Rules { tables: vec![own.clone(), rule("public.m_01")], ..Rules::default() });
    feed(&mut stage, DETACHED[1]).unwrap();
    assert!(show(&stage.take_batch()).contains("secret"));
}

/// The column numbers of a partition are its own, so that nobody can tell which column it is.
#[test]
fn a_column_that_is_renamed_right_after_its_partition_was_detached_is_withheld() {
    for column in ["ssn", "*ssn"] {
        let mut stage = Stage::new(StageConfig { contexts: keys(), ..config(rules(protecting("public.m", column))) });
        feed(&mut stage, DETACHED[0]).unwrap();
        feed(&mut stage, &DETACHED[1].replace("ssn", "social_no")).unwrap();
        let shown = show(&stage.take_batch());
        assert!(!shown.contains("secret") && shown.contains("2000.0 created m_01 2"), "{shown}");
    }
}

/// The catalog, from which names are stored, may be ahead of the stream.
#[test]
fn a_name_of_the_future_leaves_nothing_out() {
    let names = FormerNames::default();
    names.stored([(5, TableName::new("public", "patients_old"), Lsn(1500))]);
    let left_out = TableRule { capture: Some(false), ..rule("public.*_old") };
    let mut stage = Stage::new(StageConfig { names, ..config(rules(left_out)) });
    feed(&mut stage, &insert(1000, "patients full id:20 ssn:25 note:25")).unwrap();
    assert!(show(&stage.take_batch()).contains("1000.0 created patients"));
}

/// Nor does a name that the table had for a while.
#[test]
fn a_rename_that_was_taken_back_leaves_nothing_out() {
    let names = FormerNames::default();
    names.stored(
        [("patients", 500), ("patients_old", 600)].map(|(name, seen)| (5, TableName::new("public", name), Lsn(seen))),
    );
    let left_out = TableRule { capture: Some(false), ..rule("public.*_old") };
    let mut stage = Stage::new(StageConfig { names, ..config(rules(left_out)) });
    feed(&mut stage, &insert(1000, "patients full id:20 ssn:25 note:25")).unwrap();
    assert!(show(&stage.take_batch()).contains("1000.0 created patients"));
}

#[test]
fn a_key_column_that_is_not_recorded_is_not_in_the_key_either() {
    let untracked = [
        TableRule { ignore: Some(vec!["id".into()]), ..rule("public.users") },
        TableRule { only: Some(vec!["name".into()]), ..rule("public.users") },
    ];
    let script = "relation 5 users full id:20 name:25\n begin 1000\n insert 5 4711 Ann\n commit";
    for rule in untracked {
        let error = feed(&mut Stage::new(config(rules(rule.clone()))), script).unwrap_err();
        assert!(error.to_string().contains("not recorded"), "{error}");
        assert!(error.hint().contains("protection.row_key"), "{}", error.hint());
        let policy = Policy { row_key: Some(MacKey::new("r", b"0123456789abcdef")), ..Policy::default() };
        let mut stage = Stage::new(StageConfig { policy, ..config(rules(rule.clone())) });
        feed(&mut stage, script).unwrap();
        let shown = show(&stage.take_batch());
        assert!(shown.contains("hmac-sha256:r:") && !shown.contains("4711"), "{shown}");
        // An operator who allows it, or records it in another place, has decided.
        for decided in [
            TableRule { allow: Some(vec!["id".into()]), ..rule.clone() },
            TableRule { include: Some(vec!["id".into()]), ..rule },
        ] {
            let mut stage = Stage::new(config(rules(decided)));
            feed(&mut stage, script).unwrap();
            assert!(show(&stage.take_batch()).contains("users 4711"));
        }
    }
}
