//! What is tracked: events, soft deletions, and a different key.

use audit_core::events::{Columns, RowEvent};

use super::*;

fn with(rule: TableRule) -> StageConfig {
    config(Rules { tables: vec![rule], ..Rules::default() })
}

#[test]
fn events_that_are_not_selected_make_no_version_but_keep_their_number() {
    check_with(
        with(TableRule { events: Some(vec![RowEvent::Created, RowEvent::Deleted]), ..rule("public.users") }),
        "relation 5 users full id:20 name:25
         begin 1000
         insert 5 1 Ann
         update 5 1 Ann | 1 Bea
         truncate 5
         delete 5 1 Bea
         commit",
        expect![[r#"
            1000.0 created users 1 {"id": 1, "name": "Ann"}
            1000.3 deleted users 1 {"id": 1, "name": "Bea"}
        "#]],
    );
}

#[test]
fn a_column_that_marks_rows_as_deleted_turns_updates_into_discarded_and_restored() {
    let marks = Columns::Several(vec!["discarded_at".into(), "is_deleted".into()]);
    check_with(
        with(TableRule { soft_delete: Some(marks), ..rule("public.users") }),
        "relation 5 users full id:20 name:25 discarded_at:25 is_deleted:16
         relation 6 users default id:20 name:25 discarded_at:25 is_deleted:16
         begin 1000
         insert 5 1 Ann now f
         update 5 1 Ann NULL f | 1 Ann now f
         update 5 1 Ann now f | 1 Bea now t
         update 5 1 Bea now t | 1 Bea later t
         update 5 1 Bea later t | 1 Bea NULL NULL
         update 5 1 Bea NULL NULL | 2 Bea NULL t
         update 6 1 Bea now t
         commit",
        expect![[r#"
            1000.0 created users 1 {"id": 1, "name": "Ann", "discarded_at": "now", "is_deleted": false}
            1000.1 discarded users 1 {"discarded_at": [null, "now"]}
            1000.2 updated users 1 {"name": ["Ann", "Bea"], "is_deleted": [false, true]}
            1000.3 updated users 1 {"discarded_at": ["now", "later"]}
            1000.4 restored users 1 {"discarded_at": ["later", null], "is_deleted": [true, null]}
            1000.5 discarded users 2 (was 1) {"id": [1, 2], "is_deleted": [null, true]}
            1000.6 updated users 1 {"id": 1, "name": "Bea", "discarded_at": "now", "is_deleted": true} before unknown v2
        "#]],
    );
}

#[test]
fn another_key_names_rows() {
    let key = |columns: &[&str]| TableRule {
        key: Some(columns.iter().map(|column| column.to_string()).collect()),
        ..rule("public.keyless")
    };
    let script = "relation 5 keyless full tenant:20 code:25 v:23
         begin 1000
         insert 5 1 a 1
         update 5 1 a 1 | 1 b 1
         delete 5 1 b 1
         insert 5 1 NULL 1
         commit";
    check_with(
        with(key(&["code", "tenant"])),
        script,
        expect![[r#"
            1000.0 created keyless ["a",1] {"tenant": 1, "code": "a", "v": 1}
            1000.1 updated keyless ["b",1] (was ["a",1]) {"code": ["a", "b"]}
            1000.2 deleted keyless ["b",1] {"tenant": 1, "code": "b", "v": 1}
            1000.3 created keyless - {"tenant": 1, "code": null, "v": 1}
        "#]],
    );
    check_with(
        with(key(&["tennant"])),
        script,
        expect![[r#"
            error: table public.keyless: there is no column tennant, which the rules make part of its key
        "#]],
    );
    let mut stage = Stage::new(with(key(&["tennant"])));
    assert_eq!(feed(&mut stage, script).unwrap_err().hint(), "did you mean `tenant`?");
}
