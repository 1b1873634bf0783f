//! Keys in PostgreSQL, and values that are encrypted with them.

use std::collections::BTreeMap;
use std::sync::Arc;

use audit_cipher::{ERASED, Failure, Form, KeyId, Kind, Sealer, Wanted};
use audit_config::Span;
use audit_connect::PgEndpoint;
use audit_hot::{SetupOptions, setup_statements};
use audit_keys::{
    Access, Ask, Erased, KeyAdmin, KeyClass, KeyError, Keyring, Master, OpenError, Opener, append_version,
};
use audit_testkit::{Database, Fault, FaultProxy, eventually_async, shared_db, unique};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use zeroize::Zeroizing;

use crate::services::{self, Service};

/// A database with a key store, and a class `pii` under a given master key.
struct Ground {
    database: Database,
    classes: BTreeMap<String, KeyClass>,
}

impl Ground {
    async fn new(master: &Master) -> Ground {
        let database = shared_db(15).await;
        setup(&database, &SetupOptions { keys: true, checkpoints_alone: true, ..SetupOptions::default() });
        Ground { database, classes: BTreeMap::from([("pii".to_owned(), KeyClass::new(master.clone()))]) }
    }

    fn endpoint(&self) -> PgEndpoint {
        PgEndpoint::new(&self.database.url)
    }

    fn keyring(&self) -> Keyring {
        Keyring::new("shop", &self.classes, self.endpoint(), "cdc-audit keys test").unwrap()
    }

    fn opener(&self) -> Opener {
        Opener::new(&self.classes, self.endpoint(), "cdc-audit keys test").unwrap()
    }

    fn admin(&self) -> KeyAdmin {
        KeyAdmin::new("shop", &self.classes, self.endpoint()).unwrap()
    }

    #[track_caller]
    fn sql(&self, statements: &str) -> String {
        self.database.execute(statements)
    }
}

fn setup(database: &Database, options: &SetupOptions) {
    let options = SetupOptions { source: "shop".into(), ..options.clone() };
    let all: String = setup_statements(&options).iter().map(|statement| format!("{};\n", statement.sql)).collect();
    // The statements may be run again and again.
    database.execute(&format!("BEGIN; {all} COMMIT; BEGIN; {all} COMMIT;"));
}

/// Encrypts as the daemon does: a missing key is provided, then it is tried again.
async fn sealed(keyring: &Keyring, seal: impl Fn(&Sealer, &mut String) -> Result<(), Failure>) -> String {
    let mut out = String::new();
    for _ in 0..4 {
        match seal(keyring.sealer(), &mut out) {
            Ok(()) => return out,
            Err(Failure::Wanted(wanted)) => keyring.provide(&[wanted]).await.unwrap(),
            Err(error) => panic!("{error}"),
        }
    }
    panic!("keys do not suffice");
}

async fn encrypted(keyring: &Keyring, aad: &[u8], plain: &str) -> String {
    let class = keyring.sealer().class("pii").unwrap();
    sealed(keyring, |sealer, out| sealer.encrypt(class, aad, plain.as_bytes(), out)).await
}

async fn encrypted_for(keyring: &Keyring, subject: &str, plain: &str) -> String {
    let class = keyring.sealer().class("pii").unwrap();
    sealed(keyring, |sealer, out| {
        let subject = sealer.subject(class, subject.as_bytes())?;
        sealer.encrypt_for(class, &subject, b"here", plain.as_bytes(), out)
    })
    .await
}

async fn token(keyring: &Keyring, domain: &str, plain: &str) -> String {
    let class = keyring.sealer().class("pii").unwrap();
    sealed(keyring, |sealer, out| sealer.token(class, domain.as_bytes(), plain.as_bytes(), out)).await
}

async fn reveal(opener: &Opener, text: &str, aad: &[u8], domains: &[&str]) -> Result<Zeroizing<String>, OpenError> {
    let access = Access { os_user: "me".into(), requested_by: None, action: "test".into(), purpose: None };
    let ask = Ask {
        text: text.to_owned(),
        aads: vec![aad.to_vec()],
        domains: domains.iter().map(|domain| domain.as_bytes().to_vec()).collect(),
        source: "shop".into(),
        table: "public.users".into(),
        key: Some("7".into()),
        position: "0001:0000000000000001:0000000000".into(),
        field: "ssn".into(),
    };
    opener.reveal(&access, &[ask]).await?.remove(0)
}

