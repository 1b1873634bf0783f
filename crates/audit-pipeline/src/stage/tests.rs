//! Messages in, versions out, as text.
//!
//! ```text
//! relation 5 users full id:20 name:25      identity: full, default (the first column is the key), nothing
//! begin 1000                               commit LSN
//! insert 5 1 Ann                           NULL, and ~ for an unchanged TOAST value
//! update 5 1 Ann | 1 Bea                   old and new, or new alone; `key` before the old one: identity columns only
//! delete 5 1 Bea
//! context {"actor_id": "7"}
//! commit
//! ```

#![allow(clippy::unwrap_used, clippy::panic)]

use std::fmt::Write;

use audit_cipher::{Limits, Sealer};
use audit_core::quarantine::Quarantined;
use audit_core::record::{unknown_columns, write_changes, write_image, write_included};
use audit_core::rules::TableRule;
use audit_core::shape::{CatalogColumn, CatalogTable, Identity, RelationColumn};
use audit_core::sink::Checkpoint;
use audit_core::value::Kind;
use expect_test::{Expect, expect};

use super::*;
use crate::continuity::{Server, judge};

mod bound;
mod identity;
mod inside;
mod keys;
mod members;
mod protection;
mod renames;
mod subjects;
mod tracked;

fn cstr(text: &str) -> Vec<u8> {
    [text.as_bytes(), b"\0"].concat()
}

fn tuple(values: &str) -> Vec<u8> {
    let values: Vec<&str> = values.split_whitespace().collect();
    let mut out = (values.len() as u16).to_be_bytes().to_vec();
    for value in values {
        match value {
            "NULL" => out.push(b'n'),
            "~" => out.push(b'u'),
            text => out.extend([b"t".as_slice(), &(text.len() as u32).to_be_bytes(), text.as_bytes()].concat()),
        }
    }
    out
}

fn relation(rest: &str) -> Vec<u8> {
    let mut words = rest.split_whitespace();
    let oid: u32 = words.next().unwrap().parse().unwrap();
    let name = words.next().unwrap();
    let identity = words.next().unwrap();
    let columns: Vec<(&str, &str)> = words.map(|w| w.split_once(':').unwrap()).collect();
    let mut out = [b"R".as_slice(), &oid.to_be_bytes(), &cstr("public"), &cstr(name)].concat();
    out.push(match identity {
        "full" => b'f',
        "nothing" => b'n',
        _ => b'd',
    });
    out.extend((columns.len() as u16).to_be_bytes());
    for (i, (name, oid)) in columns.iter().enumerate() {
        out.push(u8::from(identity == "full" || (identity == "default" && i == 0)));
        out.extend(cstr(name));
        out.extend(oid.parse::<u32>().unwrap().to_be_bytes());
        out.extend((-1i32).to_be_bytes());
    }
    out
}

