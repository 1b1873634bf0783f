//! JSON columns whose changes are recorded member by member.

use audit_core::expand::JsonRule;
use audit_core::record::changed_columns;
use audit_core::stored::{json, summary};

use super::*;

fn rules() -> Rules {
    let labelled = JsonRule { label: Some("cf".into()), separator: ":".into(), ..JsonRule::default() };
    let rule = TableRule {
        json: [("config".to_string(), JsonRule { levels: 2, ..JsonRule::default() }), ("custom".to_string(), labelled)]
            .into(),
        ..rule("public.services")
    };
    Rules { tables: vec![rule], default_protection: true, ..Rules::default() }
}

fn told(batch: &Batch) -> String {
    let line = |v: audit_core::batch::Version<'_>| {
        let mut changes = Vec::new();
        write_changes(&mut changes, &v);
        let changes = String::from_utf8(changes).unwrap();
        let names = changed_columns(&v).map(|names| names.collect::<Vec<_>>().join(",")).unwrap_or_default();
        let sentence = summary(v.event().name(), Some(&json(changes.clone())).map(|json| &**json), v.before_known());
        format!("{} {changes} [{names}] {sentence}\n", v.event().name())
    };
    batch.versions().map(line).collect()
}

/// This holds for creation, update and deletion alike; the images stay whole.
#[test]
fn members_that_change_are_named_by_their_paths() {
    let mut stage = Stage::new(config(rules()));
    feed(
        &mut stage,
        r#"relation 5 services full id:20 config:3802 custom:114
         begin 1000
         insert 5 1 {"max_retries":3,"db":{"host":"a","password":"geheim"},"l":[1]} {"shirt_size":"M"}
         update 5 1 {"max_retries":3,"db":{"host":"a","password":"geheim"}} {"a":1,"b":2} | 1 {"max_retries":5,"db":{"host":"a","password":"gelöst"}} {"b":2,"a":1}
         update 5 1 {"x":1} {"a":1,"b":2} | 1 {"x":1} {"b":2,"a":1}
         update 5 1 {"x":1} {"a":1} | 1 NULL {"a":1}
         delete 5 1 {"x":1} NULL
         commit"#,
    )
    .unwrap();
    let batch = stage.take_batch();
    expect![[r#"
        created {"id": [null, 1], "config.max_retries": [null, 3], "config.db.host": [null, "a"], "config.db.password": [null, "[REDACTED]"], "config.l": [null, [1]], "cf:shirt_size": [null, "M"]} [] Id set to 1, config.max retries set to 3, config.db.host set to a, config.db.password set to [REDACTED], config.l set to [1] and cf:shirt size set to M.
        updated {"config.max_retries": [3, 5], "config.db.password": ["[REDACTED]", "[REDACTED]"]} [config.max_retries,config.db.password] Config.max retries changed from 3 to 5 and config.db.password changed from [REDACTED] to [REDACTED].
        updated {"config.x": [1, null]} [config.x] Config.x cleared (was 1).
        deleted {"id": [1, null], "config.x": [1, null]} [] Id was 1 and config.x was 1.
    "#]].assert_eq(&told(&batch));
    let created = batch.versions().next().unwrap();
    let mut image = Vec::new();
    write_image(&mut image, created.after().unwrap());
    assert_eq!(
        String::from_utf8(image).unwrap(),
        r#"{"id": 1, "config": {"max_retries":3,"db":{"host":"a","password":"[REDACTED]"},"l":[1]}, "custom": "{\"shirt_size\":\"M\"}"}"#
    );
}
