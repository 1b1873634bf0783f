//! The data subject whose key protects a value.

use std::collections::HashMap;

use audit_cipher::{Form, KeyId, Kind, SecretKey};
use audit_core::batch::Image;
use audit_core::method::{Method, MethodRule};

use super::*;

/// A stage whose table `users` encrypts `note` and `doc.pin` for the person that `owner` names; the keys that it asks
/// for are provided.
struct Ground {
    stage: Stage,
    sealer: Arc<Sealer>,
    /// The owner of each key, by the key's name.
    keys: HashMap<KeyId, Wanted>,
}

impl Ground {
    fn new(subject: &str) -> Ground {
        let sealer = sealer();
        let methods = || vec![MethodRule { key: Some("pii".into()), ..MethodRule::from(Method::Encrypt) }];
        let mut config = config(Rules {
            tables: vec![TableRule {
                protect: [("note".to_owned(), methods().into()), ("doc.pin".to_owned(), methods().into())].into(),
                subject: Some(subject.into()),
                ..rule("public.*")
            }],
            ..Rules::default()
        });
        config.policy.sealer = Some(Arc::clone(&sealer));
        config.policy.row_key = Some(audit_core::protect::MacKey::new("row", b"0123456789abcdef"));
        Ground { stage: Stage::new(config), sealer, keys: HashMap::new() }
    }

    fn give(&mut self, wanted: Wanted) {
        let key = SecretKey::generate();
        let id = KeyId::generate(if matches!(wanted, Wanted::Data(_)) { Kind::Data } else { Kind::Subject });
        match wanted {
            Wanted::Data(class) => self.sealer.install_data(class, id.clone(), &key),
            Wanted::Subjects(class) => self.sealer.install_subjects(class, &key),
            Wanted::Subject(class, subject) => self.sealer.install_subject(class, subject, Some((id.clone(), &key))),
            Wanted::Tokens(_) => panic!("a token"),
        }
        self.keys.insert(id, wanted);
    }

    /// The batch that results from a script.
    fn batch(&mut self, script: &str) -> Batch {
        let mut commit = 0;
        for line in script.lines().map(str::trim) {
            let data = message(line, &mut commit);
            loop {
                match self.stage.message(&data, Lsn(commit)) {
                    Ok(Some(relation)) => self.stage.describe(&relation, Some(&catalog(&relation))).unwrap(),
                    Ok(None) => break,
                    Err(error) => self.give(error.wanted().unwrap()),
                }
            }
        }
        self.stage.take_batch()
    }

    /// Each side's values with the owner of their key: `7`, one of the owners, or `class`; unencrypted values as they
    /// are.
    fn shown(&self, batch: &Batch, columns: &[&str]) -> Vec<String> {
        let class = self.sealer.class("pii").unwrap();
        let owner = |key: &KeyId| match self.keys[key] {
            Wanted::Subject(_, of) => {
                let named = |id: &&str| self.sealer.subject(class, id.as_bytes()).unwrap() == of;
                ["7", "8"].into_iter().find(named).unwrap().to_owned()
            }
            _ => "class".to_owned(),
        };
        let side = |image: Image<'_>| {
            let value = |text: &str| {
                let forms = text.split('"').filter_map(|part| Form::parse(part).ok());
                let owners: Vec<String> = forms.map(|form| owner(&form.key)).collect();
                if owners.is_empty() { text.to_owned() } else { owners.join(",") }
            };
            let kept = image.iter().filter(|(column, _)| columns.contains(&column.name.as_str()));
            let shown = kept.map(|(_, cell)| cell.text().map_or_else(|| "-".to_owned(), value));
            shown.collect::<Vec<_>>().join(" ")
        };
        let version = |version: audit_core::batch::Version<'_>| {
            let sides = [version.before(), version.after()].map(|image| image.map(side));
            let [before, after] = sides.map(|side| side.unwrap_or_default());
            format!("{}: {before} | {after}", version.event().name())
        };
        batch.versions().map(version).collect()
    }
}

/// ⚠ The old side is under the key of the row's previous owner, the new side under that of the present one, also if the
/// value stayed the same. A value without an owner is under the key of the class.
#[test]
fn each_side_is_under_the_key_of_whose_it_is() {
    let mut ground = Ground::new("owner");
    let batch = ground.batch(
        "relation 5 users full id:20 note:25 owner:20
         begin 1000
         insert 5 1 geheim 7
         update 5 1 geheim 7 | 1 geheimer 7
         update 5 1 geheimer 7 | 1 geheimer 8
         update 5 1 geheimer 8 | 1 geheimer NULL
         delete 5 1 geheimer NULL
         commit",
    );
    assert_eq!(
        ground.shown(&batch, &["note"]),
        ["created:  | 7", "updated: 7 | 7", "updated: 7 | 8", "updated: 8 | class", "deleted: class | "]
    );
    assert!(!format!("{}{batch:?}", super::show(&batch)).contains("geheim"));
}

/// ⚠ The owner of a value can be unknown. The value is then hidden, because under any other key it would outlive the
/// owner's key.
#[test]
fn what_is_somebodys_and_nobody_knows_whose_is_hidden() {
    let mut ground = Ground::new("owner");
    let batch = ground.batch(
        "relation 5 users default note:25 owner:25
         begin 1000
         update 5 geheim ~
         delete 5 key geheim NULL
         commit",
    );
    assert_eq!(ground.shown(&batch, &["note"]), ["updated:  | [REDACTED]", "deleted: [REDACTED] | "]);
}

#[test]
fn members_of_documents_are_under_it_and_the_column_need_not_be_kept() {
    let mut ground = Ground::new("owner");
    ground.stage.rules.tables[0].ignore = Some(vec!["owner".into()]);
    let batch = ground.batch(
        "relation 5 users full id:20 doc:3802 owner:20
         begin 1000
         insert 5 1 {\"pin\":1234} 8
         commit",
    );
    assert_eq!(ground.shown(&batch, &["doc", "owner"]), ["created:  | 8"]);
}

/// Under the key of the class nobody could erase a person's values; a table without ciphertexts needs no subject.
#[test]
fn a_table_that_encrypts_must_have_the_column() {
    let stage = Ground::new("onwer").stage;
    let tell = |relation: &str| {
        let mut stage = Stage::new(StageConfig { rules: stage.rules.clone(), ..config(Rules::default()) });
        feed(&mut stage, &format!("{relation}\n begin 1000\n truncate 5"))
            .map_err(|error| format!("{error}; {}", error.hint()))
    };
    assert_eq!(
        tell("relation 5 users full id:20 note:25 owner:20").unwrap_err(),
        "table public.users: there is no column onwer, which the rules make its data subject's; did you mean `owner`?"
    );
    tell("relation 5 users full id:20 name:25").unwrap();
}