fn message(line: &str, commit: &mut u64) -> Vec<u8> {
    let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
    let row = |rest: &str| {
        let (oid, values) = rest.split_once(' ').unwrap();
        (oid.parse::<u32>().unwrap().to_be_bytes(), values.to_string())
    };
    let old = |values: &str| match values.trim().strip_prefix("key ") {
        Some(values) => [b"K".as_slice(), &tuple(values)].concat(),
        None => [b"O".as_slice(), &tuple(values)].concat(),
    };
    match verb {
        "relation" => relation(rest),
        "type" => {
            let oid = rest.parse::<u32>().unwrap().to_be_bytes();
            [b"Y".as_slice(), &oid, &cstr("public"), &cstr("mood")].concat()
        }
        "begin" => {
            *commit = rest.parse().unwrap();
            [b"B".as_slice(), &commit.to_be_bytes(), &0u64.to_be_bytes(), &7u32.to_be_bytes()].concat()
        }
        "commit" => {
            [b"C\0".as_slice(), &commit.to_be_bytes(), &(*commit + 8).to_be_bytes(), &0u64.to_be_bytes()].concat()
        }
        "insert" => {
            let (oid, values) = row(rest);
            [b"I".as_slice(), &oid, b"N", &tuple(&values)].concat()
        }
        "update" => {
            let (oid, values) = row(rest);
            let (before, after) = match values.split_once('|') {
                Some((before, after)) => (old(before), after.to_string()),
                None => (Vec::new(), values),
            };
            [b"U".as_slice(), &oid, &before, b"N", &tuple(&after)].concat()
        }
        "delete" => {
            let (oid, values) = row(rest);
            [b"D".as_slice(), &oid, &old(&values)].concat()
        }
        "truncate" => {
            let oids: Vec<u32> = rest.split_whitespace().map(|oid| oid.parse().unwrap()).collect();
            let mut out = [b"T".as_slice(), &(oids.len() as u32).to_be_bytes(), b"\0"].concat();
            oids.iter().for_each(|oid| out.extend(oid.to_be_bytes()));
            out
        }
        "context" => {
            let length = (rest.len() as u32).to_be_bytes();
            [b"M\x01".as_slice(), &0u64.to_be_bytes(), &cstr("cdc-audit"), &length, rest.as_bytes()].concat()
        }
        "garbage" => b"I".to_vec(),
        // A description, and a message between transactions, that are truncated.
        "undescribed" => [b"R".as_slice(), &rest.parse::<u32>().unwrap().to_be_bytes()].concat(),
        "unsaid" => b"M\0".to_vec(),
        other => panic!("no verb {other}"),
    }
}

/// Class `pii`, without any key; the smallest possible number of data subjects' keys is kept.
fn sealer() -> Arc<Sealer> {
    let limits = Limits {
        rotate_after: std::time::Duration::from_secs(3_600),
        rotate_count: 100,
        subjects_max: std::num::NonZeroUsize::MIN,
        subject_for: std::time::Duration::from_secs(3_600),
    };
    Arc::new(Sealer::new("shop", [("pii".to_owned(), limits)]))
}

fn config(rules: Rules) -> StageConfig {
    let server = Server { system_id: 1, timeline: 1, forks: Vec::new(), wal_end: Lsn(1 << 40), slot_start: Lsn::ZERO };
    StageConfig {
        rules,
        names: FormerNames::default(),
        policy: Policy::default(),
        verdict: judge(&server, &[(Arc::from("hot"), None)]),
        contexts: Contexts::default(),
        shapes: Vec::new(),
        stored: Position::default(),
        checks: Vec::new(),
        quarantine: Quarantine::new(),
    }
}

/// The catalog's answer: the first column of every table is its primary key, except for tables named `keyless`.
fn catalog(relation: &Relation) -> CatalogTable {
    let column = |(i, c): (usize, &RelationColumn)| CatalogColumn {
        name: c.name.clone(),
        attnum: i as i16 + 1,
        type_oid: c.type_oid,
        typmod: c.typmod,
        type_name: if c.type_oid == 25 { "text" } else { "t" }.into(),
        holds: Vec::new(),
        kind: Kind::of(c.type_oid, c.typmod).unwrap(),
        published: true,
    };
    let keyless = relation.name.table == "keyless";
    CatalogTable {
        oid: relation.oid,
        partitioned: relation.name.table == "parted",
        columns: relation.columns.iter().enumerate().map(column).collect(),
        primary_key: if keyless { Vec::new() } else { vec![1] },
        types: Vec::new(),
    }
}

fn feed(stage: &mut Stage, script: &str) -> Result<(), StageError> {
    feed_with(stage, script, |relation| Some(catalog(relation)).filter(|_| relation.name.table != "unlisted"))
        .map(|_| ())
}

/// Returns the oids that were looked up.
fn feed_with(
    stage: &mut Stage,
    script: &str,
    mut catalog: impl FnMut(&Relation) -> Option<CatalogTable>,
) -> Result<Vec<u32>, StageError> {
    let (mut commit, mut asked) = (0, Vec::new());
    for (n, line) in script.lines().map(str::trim).filter(|line| !line.is_empty()).enumerate() {
        let message = message(line, &mut commit);
        while let Some(relation) = stage.message(&message, Lsn(commit + n as u64))? {
            asked.push(relation.oid);
            stage.describe(&relation, catalog(&relation).as_ref())?;
        }
    }
    Ok(asked)
}

