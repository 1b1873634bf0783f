//! What ciphertexts are bound to besides their place.

use audit_cipher::{Aad, Form, KeyId, Kind, Row, SecretKey, open};
use audit_core::batch::{Image, Version};
use audit_core::method::{Method, MethodRule};

use super::*;

/// A stage whose table `users` encrypts `note`, bound to `provider` and `place`, and the key.
fn binding() -> (Stage, SecretKey) {
    let sealer = sealer();
    let key = SecretKey::generate();
    sealer.install_data(sealer.class("pii").unwrap(), KeyId::generate(Kind::Data), &key);
    let methods = vec![MethodRule { key: Some("pii".into()), ..MethodRule::from(Method::Encrypt) }];
    let mut config = config(Rules {
        tables: vec![TableRule {
            protect: [("note".to_owned(), methods.into())].into(),
            bind: Some(vec!["provider".into(), "place".into()]),
            ..rule("public.*")
        }],
        default_protection: true,
        ..Rules::default()
    });
    config.policy.sealer = Some(sealer);
    (Stage::new(config), key)
}

/// What a side's ciphertext contains, opened with these values of the bound columns.
fn opened(version: Version<'_>, image: Image<'_>, key: &SecretKey, with: [Option<&str>; 2]) -> Option<String> {
    let form = image.iter().find_map(|(_, value)| Form::parse(value.text()?).ok())?;
    let row = Row {
        source: "shop",
        table: &version.table().name,
        key: version.key(),
        xid: version.transaction().xid,
        lsn: version.lsn().0,
        seq: u64::from(version.position().seq),
    };
    let mut aad = Aad::new();
    aad.row(&row, ["provider", "place"].into_iter().zip(with));
    open(&form, key, aad.column("note")).ok().map(|plain| plain.to_string())
}

/// ⚠ If the value stayed the same and the columns that it is bound to changed, each side still opens with its own
/// record, and with no other.
#[test]
fn each_side_is_bound_to_the_columns_of_its_own() {
    let (mut stage, key) = binding();
    feed(
        &mut stage,
        "relation 5 users full id:20 note:25 provider:23 place:25
         begin 1000
         insert 5 1 geheim 3 Bonn
         update 5 1 geheim 3 Bonn | 1 geheim 4 NULL
         update 5 1 geheim 4 NULL | 1 geheimer 4 NULL
         delete 5 1 geheimer 4 NULL
         commit",
    )
    .unwrap();
    let batch = stage.take_batch();
    let (three, four) = ([Some("3"), Some("Bonn")], [Some("4"), None]);
    let expected = [
        (None, Some(("geheim", three))),
        (Some(("geheim", three)), Some(("geheim", four))),
        (Some(("geheim", four)), Some(("geheimer", four))),
        (Some(("geheimer", four)), None),
    ];
    for (version, (before, after)) in batch.versions().zip(expected) {
        for (image, expected) in [(version.before(), before), (version.after(), after)] {
            let Some((plain, with)) = expected else { continue };
            let image = image.unwrap();
            assert_eq!(opened(version, image, &key, with).as_deref(), Some(plain));
            for other in [three, four, [Some("3"), None], [None, Some("Bonn")], [None, None]] {
                assert!(other == with || opened(version, image, &key, other).is_none(), "{with:?} as {other:?}");
            }
        }
    }
    // A reader that opens it has the values, because they are on every version.
    assert!(show(&batch).contains("including {\"provider\": 4, \"place\": null}"), "{}", show(&batch));
}

/// A card number in such a column is masked in the record: the ciphertext is bound to what is left.
#[test]
fn what_it_is_bound_to_is_what_the_record_shows() {
    let (mut stage, key) = binding();
    feed(
        &mut stage,
        "relation 5 users full id:20 note:25 provider:23 place:25
         begin 1000
         insert 5 1 geheim 3 4532015112830366
         commit",
    )
    .unwrap();
    let batch = stage.take_batch();
    let version = batch.versions().next().unwrap();
    let plain = opened(version, version.after().unwrap(), &key, [Some("3"), Some("****0366")]);
    assert_eq!(plain.as_deref(), Some("geheim"));
}

#[test]
fn only_what_is_recorded_as_it_is_can_be_bound_to() {
    for (relation, expected) in [
        ("note:25 provider:1700 place:25", "cannot be bound to column provider, which is of type"),
        (
            "note:25 place:25",
            "there is no column provider, which the rules make part of what its ciphertexts are bound to",
        ),
        ("name:25", ""),
    ] {
        let (mut stage, _) = binding();
        let told = feed(&mut stage, &format!("relation 5 users full id:20 {relation}\n begin 1000\n truncate 5"));
        let told = told.map_err(|error| error.to_string()).err().unwrap_or_default();
        assert!(told.contains(expected) && told.is_empty() == expected.is_empty(), "{told}");
    }
    let (stage, _) = binding();
    for change in [
        |rule: &mut TableRule| rule.ignore = Some(vec!["place".into()]),
        |rule: &mut TableRule| drop(rule.protect.insert("place".into(), Method::Partial.into())),
    ] {
        let mut rules = stage.rules.clone();
        change(&mut rules.tables[0]);
        let mut stage = Stage::new(StageConfig { rules, ..config(Rules::default()) });
        let script = "relation 5 users full id:20 note:25 provider:23 place:25\n begin 1000\n truncate 5";
        let told = feed(&mut stage, script).unwrap_err();
        assert!(told.to_string().contains("cannot be bound to column place"), "{told}");
    }
}