async fn open(opener: &Opener, text: &str, aad: &[u8]) -> Result<Zeroizing<String>, OpenError> {
    reveal(opener, text, aad, &[]).await
}

async fn open_token(opener: &Opener, text: &str, domains: &[&str]) -> Result<Zeroizing<String>, OpenError> {
    reveal(opener, text, b"", domains).await
}

fn key_of(text: &str) -> KeyId {
    Opener::form(text).unwrap().1
}

/// decrypt(encrypt(x)) = x holds with every key service.
#[tokio::test(flavor = "multi_thread")]
async fn values_come_back_under_every_key_service() {
    let services = tokio::task::spawn_blocking(services::all).await.unwrap();
    for service in &services {
        println!("{}", service.name);
        values_come_back(service).await;
    }
}

async fn values_come_back(service: &Service) {
    let ground = Ground::new(&service.master).await;
    let keyring = ground.keyring();
    let mut runner = TestRunner::deterministic();
    let texts: Vec<String> =
        (0..50).map(|_| proptest::prelude::any::<String>().new_tree(&mut runner).unwrap().current()).collect();
    let mut stored = Vec::new();
    for text in texts.iter().map(String::as_str).chain(["", "\0", "Grüße 👋"]) {
        let domains = ["public.users.ssn", "people"];
        let tokens = (token(&keyring, domains[0], text).await, token(&keyring, domains[1], text).await);
        let subject = encrypted_for(&keyring, "4711", text).await;
        stored.push((text, encrypted(&keyring, b"here", text).await, tokens, subject));
    }
    // A process that is started later, and knows only the configuration and the key store.
    let opener = ground.opener();
    for (text, encrypted, tokens, subject) in &stored {
        assert_eq!(open(&opener, encrypted, b"here").await.unwrap().as_str(), *text);
        assert_eq!(open(&opener, subject, b"here").await.unwrap().as_str(), *text);
        assert_eq!(open_token(&opener, &tokens.1, &["public.users.ssn", "people"]).await.unwrap().as_str(), *text);
        for (value, aad) in [(encrypted, b"else"), (subject, b"else")] {
            assert!(matches!(open(&opener, value, aad).await, Err(OpenError::Unopened(_))));
        }
        assert!(matches!(open_token(&opener, &tokens.0, &["people"]).await, Err(OpenError::Unopened(_))));
    }
    assert_eq!(
        ground.sql("SELECT string_agg(kind, ' ' ORDER BY kind) FROM cdc_audit.data_keys"),
        "data subjects tokens"
    );
    let second = ground.keyring();
    assert_eq!(token(&second, "people", "x").await, token(&keyring, "people", "x").await, "tokens outlive a restart");
    assert_eq!(key_of(&encrypted_for(&second, "4711", "x").await), key_of(&stored[0].3));
    assert_ne!(key_of(&encrypted(&second, b"", "x").await), key_of(&stored[0].1), "each run has a data key of its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_durable_before_anything_is_encrypted_under_it() {
    let service = services::local();
    let ground = Ground::new(&service.master).await;
    let keyring = ground.keyring();
    let class = keyring.sealer().class("pii").unwrap();
    ground.sql("ALTER TABLE cdc_audit.data_keys RENAME TO gone");
    let mut out = String::new();
    for wanted in [Wanted::Data(class), Wanted::Tokens(class), Wanted::Subjects(class)] {
        assert!(matches!(keyring.provide(&[wanted]).await, Err(KeyError::Store { .. })));
    }
    assert_eq!(keyring.sealer().encrypt(class, b"", b"x", &mut out), Err(Failure::Wanted(Wanted::Data(class))));
    assert_eq!(keyring.sealer().token(class, b"", b"x", &mut out), Err(Failure::Wanted(Wanted::Tokens(class))));
    ground.sql("ALTER TABLE cdc_audit.gone RENAME TO data_keys");
    let value = encrypted(&keyring, b"", "x").await;
    assert_eq!(
        ground.sql(&format!("SELECT count(*) FROM cdc_audit.data_keys WHERE key_id = '{}'", key_of(&value))),
        "1"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn data_keys_are_followed_in_time_and_when_they_are_retired_or_destroyed() {
    let service = services::local();
    let mut ground = Ground::new(&service.master).await;
    if let Some(class) = ground.classes.get_mut("pii") {
        class.rotate_count = 8;
    }
    let keyring = ground.keyring();
    let first = encrypted(&keyring, b"", "x").await;
    keyring.renew_once().await;
    assert_eq!(key_of(&encrypted(&keyring, b"", "x").await), key_of(&first), "it is too early");
    for _ in 0..4 {
        encrypted(&keyring, b"", "x").await;
    }
    keyring.renew_once().await;
    let second = encrypted(&keyring, b"", "x").await;
    assert_ne!(key_of(&second), key_of(&first), "by count");
    assert_eq!(ground.admin().rotate("pii").await.unwrap(), 2);
    keyring.renew_once().await;
    let third = encrypted(&keyring, b"", "x").await;
    assert_ne!(key_of(&third), key_of(&second), "by hand");
    assert!(ground.admin().destroy(&key_of(&third), &by()).await.unwrap());
    keyring.renew_once().await;
    let fourth = encrypted(&keyring, b"", "x").await;
    assert_ne!(key_of(&fourth), key_of(&third), "destroyed");
    // Values under retired keys stay readable; values under destroyed keys do not.
    let opener = ground.opener();
    for value in [&first, &second, &fourth] {
        assert_eq!(open(&opener, value, b"").await.unwrap().as_str(), "x");
    }
    let error = open(&opener, &third, b"").await.unwrap_err();
    assert!(matches!(error, OpenError::Key(KeyError::Destroyed { .. })), "{error:?}");
    assert!(matches!(ground.admin().rotate("none").await, Err(KeyError::NoClass { .. })));
    ground.classes.get_mut("pii").unwrap().rotate_after = Span::secs(0);
    let late = ground.keyring();
    let class = late.sealer().class("pii").unwrap();
    late.provide(&[Wanted::Data(class)]).await.unwrap();
    assert!(late.sealer().encrypt(class, b"", b"x", &mut String::new()).is_err(), "by time");
}

/// The store lags or was restored, and a running process has made keys since then. They are stored again before more
/// values are lost.
#[tokio::test(flavor = "multi_thread")]
async fn keys_that_the_store_has_lost_are_stored_again() {
    let service = services::local();
    let ground = Ground::new(&service.master).await;
    let keyring = ground.keyring();
    let before = [encrypted(&keyring, b"", "x").await, encrypted_for(&keyring, "ann@x", "x").await];
    ground.sql(
        "CREATE TABLE old_keys AS SELECT * FROM cdc_audit.data_keys; CREATE TABLE old_subjects AS SELECT * FROM cdc_audit.subject_keys",
    );
    // Made since the copy: a data key, the key of tokens, and a person's key; and a data key that was destroyed.
    ground.admin().rotate("pii").await.unwrap();
    keyring.renew_once().await;
    let destroyed = encrypted(&keyring, b"", "x").await;
    assert!(ground.admin().destroy(&key_of(&destroyed), &by()).await.unwrap());
    keyring.renew_once().await;
    let since = encrypted(&keyring, b"", "x").await;
    let (bea, token) = (encrypted_for(&keyring, "bea@x", "x").await, token(&keyring, "d", "x").await);
    ground.sql(
        "BEGIN; TRUNCATE cdc_audit.data_keys, cdc_audit.subject_keys; \
         INSERT INTO cdc_audit.data_keys SELECT * FROM old_keys; \
         INSERT INTO cdc_audit.subject_keys SELECT * FROM old_subjects; COMMIT",
    );
    assert!(open(&ground.opener(), &since, b"").await.is_err());

    keyring.put_back_lost().await;
    let opener = ground.opener();
    for (value, aad) in [(&before[0], b"".as_slice()), (&since, b""), (&before[1], b"here"), (&bea, b"here")] {
        assert_eq!(open(&opener, value, aad).await.unwrap().as_str(), "x");
    }
    assert_eq!(open_token(&opener, &token, &["d"]).await.unwrap().as_str(), "x");
    assert!(open(&opener, &destroyed, b"").await.is_err(), "what was destroyed is not there again");
    let count = ground.sql("SELECT count(*) FROM cdc_audit.data_keys");
    keyring.renew_once().await;
    assert_eq!(ground.sql("SELECT count(*) FROM cdc_audit.data_keys"), count, "nothing is missing any more");
}

/// Another process made the class's lasting keys, and a person's, before this process could store its own again: it
/// uses those of the other process.
#[tokio::test(flavor = "multi_thread")]
async fn keys_that_another_process_made_meanwhile_are_used() {
    let service = services::local();
    let ground = Ground::new(&service.master).await;
    let keyring = ground.keyring();
    let _ = (token(&keyring, "d", "x").await, encrypted_for(&keyring, "ann@x", "x").await);
    ground.sql("TRUNCATE cdc_audit.data_keys, cdc_audit.subject_keys");
    let other = ground.keyring();
    let theirs = (token(&other, "d", "x").await, encrypted_for(&other, "ann@x", "x").await);
    for _ in 0..2 {
        keyring.put_back_lost().await;
        assert_eq!(token(&keyring, "d", "x").await, theirs.0);
        let ours = encrypted_for(&keyring, "ann@x", "x").await;
        assert_eq!(key_of(&ours), key_of(&theirs.1));
        assert_eq!(open(&ground.opener(), &ours, b"here").await.unwrap().as_str(), "x");
    }
}

/// Keys that one master key wrapped are wrapped by the master key of another service. Everything stays readable, even
/// without the first service.
#[tokio::test(flavor = "multi_thread")]
async fn keys_are_wrapped_anew_under_another_service() {
    let (local, moto) = (services::local(), tokio::task::spawn_blocking(services::moto).await.unwrap());
    let aws = services::aws(moto.port());
    let mut ground = Ground::new(&local.master).await;
    let keyring = ground.keyring();
    let values = [encrypted(&keyring, b"", "x").await, encrypted_for(&keyring, "7", "x").await];
    let token = token(&keyring, "d", "x").await;
    ground
        .classes
        .insert("pii".to_owned(), KeyClass { former: vec![local.master.clone()], ..KeyClass::new(aws.master.clone()) });
    let rewrapped = ground.admin().rewrap("pii").await.unwrap();
    assert_eq!((rewrapped.done, rewrapped.passed), (3, 0));
    assert_eq!(ground.sql("SELECT DISTINCT master FROM cdc_audit.data_keys"), "aws_kms alias/pii");
    ground.classes.get_mut("pii").unwrap().former.clear();
    let opener = ground.opener();
    assert_eq!(open(&opener, &values[0], b"").await.unwrap().as_str(), "x");
    assert_eq!(open(&opener, &values[1], b"here").await.unwrap().as_str(), "x");
    assert_eq!(open_token(&opener, &token, &["d"]).await.unwrap().as_str(), "x");
    // The same with a new version of a keyring, without any new configuration.
    let Master::Local(keyring) = &local.master else { unreachable!() };
    append_version(&keyring.file).unwrap();
    ground
        .classes
        .insert("pii".to_owned(), KeyClass { former: vec![aws.master.clone()], ..KeyClass::new(local.master.clone()) });
    assert_eq!(ground.admin().rewrap("pii").await.unwrap().done, 3);
    assert_eq!(ground.sql("SELECT DISTINCT master FROM cdc_audit.data_keys"), "local v2");
    assert_eq!(open(&ground.opener(), &values[1], b"here").await.unwrap().as_str(), "x");
}

const DESTROYED: Erased = Erased { destroyed: 1, unknown: false };

fn by() -> Access {
    Access { os_user: "ann".into(), requested_by: None, action: "destroy".into(), purpose: None }
}

/// An id of type `char(n)` has blanks at its end when PostgreSQL sends it, and none when a person writes it.
#[tokio::test(flavor = "multi_thread")]
async fn blanks_at_the_end_of_an_id_do_not_count() {
    let service = services::local();
    let ground = Ground::new(&service.master).await;
    encrypted_for(&ground.keyring(), "A7        ", "hers").await;
    assert_eq!(ground.admin().destroy_subject("pii", "A7", false, &by()).await.unwrap(), DESTROYED);
    let known = ground.admin().generations("pii", "A7  ").await.unwrap();
    assert!(known.len() == 1 && known[0].destroyed_at.is_some(), "{known:?}");
}

/// There are two keys with one name: values that are encrypted under the one that was not stored could never be opened.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_was_not_stored_encrypts_nothing() {
    let service = services::local();
    let ground = Ground::new(&service.master).await;
    ground.sql(
        "CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; \
         CREATE TRIGGER skip BEFORE INSERT ON cdc_audit.data_keys FOR EACH ROW EXECUTE FUNCTION skip()",
    );
    let keyring = ground.keyring();
    let class = keyring.sealer().class("pii").unwrap();
    let error = keyring.provide(&[Wanted::Data(class)]).await.unwrap_err();
    assert!(matches!(error, KeyError::NotStored { .. }), "{error:?}");
    assert!(keyring.sealer().encrypt(class, b"", b"x", &mut String::new()).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subject_that_is_erased_stays_erased_and_the_others_stay_readable() {
    let service = services::local();
    let ground = Ground::new(&service.master).await;
    let keyring = ground.keyring();
    let (ann, bea) = (encrypted_for(&keyring, "ann@x", "hers").await, encrypted_for(&keyring, "bea@x", "hers").await);
    assert_ne!(key_of(&ann), key_of(&bea));
    assert_eq!(key_of(&ann).kind(), Kind::Subject);
    let raw = ground.sql("SELECT string_agg(encode(subject, 'escape'), ',') FROM cdc_audit.subject_keys");
    assert!(!raw.contains("ann"), "the raw id is not stored");
    assert_eq!(ground.admin().destroy_subject("pii", "ann@x", false, &by()).await.unwrap(), DESTROYED);
    let opener = ground.opener();
    let error = open(&opener, &ann, b"here").await.unwrap_err();
    assert!(matches!(error, OpenError::Key(KeyError::Destroyed { .. })), "{error:?}");
    assert_eq!(open(&opener, &bea, b"here").await.unwrap().as_str(), "hers");
    // A daemon that starts later finds the tombstone and makes no new key.
    let later = ground.keyring();
    assert_eq!(encrypted_for(&later, "ann@x", "hers again").await, ERASED);
    // A new key is made only on purpose.
    assert_eq!(
        ground.admin().destroy_subject("pii", "ann@x", true, &by()).await.unwrap(),
        Erased { destroyed: 0, unknown: false }
    );
    let renewed = encrypted_for(&ground.keyring(), "ann@x", "new").await;
    assert_eq!(open(&ground.opener(), &renewed, b"here").await.unwrap().as_str(), "new");
    assert!(open(&ground.opener(), &ann, b"here").await.is_err());
    // A person of whom no value was seen yet.
    assert_eq!(
        ground.admin().destroy_subject("pii", "cem@x", false, &by()).await.unwrap(),
        Erased { destroyed: 0, unknown: true }
    );
    assert_eq!(encrypted_for(&later, "cem@x", "his").await, ERASED);
    let known = ground.admin().subjects(None).await.unwrap();
    assert_eq!(known.len(), 4);
    assert!(ground.admin().subjects(known.last().map(|last| &last.key)).await.unwrap().is_empty());
}

/// Two daemons, or a daemon and its successor, meet a subject at the same moment: both encrypt under the same key. Many
/// subjects are stored in one statement.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_comes_second_takes_the_first_ones_keys() {
    let service = services::local();
    let ground = Ground::new(&service.master).await;
    let keyrings: Vec<Arc<Keyring>> = (0..4).map(|_| Arc::new(ground.keyring())).collect();
    let tasks = keyrings.iter().map(|keyring| {
        let keyring = Arc::clone(keyring);
        tokio::spawn(async move {
            let class = keyring.sealer().class("pii").unwrap();
            keyring.provide(&[Wanted::Subjects(class), Wanted::Tokens(class)]).await.unwrap();
            let subject = |n: usize| keyring.sealer().subject(class, n.to_string().as_bytes()).unwrap();
            let wanted: Vec<Wanted> = (0..200).map(|n| Wanted::Subject(class, subject(n))).collect();
            keyring.provide(&wanted).await.unwrap();
            let mut keys = Vec::new();
            for n in 0..200 {
                keys.push(key_of(&encrypted_for(&keyring, &n.to_string(), "x").await));
            }
            keys.push(key_of(&token(&keyring, "d", "x").await));
            keys
        })
    });
    let mut all = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        all.push(task.await.unwrap());
    }
    assert!(all.windows(2).all(|two| two[0] == two[1]));
    assert_eq!(ground.sql("SELECT count(*), count(DISTINCT subject) FROM cdc_audit.subject_keys"), "200|200");
    assert_eq!(ground.sql("SELECT count(*) FROM cdc_audit.data_keys"), "2");
}

/// A wrapped key is bound to its place: if rows are exchanged, a key does not become that of another subject.
#[tokio::test(flavor = "multi_thread")]
async fn exchanged_rows_of_the_key_store_open_nothing() {
    let service = services::local();
    let ground = Ground::new(&service.master).await;
    let keyring = ground.keyring();
    let (ann, bea) = (encrypted_for(&keyring, "ann", "hers").await, encrypted_for(&keyring, "bea", "hers").await);
    let value = encrypted(&keyring, b"", "x").await;
    let (a, b) = (key_of(&ann), key_of(&bea));
    ground.sql(&format!(
        "UPDATE cdc_audit.subject_keys SET wrapped = (SELECT wrapped FROM cdc_audit.subject_keys WHERE key_id = '{b}') WHERE key_id = '{a}'"
    ));
    ground.sql("UPDATE cdc_audit.data_keys SET class = 'email' WHERE kind = 'data'");
    let mut classes = ground.classes.clone();
    classes.insert("email".to_owned(), classes["pii"].clone());
    let opener = Opener::new(&classes, ground.endpoint(), "test").unwrap();
    assert!(matches!(open(&opener, &ann, b"here").await, Err(OpenError::Key(KeyError::Damaged { .. }))));
    assert!(matches!(open(&opener, &value, b"").await, Err(OpenError::Key(KeyError::Refused { .. }))));
    assert_eq!(open(&opener, &bea, b"here").await.unwrap().as_str(), "hers");
    ground.sql("DELETE FROM cdc_audit.data_keys WHERE kind = 'data'");
    assert!(matches!(open(&opener, &value, b"").await, Err(OpenError::Key(KeyError::NoKey { .. }))));
    assert!(matches!(open(&opener, "Ann", b"").await, Err(OpenError::Form(_))));
}

/// The daemon's role can add keys, but it can neither change nor remove one, nor forge who opened what, and when.
#[tokio::test(flavor = "multi_thread")]
async fn the_daemons_role_adds_keys_and_changes_none() {
    let service = services::local();
    let database = shared_db(15).await;
    let (owner, writer) = (unique("owner"), unique("writer"));
    database.execute(&format!("CREATE ROLE {writer} LOGIN"));
    let (owner, named) = (Some(owner), Some(writer.clone()));
    setup(
        &database,
        &SetupOptions { keys: true, checkpoints_alone: true, owner, writer: named, ..SetupOptions::default() },
    );
    let mut ground = Ground { classes: BTreeMap::new(), database };
    ground.classes.insert("pii".to_owned(), KeyClass::new(service.master.clone()));
    let as_writer = PgEndpoint::new(format!("{}?user={writer}", ground.database.url));
    let keyring = Keyring::new("shop", &ground.classes, as_writer.clone(), "test").unwrap();
    let value = encrypted(&keyring, b"", "x").await;
    encrypted_for(&keyring, "ann", "x").await;
    let admin = KeyAdmin::new("shop", &ground.classes, as_writer.clone()).unwrap();
    assert!(matches!(admin.destroy(&key_of(&value), &by()).await, Err(KeyError::Store { .. })));
    assert!(matches!(admin.rotate("pii").await, Err(KeyError::Store { .. })));
    assert!(matches!(admin.rewrap("pii").await, Err(KeyError::Store { .. })));
    assert!(matches!(admin.destroy_subject("pii", "ann", false, &by()).await, Err(KeyError::Store { .. })));
    let client = audit_connect::connect(&as_writer, "test").await.unwrap();
    let log = "INSERT INTO cdc_audit.access_log (os_user, action, success) VALUES ('me', 'decrypt', true)";
    client.batch_execute(log).await.unwrap();
    for forbidden in [
        "DELETE FROM cdc_audit.data_keys",
        "UPDATE cdc_audit.subject_keys SET wrapped = NULL",
        "TRUNCATE cdc_audit.data_keys",
        "UPDATE cdc_audit.access_log SET success = false",
        "DELETE FROM cdc_audit.access_log",
        "INSERT INTO cdc_audit.access_log (db_user, os_user, action, success) VALUES ('you', 'me', 'decrypt', true)",
        "INSERT INTO cdc_audit.access_log (at, os_user, action, success) VALUES ('2001-01-01', 'me', 'decrypt', true)",
    ] {
        let error = client.batch_execute(forbidden).await.unwrap_err();
        assert_eq!(error.code().map(|code| code.code()), Some("42501"), "{forbidden}");
    }
    assert_eq!(ground.sql("SELECT db_user FROM cdc_audit.access_log"), writer);
    drop(client);
}

/// Every value is logged, opened or not, and if the log cannot be written, no value is returned.
#[tokio::test(flavor = "multi_thread")]
async fn no_value_without_an_entry_in_the_access_log() {
    let service = services::local();
    let ground = Ground::new(&service.master).await;
    let keyring = ground.keyring();
    let value = encrypted(&keyring, b"here", "x").await;
    let opener = ground.opener();
    assert_eq!(open(&opener, &value, b"here").await.unwrap().as_str(), "x");
    assert!(open(&opener, &value, b"elsewhere").await.is_err());
    assert!(open(&opener, "Ann", b"").await.is_err());
    let entries = "SELECT db_user = session_user, os_user, action, source, table_name, key, field, key_id, success \
         FROM cdc_audit.access_log ORDER BY id";
    let place = "t|me|test|shop|public.users|7|ssn";
    let key = key_of(&value);
    assert_eq!(ground.sql(entries), format!("{place}|{key}|t\n{place}|{key}|f\n{place}||f"));
    ground.sql("ALTER TABLE cdc_audit.access_log RENAME TO gone");
    let refused = open(&opener, &value, b"here").await.unwrap_err();
    assert!(matches!(refused, OpenError::Key(KeyError::Store { .. })), "{refused:?}");
}

/// A key service is unavailable: nothing is encrypted or passed on, the wait is reported, and it ends by itself.
#[tokio::test(flavor = "multi_thread")]
async fn who_wants_a_key_waits_for_the_service() {
    let moto = tokio::task::spawn_blocking(services::moto).await.unwrap();
    let proxy = FaultProxy::to(moto.port());
    let service = services::aws(proxy.port());
    let ground = Ground::new(&service.master).await;
    let keyring = Arc::new(ground.keyring());
    let class = keyring.sealer().class("pii").unwrap();
    proxy.plan(|_, _| Some(Fault::Fails));
    let waiting = keyring.waiting();
    let task = tokio::spawn({
        let keyring = Arc::clone(&keyring);
        async move { keyring.obtain(&[Wanted::Data(class)]).await }
    });
    eventually_async("the wait is reported", async || waiting.borrow().is_some()).await;
    let reported = waiting.borrow().clone().unwrap();
    assert_eq!(reported.class, "pii");
    assert!(reported.why.contains("aws_kms alias/pii cannot answer at present"), "{reported:?}");
    assert!(keyring.sealer().encrypt(class, b"", b"x", &mut String::new()).is_err());
    assert!(!task.is_finished());
    proxy.heal();
    task.await.unwrap();
    assert!(waiting.borrow().is_none());
    let value = encrypted(&keyring, b"", "x").await;
    assert!(Form::parse(&value).is_ok());
    // A reader gets an error and no value while the service fails.
    proxy.plan(|_, _| Some(Fault::Fails));
    assert!(matches!(open(&ground.opener(), &value, b"").await, Err(OpenError::Key(KeyError::Unwell { .. }))));
}