fn show(batch: &Batch) -> String {
    let mut out = String::new();
    for v in batch.versions() {
        let position = v.position();
        write!(out, "{}.{} {} {}", position.commit_lsn.0, position.seq, v.event().name(), v.table().shape.table)
            .unwrap();
        write!(out, " {}", v.key().unwrap_or("-")).unwrap();
        if let Some(old) = v.old_key() {
            write!(out, " (was {old})").unwrap();
        }
        let mut json = Vec::new();
        if !write_changes(&mut json, &v)
            && let Some((_, image)) = audit_core::record::full_image(&v)
        {
            write_image(&mut json, image);
        }
        write!(out, " {}", String::from_utf8(json).unwrap()).unwrap();
        let mut included = Vec::new();
        if write_included(&mut included, &v) {
            write!(out, " including {}", String::from_utf8(included).unwrap()).unwrap();
        }
        let unknown: Vec<&str> = unknown_columns(&v).collect();
        if !unknown.is_empty() {
            write!(out, " unknown {}", unknown.join(",")).unwrap();
        }
        if !v.before_known() {
            out.push_str(" before unknown");
        }
        if let Some(source) = v.actor_source() {
            write!(out, " by {} ({})", v.actor_id().unwrap_or("?"), source.name()).unwrap();
        }
        if v.table().shape.schema_version > 1 {
            write!(out, " v{}", v.table().shape.schema_version).unwrap();
        }
        out.push('\n');
    }
    out
}

fn rule(name: &str) -> TableRule {
    TableRule { name: name.into(), ..TableRule::default() }
}

fn check_with(config: StageConfig, script: &str, expected: Expect) {
    let mut stage = Stage::new(config);
    let shown = match feed(&mut stage, script) {
        Ok(()) => show(&stage.take_batch()),
        Err(error) => format!("{}error: {error}\n", show(&stage.take_batch())),
    };
    expected.assert_eq(&shown);
}

fn check(script: &str, expected: Expect) {
    check_with(config(Rules::default()), script, expected);
}

