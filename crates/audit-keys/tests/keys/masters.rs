//! The behaviour that every master key must have.

use audit_cipher::{KeyId, Kind, SecretKey};
use audit_keys::{KeyError, MasterKey, Place, Wrapped, append_version};

use crate::services::{self, Service};

fn master(config: &audit_keys::Master) -> MasterKey {
    MasterKey::new(config).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_master_key_conforms() {
    let services = tokio::task::spawn_blocking(services::all).await.unwrap();
    for service in &services {
        println!("{}", service.name);
        a_wrapped_key_comes_back(service).await;
        it_is_bound_to_its_place(service).await;
        what_was_altered_is_refused(service).await;
        another_key_does_not_unwrap_it(service).await;
        a_missing_key_is_said_to_be_missing(service).await;
    }
}

async fn a_wrapped_key_comes_back(service: &Service) {
    let master = master(&service.master);
    for kind in [Kind::Data, Kind::Tokens, Kind::Subjects] {
        let (id, key) = (KeyId::generate(kind), SecretKey::generate());
        let place = Place { source: "shop \"1\"", class: "pii", kind, key: &id };
        let (one, two) = (master.wrap(&key, &place).await.unwrap(), master.wrap(&key, &place).await.unwrap());
        assert_ne!(one.text, two.text, "{}", service.name);
        assert!(one.master.starts_with(master.name()), "{}", one.master);
        assert!(!one.text.contains(&hex::encode(key.expose())));
        for wrapped in [&one, &two] {
            assert_eq!(master.unwrap(wrapped, &place).await.unwrap().expose(), key.expose(), "{}", service.name);
        }
    }
}

async fn it_is_bound_to_its_place(service: &Service) {
    let master = master(&service.master);
    let (id, other) = (KeyId::generate(Kind::Data), KeyId::generate(Kind::Data));
    let place = Place { source: "shop", class: "pii", kind: Kind::Data, key: &id };
    let wrapped = master.wrap(&SecretKey::generate(), &place).await.unwrap();
    for elsewhere in [
        Place { source: "crm", ..place },
        Place { class: "email", ..place },
        Place { kind: Kind::Tokens, ..place },
        Place { key: &other, ..place },
    ] {
        let error = master.unwrap(&wrapped, &elsewhere).await.unwrap_err();
        assert!(matches!(error, KeyError::Refused { .. }), "{}: {elsewhere:?}: {error:?}", service.name);
    }
}

async fn what_was_altered_is_refused(service: &Service) {
    let master = master(&service.master);
    let id = KeyId::generate(Kind::Data);
    let place = Place { source: "shop", class: "pii", kind: Kind::Data, key: &id };
    let wrapped = master.wrap(&SecretKey::generate(), &place).await.unwrap();
    let length = wrapped.text.len();
    let changed = |at: usize| {
        let mut bytes = wrapped.text.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        String::from_utf8(bytes).unwrap()
    };
    let cut = wrapped.text[..length / 2].to_owned();
    for text in [changed(length / 2), changed(length / 3), cut, String::new(), "ä".to_owned(), "%".to_owned()] {
        let error = master.unwrap(&Wrapped { text, master: wrapped.master.clone() }, &place).await.unwrap_err();
        // moto takes the key's name from the ciphertext, and if that is altered, it says that access is denied.
        let denied = service.name == "aws_kms" && matches!(error, KeyError::Denied { .. });
        assert!(denied || matches!(error, KeyError::Refused { .. }), "{}: {error:?}", service.name);
    }
}

async fn another_key_does_not_unwrap_it(service: &Service) {
    let (master, other) = (master(&service.master), master(&service.other));
    let id = KeyId::generate(Kind::Data);
    let place = Place { source: "shop", class: "pii", kind: Kind::Data, key: &id };
    let wrapped = master.wrap(&SecretKey::generate(), &place).await.unwrap();
    // moto says that access is denied, but AWS says IncorrectKeyException.
    let error = other.unwrap(&wrapped, &place).await.unwrap_err();
    assert!(matches!(error, KeyError::Refused { .. } | KeyError::Denied { .. }), "{}: {error:?}", service.name);
}

async fn a_missing_key_is_said_to_be_missing(service: &Service) {
    let id = KeyId::generate(Kind::Data);
    let place = Place { source: "shop", class: "pii", kind: Kind::Data, key: &id };
    // Vault makes a missing key if the token may create one, and root's token may.
    if service.name == "vault" {
        return;
    }
    let error = master(&service.missing).wrap(&SecretKey::generate(), &place).await.unwrap_err();
    assert!(matches!(error, KeyError::NoMaster { .. } | KeyError::File { .. }), "{}: {error:?}", service.name);
    assert!(!error.hint().is_empty());
}

#[tokio::test]
async fn a_keyring_grows_and_keeps_what_it_wrapped() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keyring");
    assert_eq!(append_version(&file).unwrap(), "v1");
    let master = master(&audit_keys::Master::Local(audit_keys::LocalMaster { file: file.clone() }));
    let (id, key) = (KeyId::generate(Kind::Data), SecretKey::generate());
    let place = Place { source: "shop", class: "pii", kind: Kind::Data, key: &id };
    let first = master.wrap(&key, &place).await.unwrap();
    assert_eq!(append_version(&file).unwrap(), "v2");
    let second = master.wrap(&key, &place).await.unwrap();
    assert_eq!((first.master.as_str(), second.master.as_str()), ("local v1", "local v2"));
    for wrapped in [&first, &second] {
        assert_eq!(master.unwrap(wrapped, &place).await.unwrap().expose(), key.expose());
    }
    let swapped = Wrapped { master: "local v2".to_owned(), ..first.clone() };
    assert!(matches!(master.unwrap(&swapped, &place).await, Err(KeyError::Refused { .. })));
    let gone = Wrapped { master: "local v9".to_owned(), ..first };
    assert!(matches!(master.unwrap(&gone, &place).await, Err(KeyError::NoMaster { .. })));
}

#[tokio::test]
async fn a_keyring_that_others_may_read_or_that_is_damaged_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keyring");
    append_version(&file).unwrap();
    let good = std::fs::read_to_string(&file).unwrap();
    let master = master(&audit_keys::Master::Local(audit_keys::LocalMaster { file: file.clone() }));
    let id = KeyId::generate(Kind::Data);
    let place = Place { source: "shop", class: "pii", kind: Kind::Data, key: &id };
    let mode = |mode| std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
    for open in [0o660, 0o604, 0o644] {
        mode(open);
        let error = master.wrap(&SecretKey::generate(), &place).await.unwrap_err();
        assert!(matches!(error, KeyError::Secret { .. }), "{error:?}");
        assert!(error.hint().contains("defaultMode: 0440"), "{}", error.hint());
    }
    mode(0o440);
    assert!(master.wrap(&SecretKey::generate(), &place).await.is_ok());
    mode(0o600);
    for text in ["", "# nothing\n", "v1\n", "v1 abc\n", "v 1 00\n", &(good.clone() + &good)] {
        std::fs::write(&file, text).unwrap();
        let error = master.wrap(&SecretKey::generate(), &place).await.unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(matches!(error, KeyError::Keyring { .. }) && !shown.contains(good.trim()), "{shown}");
    }
    std::fs::write(&file, good).unwrap();
    assert!(master.wrap(&SecretKey::generate(), &place).await.is_ok());
}