#[test]
fn a_row_from_creation_to_deletion() {
    check(
        "relation 5 users full id:20 name:25 age:23
         begin 1000
         insert 5 1 Ann 30
         update 5 1 Ann 30 | 1 Bea 30
         delete 5 1 Bea 30
         commit",
        expect![[r#"
            1000.0 created users 1 {"id": 1, "name": "Ann", "age": 30}
            1000.1 updated users 1 {"name": ["Ann", "Bea"]}
            1000.2 deleted users 1 {"id": 1, "name": "Bea", "age": 30}
        "#]],
    );
}

#[test]
fn without_an_old_row_what_changed_is_unknown_and_the_whole_row_is_kept() {
    check(
        "relation 5 users default id:20 name:25 bio:25
         begin 1000
         update 5 1 Ann ~
         update 5 key 1 NULL NULL | 2 Ann x
         delete 5 key 2 NULL NULL
         commit",
        expect![[r#"
            1000.0 updated users 1 {"id": 1, "name": "Ann"} unknown bio before unknown
            1000.1 updated users 2 (was 1) {"id": 2, "name": "Ann", "bio": "x"} before unknown
            1000.2 deleted users 2 {"id": 2} before unknown
        "#]],
    );
}

#[test]
fn an_unchanged_toast_value_is_taken_from_the_old_row() {
    check(
        "relation 5 users full id:20 bio:25 age:23
         begin 1000
         update 5 1 long 3 | 1 ~ 4
         commit",
        expect![[r#"
            1000.0 updated users 1 {"age": [3, 4]}
        "#]],
    );
}

#[test]
fn updates_without_a_tracked_change_make_no_version_but_keep_their_number() {
    let rules = Rules {
        tables: vec![TableRule { ignore: Some(vec!["seen".into()]), ..rule("public.users") }],
        ..Rules::default()
    };
    check_with(
        config(rules),
        "relation 5 users full id:20 name:25 seen:25 updated_at:25
         begin 1000
         update 5 1 Ann a t1 | 1 Ann b t1
         update 5 1 Ann b t1 | 1 Ann b t2
         update 5 1 Ann b t2 | 1 Bea b t3
         commit",
        expect![[r#"
            1000.2 updated users 1 {"name": ["Ann", "Bea"], "updated_at": ["t2", "t3"]}
        "#]],
    );
}

#[test]
fn an_update_of_the_primary_key_is_one_version() {
    check(
        "relation 5 users full id:20 name:25
         begin 1000
         update 5 1 Ann | 2 Ann
         commit",
        expect![[r#"
            1000.0 updated users 2 (was 1) {"id": [1, 2]}
        "#]],
    );
}

#[test]
fn seq_counts_what_the_server_sends_not_what_we_keep() {
    let rules = Rules { tables: vec![TableRule { capture: Some(false), ..rule("public.logs") }], ..Rules::default() };
    check_with(
        config(rules),
        "begin 1000
         relation 6 logs full id:20
         insert 6 1
         relation 5 users full id:20
         insert 5 1
         truncate 6 5
         commit",
        expect![[r#"
            1000.1 created users 1 {"id": 1}
            1000.3 truncated users - 
        "#]],
    );
}

#[test]
fn context_holds_for_what_follows_in_its_transaction() {
    check(
        r#"relation 5 users full id:20
         begin 1000
         insert 5 1
         context {"actor_id": "7", "reason": "fix"}
         insert 5 2
         context {}
         insert 5 3
         commit
         begin 2000
         insert 5 4
         commit"#,
        expect![[r#"
            1000.0 created users 1 {"id": 1}
            1000.1 created users 2 {"id": 2} by 7 (context)
            1000.2 created users 3 {"id": 3}
            2000.0 created users 4 {"id": 4}
        "#]],
    );
}

#[test]
fn a_rows_own_actor_is_marked_where_this_change_did_not_set_it_and_never_taken_for_deletions() {
    let rules = Rules {
        tables: vec![TableRule { actor_column: Some("by".into()), ..rule("public.users") }],
        ..Rules::default()
    };
    check_with(
        config(rules),
        "relation 5 users full id:20 name:25 by:20
         begin 1000
         insert 5 1 Ann 7
         update 5 1 Ann 7 | 1 Bea 7
         update 5 1 Bea 7 | 1 Cid 8
         delete 5 1 Cid 8
         commit",
        expect![[r#"
            1000.0 created users 1 {"id": 1, "name": "Ann", "by": 7} by 7 (row)
            1000.1 updated users 1 {"name": ["Ann", "Bea"]} by 7 (row_unchanged)
            1000.2 updated users 1 {"name": ["Bea", "Cid"], "by": [7, 8]} by 8 (row)
            1000.3 deleted users 1 {"id": 1, "name": "Cid", "by": 8}
        "#]],
    );
}

#[test]
fn a_shape_is_counted_once_and_the_key_holds_while_its_columns_exist() {
    check(
        "begin 1000
         relation 5 unlisted default id:20
         insert 5 1
         relation 5 unlisted default id:20 name:25
         insert 5 2 Ann
         relation 5 unlisted full id:20 name:25
         insert 5 3 Bea
         relation 5 unlisted full id:20 name:25
         insert 5 4 Cid
         commit",
        expect![[r#"
            1000.0 created unlisted 1 {"id": 1}
            1000.1 created unlisted 2 {"id": 2, "name": "Ann"} v2
            1000.2 created unlisted 3 {"id": 3, "name": "Bea"} v3
            1000.3 created unlisted 4 {"id": 4, "name": "Cid"} v3
        "#]],
    );
}

#[test]
fn old_rows_of_a_mixed_partitioned_table_are_believed_only_where_they_say_something() {
    check(
        "begin 1000
         relation 5 parted full id:20 name:25
         relation 6 parted_1 full id:20 name:25
         update 5 1 NULL | 1 Bea
         relation 5 parted full id:20 name:25
         relation 7 parted_2 default id:20 name:25
         update 5 2 NULL | 2 Cid
         delete 5 2 NULL
         update 5 1 Bea | 1 NULL
         relation 5 parted full id:20 name:25
         relation 7 parted_2 full id:20 name:25
         delete 5 1 NULL
         commit",
        expect![[r#"
            1000.0 updated parted 1 {"name": [null, "Bea"]}
            1000.1 updated parted 2 {"id": 2, "name": "Cid"} before unknown
            1000.2 deleted parted 2 {"id": 2} before unknown
            1000.3 updated parted 1 {"name": ["Bea", null]}
            1000.4 deleted parted 1 {"id": 1, "name": null}
        "#]],
    );
}

/// The server sends the types that are not built in before each relation that has them.
#[test]
fn a_partition_is_known_for_one_though_its_types_are_described_before_it() {
    check(
        "begin 1000
         type 16390
         relation 5 parted full id:20 name:25
         type 16390
         relation 7 parted_2 default id:20 name:25
         update 5 2 NULL | 2 Cid
         delete 5 2 NULL
         commit",
        expect![[r#"
            1000.0 updated parted 2 {"id": 2, "name": "Cid"} before unknown
            1000.1 deleted parted 2 {"id": 2} before unknown
        "#]],
    );
}

#[test]
fn a_table_without_a_key_has_none_even_if_its_rows_are_wide() {
    check(
        "relation 5 keyless full a:25 b:25
         begin 1000
         insert 5 x y
         update 5 x y | x z
         commit",
        expect![[r#"
            1000.0 created keyless - {"a": "x", "b": "y"}
            1000.1 updated keyless - {"b": ["y", "z"]}
        "#]],
    );
}

#[test]
fn our_own_tables_make_no_versions() {
    let mut stage = Stage::new(config(Rules::default()));
    let own = Relation {
        oid: 9,
        name: TableName::new("cdc_audit", "versions"),
        identity: Identity::Default,
        columns: Vec::new(),
    };
    stage.relation(own);
    feed(&mut stage, "begin 1000\n insert 9 1\n commit").unwrap();
    assert!(stage.batch_is_empty());
}

/// A sink's checkpoint is at this position; the slot begins at `slot_start`.
fn resume_from(slot_start: u64, position: &str, change_lsn: u64) -> StageConfig {
    let check =
        ResumeCheck { sink: Arc::from("hot"), position: position.parse().unwrap(), change_lsn: Lsn(change_lsn) };
    let config = config(Rules::default());
    let verdict = Verdict { slot_start: Lsn(slot_start), ..config.verdict.clone() };
    StageConfig { checks: vec![check], verdict, ..config }
}

fn resume(position: &str, change_lsn: u64) -> StageConfig {
    resume_from(0, position, change_lsn)
}

#[test]
fn the_change_at_the_checkpoint_must_be_the_one_it_was() {
    let script = "relation 5 users full id:20
         begin 1000
         insert 5 1
         insert 5 2
         commit";
    let at = |seq: u32| format!("0001:{:016x}:{seq:010}", 1000);
    // Line 3 of the script is the second insertion, whose record begins at 1003.
    assert!(feed(&mut Stage::new(resume(&at(1), 1003)), script).is_ok());
    let result = feed(&mut Stage::new(resume(&at(1), 1004)), script);
    assert!(matches!(result, Err(StageError::Diverged { .. })), "{result:?}");
}

/// Commits come in their order, all of them after the slot's start: what does not come again before a later commit
/// never does.
#[test]
fn the_change_at_the_checkpoint_must_come_again_if_the_slot_begins_before_it() {
    let missing = |stage: &mut Stage, script: &str| {
        let result = feed(stage, script);
        assert!(matches!(result, Err(StageError::NotSentAgain { .. })), "{script}: {result:?}");
        assert!(!stage.continues());
        assert_eq!(stage.progress().position.commit_lsn, Lsn::ZERO, "no progress that a sink could store");
    };
    let script = "relation 5 users full id:20\n begin 1000\n insert 5 1\n commit";
    let at = |commit: u64, seq: u32| format!("0001:{commit:016x}:{seq:010}");
    missing(&mut Stage::new(resume_from(992, &at(992, 0), 9)), script);
    // The transaction comes without that change.
    let result = feed(&mut Stage::new(resume_from(992, &at(1000, 1), 9)), script);
    assert!(matches!(result, Err(StageError::NotSentAgain { .. })), "{result:?}");

    let mut later = Stage::new(resume_from(993, &at(992, 0), 9));
    assert!(later.continues(), "the slot begins after it");
    feed(&mut later, script).unwrap();
    // For an epoch that is over, no change has to come again.
    assert!(Stage::new(resume_from(0, "0000:00000000000003e0:0000000000", 9)).continues());

    let mut idle = Stage::new(resume_from(992, &at(1000, 0), 1002));
    idle.idle(Lsn(1000)).unwrap();
    assert!(matches!(idle.idle(Lsn(1001)), Err(StageError::NotSentAgain { .. })));
    assert_eq!(idle.progress().flushed_lsn, Lsn(1000));
    let mut met = Stage::new(resume_from(992, &at(1000, 0), 1002));
    feed(&mut met, script).unwrap();
    assert!(met.continues());
    met.idle(Lsn(2000)).unwrap();
}

#[test]
fn what_was_quarantined_is_met_again_like_any_change() {
    let script = "relation 5 users full id:20\n begin 1000\n insert 5 1\n garbage\n commit\n begin 2000\n commit";
    let at = Position::new(1, Lsn(1000), 1);
    for (change_lsn, met) in [(1003, true), (1004, false)] {
        let config = resume(&at.to_string(), change_lsn);
        let result =
            feed(&mut Stage::new(StageConfig { quarantine: [(at, Quarantined::default())].into(), ..config }), script);
        assert_eq!(result.is_ok(), met, "{result:?}");
    }
}

/// A decision of an operator about this change.
fn quarantined(seq: u32) -> StageConfig {
    let decided =
        Quarantined::new("ann".into(), "dba".into(), "2026-03-01T09:00:00Z".into(), Some("ticket 4711".into()));
    StageConfig { quarantine: [(Position::new(1, Lsn(1000), seq), decided)].into(), ..config(Rules::default()) }
}

#[test]
fn what_cannot_be_decoded_stops_at_its_position_until_it_is_quarantined() {
    let script = "relation 5 users full id:20
         begin 1000
         insert 5 1
         garbage
         insert 5 3
         commit";
    check(
        script,
        expect![[r#"
            1000.0 created users 1 {"id": 1}
            error: a message at 0/3EB cannot be decoded, position 0001:00000000000003e8:0000000001
        "#]],
    );
    check_with(
        quarantined(1),
        script,
        expect![[r#"
            1000.0 created users 1 {"id": 1}
            1000.1 error error -  before unknown
            1000.2 created users 3 {"id": 3}
        "#]],
    );
}

/// What is not a change has no place among them, but it has a position by which it can be quarantined.
#[test]
fn whatever_cannot_be_decoded_can_be_quarantined() {
    let script = "relation 5 users full id:20
         begin 1000
         insert 5 1
         undescribed 6
         insert 6 2
         insert 5 3
         commit
         unsaid
         begin 2000
         insert 7 4
         insert 5 5
         commit";
    let mut decided = Quarantine::new();
    for position in [Position::new(1, Lsn(1000), 1), Position::new(1, Lsn(1007), 0), Position::new(1, Lsn(2000), 0)] {
        let config = StageConfig { quarantine: decided.clone(), ..config(Rules::default()) };
        let error = feed(&mut Stage::new(config), script).unwrap_err();
        assert_eq!(error.position(), Some(position), "{error}");
        assert!(error.hint().ends_with(&format!("cdc-audit resume --sink all --quarantine {position}")), "{error:?}");
        decided.insert(position, Quarantined::default());
    }
    check_with(
        StageConfig { quarantine: decided, ..config(Rules::default()) },
        script,
        expect![[r#"
            1000.0 created users 1 {"id": 1}
            1000.1 error error -  before unknown
            1000.2 created users 3 {"id": 3}
            1007.0 error error -  before unknown
            2000.0 error error -  before unknown
            2000.1 created users 5 {"id": 5}
        "#]],
    );
}

/// Otherwise a role that may write to the table of quarantines could blank any change.
#[test]
fn what_can_be_recorded_is_recorded_whatever_was_quarantined() {
    let script = "relation 5 users full id:20
         begin 1000
         insert 5 1
         insert 5 2
         commit";
    check_with(
        quarantined(1),
        script,
        expect![[r#"
            1000.0 created users 1 {"id": 1}
            1000.1 created users 2 {"id": 2}
        "#]],
    );
}

/// A value is not valid UTF-8: the record in the version's place has the key, who made the change, and who decided.
#[test]
fn what_cannot_be_sealed_keeps_its_key_and_its_actor() {
    let mut stage = Stage::new(quarantined(0));
    let begin = r#"relation 5 users default id:20 name:25
         begin 1000
         context {"actor_id": "7", "reason": "r"}"#;
    feed(&mut stage, begin).unwrap();
    let length = |text: &[u8]| (text.len() as u32).to_be_bytes();
    let value = |text: &[u8]| [b"t".as_slice(), &length(text), text].concat();
    let insert = [b"I\0\0\0\x05N\0\x02".as_slice(), &value(b"42"), &value(b"\xff")].concat();
    while let Some(relation) = stage.message(&insert, Lsn(1002)).unwrap() {
        stage.describe(&relation, Some(&catalog(&relation))).unwrap();
    }
    let batch = stage.take_batch();
    let version = batch.versions().next().unwrap();
    assert_eq!((version.event(), version.key(), version.actor_id()), (Event::Error, Some("42"), Some("7")));
    let context = &version.context().unwrap().json;
    for said in ["ann", "dba", "ticket 4711", "created", "name"] {
        assert!(context.contains(said), "{said} is missing in {context}");
    }
    assert!(version.after().is_none() && version.reason().is_none());
}

#[test]
fn an_accepted_gap_is_recorded_where_the_shared_history_ends() {
    let server =
        Server { system_id: 1, timeline: 2, forks: vec![(1, Lsn(2000))], wal_end: Lsn(1 << 40), slot_start: Lsn(1000) };
    let checkpoint = Checkpoint {
        source: "shop".into(),
        system_id: 1,
        timeline: 1,
        timeline_start: Some(Lsn::ZERO),
        position: Position::new(1, Lsn(2000), 0),
        change_lsn: Lsn(1990),
        flushed_lsn: Lsn(2008),
    };
    let verdict = judge(&server, &[(Arc::from("hot"), Some(checkpoint))]);
    let mut stage = Stage::new(StageConfig { verdict, ..config(Rules::default()) });
    stage.record_gap(Context::note(&serde_json::json!({})));
    feed(
        &mut stage,
        "relation 5 users full id:20
         begin 1500
         insert 5 1
         commit
         begin 2000
         insert 5 2
         commit",
    )
    .unwrap();
    let batch = stage.take_batch();
    let shown: Vec<String> = batch.versions().map(|v| format!("{} {}", v.position(), v.event().name())).collect();
    assert_eq!(
        shown,
        [
            "0001:00000000000005dc:0000000000 created",
            "0002:00000000000007cf:0000000000 gap",
            "0002:00000000000007d0:0000000000 created"
        ]
    );
    assert_eq!(batch.progress.position.to_string(), "0002:00000000000007d0:0000000000");
}
