//! Values are encrypted and opened again, and only the right key and context open them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failing test")]

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::time::Duration;

use audit_cipher::{
    Aad, ClassId, ERASED, Failure, Form, FormError, KeyId, Kind, Limits, Row, Sealer, SecretKey, Subjects, Wanted,
    open, open_token, unwrap_key, wrap_key,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;

const LIMITS: Limits = Limits {
    rotate_after: Duration::from_secs(3_600),
    rotate_count: 1_000_000,
    subjects_max: NonZeroUsize::new(2).unwrap(),
    subject_for: Duration::from_secs(3_600),
};

/// A sealer with one class, and that class's keys.
struct Ground {
    sealer: Sealer,
    class: ClassId,
    data: SecretKey,
    tokens: SecretKey,
}

impl Ground {
    fn new() -> Ground {
        Ground::with(LIMITS)
    }

    fn with(limits: Limits) -> Ground {
        let sealer = Sealer::new("shop", [("pii".to_owned(), limits)]);
        let class = sealer.class("pii").unwrap();
        let ground = Ground { sealer, class, data: SecretKey::generate(), tokens: SecretKey::generate() };
        ground.sealer.install_data(class, KeyId::generate(Kind::Data), &ground.data);
        ground.sealer.install_tokens(class, KeyId::generate(Kind::Tokens), &ground.tokens);
        ground
    }

    fn encrypt(&self, aad: &[u8], plain: &str) -> String {
        let mut out = String::new();
        self.sealer.encrypt(self.class, aad, plain.as_bytes(), &mut out).unwrap();
        out
    }

    fn token(&self, domain: &str, plain: &str) -> String {
        let mut out = String::new();
        self.sealer.token(self.class, domain.as_bytes(), plain.as_bytes(), &mut out).unwrap();
        out
    }

    fn open(&self, text: &str, aad: &[u8]) -> Option<String> {
        open(&Form::parse(text).ok()?, &self.data, aad).ok().map(|plain| plain.to_string())
    }
}

proptest! {
    #[test]
    fn what_was_encrypted_comes_back(plain in "\\PC*|[\\x00-\\x7f]*", aad in prop::collection::vec(any::<u8>(), 0..64)) {
        let ground = Ground::new();
        let (text, again) = (ground.encrypt(&aad, &plain), ground.encrypt(&aad, &plain));
        prop_assert_ne!(&text, &again);
        prop_assert_eq!(ground.open(&text, &aad), Some(plain.clone()));
        prop_assert_eq!(ground.open(&again, &aad), Some(plain));
    }

    #[test]
    fn a_token_is_the_same_for_the_same_and_comes_back(plain in "\\PC*", other in "\\PC*") {
        let ground = Ground::new();
        let token = ground.token("users.ssn", &plain);
        prop_assert_eq!(&token, &ground.token("users.ssn", &plain));
        prop_assert_ne!(&token, &ground.token("people", &plain));
        prop_assert_eq!(plain == other, token == ground.token("users.ssn", &other));
        let form = Form::parse(&token).unwrap();
        let opened = open_token(&form, &ground.tokens, b"users.ssn").unwrap();
        prop_assert_eq!(opened.as_str(), plain.as_str());
        prop_assert!(open_token(&form, &ground.tokens, b"people").is_err());
        prop_assert!(open_token(&form, &ground.data, b"users.ssn").is_err());
    }

    #[test]
    fn whatever_is_altered_does_not_open(plain in "\\PC{0,20}", at in any::<prop::sample::Index>(), bit in 0..7u8) {
        let ground = Ground::new();
        for (text, is_token) in [(ground.encrypt(b"here", &plain), false), (ground.token("d", &plain), true)] {
            let mut bytes = text.clone().into_bytes();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let Ok(altered) = String::from_utf8(bytes) else { continue };
            let Ok(form) = Form::parse(&altered) else { continue };
            // The key's name is not authenticated: it says which key opens the value, and another key does not open it.
            if form.key != Form::parse(&text).unwrap().key {
                continue;
            }
            let opened = if is_token { open_token(&form, &ground.tokens, b"d") } else { open(&form, &ground.data, b"here") };
            prop_assert!(opened.is_err(), "{text} as {altered}");
        }
    }

    #[test]
    fn no_text_makes_the_parser_panic(
        text in "\\PC*|(aes256gcm|aes-siv):[dtsw]?[0-9a-f]{15,17}:?[A-Za-z0-9+/_=-]*|(aes256gcm:|aes-siv:)\\PC*",
    ) {
        let key = SecretKey::generate();
        if let Ok(form) = Form::parse(&text) {
            prop_assert!(open(&form, &key, b"").is_err() && open_token(&form, &key, b"").is_err());
        }
    }

    #[test]
    fn a_wrapped_key_comes_back_in_its_context_alone(context in "\\PC*", at in 0..80usize) {
        let (key, under) = (SecretKey::generate(), SecretKey::generate());
        let mut wrapped = wrap_key(&key, &under, context.as_bytes()).unwrap();
        let back = unwrap_key(&wrapped, &under, context.as_bytes()).unwrap();
        prop_assert_eq!(back.expose(), key.expose());
        let other = context.clone() + ".";
        prop_assert!(unwrap_key(&wrapped, &under, other.as_bytes()).is_err());
        prop_assert!(unwrap_key(&wrapped, &key, context.as_bytes()).is_err());
        wrapped[at] ^= 1;
        prop_assert!(unwrap_key(&wrapped, &under, context.as_bytes()).is_err());
        prop_assert!(unwrap_key(&wrapped[..at], &under, context.as_bytes()).is_err());
    }
}

/// Makes ten runs under one data key, as after nine restarts: no pair of run and nonce, and no ciphertext, repeats.
#[test]
fn nothing_repeats_within_a_run_or_across_restarts() {
    let data = SecretKey::generate();
    let id = KeyId::generate(Kind::Data);
    let (mut texts, mut nonces) = (HashSet::new(), HashSet::new());
    for _ in 0..10 {
        let ground = Ground::new();
        ground.sealer.install_data(ground.class, id.clone(), &data);
        for _ in 0..2_000 {
            let text = ground.encrypt(b"", "the same");
            let body = STANDARD.decode(text.rsplit(':').next().unwrap()).unwrap();
            // Version, run id and counter.
            assert!(nonces.insert(body[..25].to_vec()), "{text}");
            assert!(texts.insert(text));
        }
    }
    assert_eq!(texts.len(), 20_000);
}

#[test]
fn a_value_opens_only_where_it_stood() {
    let ground = Ground::new();
    let row = Row { source: "shop", table: "public.users", key: Some("7"), xid: 9, lsn: 100, seq: 0 };
    let mut aad = Aad::new();
    aad.row(&row, [("provider_id", Some("4"))].into_iter());
    let text = ground.encrypt(aad.column("ssn"), "123-45-6789");
    assert_eq!(ground.open(&text, aad.column("ssn")).as_deref(), Some("123-45-6789"));
    assert_eq!(ground.open(&text, aad.column("email")), None);
    let elsewhere = [
        Row { source: "crm", ..row },
        Row { table: "public.people", ..row },
        Row { key: Some("8"), ..row },
        Row { key: None, ..row },
        Row { xid: 10, ..row },
        Row { lsn: 101, ..row },
        Row { seq: 1, ..row },
    ];
    for row in &elsewhere {
        aad.row(row, [("provider_id", Some("4"))].into_iter());
        assert_eq!(ground.open(&text, aad.column("ssn")), None, "{row:?}");
    }
    for with in [Some("5"), None] {
        aad.row(&row, [("provider_id", with)].into_iter());
        assert_eq!(ground.open(&text, aad.column("ssn")), None);
    }
}

#[test]
fn no_key_means_no_value_and_the_key_that_is_wanted_is_named() {
    let sealer = Sealer::new("shop", [("default".to_owned(), LIMITS), ("pii".to_owned(), LIMITS)]);
    let class = sealer.class("pii").unwrap();
    assert_eq!((sealer.name(class), sealer.class("none")), ("pii", None));
    let mut out = "before".to_owned();
    let wanted = |failure: Result<_, Failure>| match failure {
        Err(Failure::Wanted(wanted)) => wanted,
        _ => panic!("a value without a key"),
    };
    assert_eq!(wanted(sealer.encrypt(class, b"", b"secret", &mut out)), Wanted::Data(class));
    assert_eq!(wanted(sealer.token(class, b"d", b"secret", &mut out)), Wanted::Tokens(class));
    assert_eq!(wanted(sealer.subject(class, b"42").map(drop)), Wanted::Subjects(class));
    let key = SecretKey::generate();
    sealer.install_subjects(class, &key);
    let subject = sealer.subject(class, b"42").unwrap();
    assert_eq!(wanted(sealer.encrypt_for(class, &subject, b"", b"secret", &mut out)), Wanted::Subject(class, subject));
    assert_eq!(out, "before");
    assert_eq!(Subjects::new(&key).unwrap().find(b"42"), subject);
    assert!(!format!("{sealer:?} {subject:?}").contains("secret"));
}

#[test]
fn a_data_key_ends_by_count_and_by_time_and_is_followed_in_time() {
    let ground = Ground::with(Limits { rotate_count: 8, ..LIMITS });
    assert!(ground.sealer.due().is_empty());
    (0..6).for_each(|_| drop(ground.encrypt(b"", "x")));
    assert_eq!(ground.sealer.due(), [Wanted::Data(ground.class)]);
    (0..2).for_each(|_| drop(ground.encrypt(b"", "x")));
    let mut out = String::new();
    let failed = ground.sealer.encrypt(ground.class, b"", b"x", &mut out);
    assert_eq!((failed, out.as_str()), (Err(Failure::Wanted(Wanted::Data(ground.class))), ""));
    let second = KeyId::generate(Kind::Data);
    ground.sealer.install_data(ground.class, second.clone(), &ground.data);
    assert_eq!(Form::parse(&ground.encrypt(b"", "x")).unwrap().key, second);

    let ground = Ground::with(Limits { rotate_after: Duration::ZERO, ..LIMITS });
    let failed = ground.sealer.encrypt(ground.class, b"", b"x", &mut String::new());
    assert_eq!(failed, Err(Failure::Wanted(Wanted::Data(ground.class))));
}

#[test]
fn a_subject_has_a_key_of_its_own_until_that_is_destroyed() {
    let ground = Ground::new();
    let (class, sealer) = (ground.class, &ground.sealer);
    sealer.install_subjects(class, &SecretKey::generate());
    let keys: Vec<_> = (0..3).map(|_| (KeyId::generate(Kind::Subject), SecretKey::generate())).collect();
    let subjects: Vec<_> =
        ["ann", "bea", "cem"].iter().map(|id| sealer.subject(class, id.as_bytes()).unwrap()).collect();
    let seal = |n: usize| {
        let mut out = String::new();
        sealer.encrypt_for(class, &subjects[n], b"", b"hers", &mut out).map(|()| out)
    };
    for n in 0..2 {
        sealer.install_subject(class, subjects[n], Some((keys[n].0.clone(), &keys[n].1)));
    }
    let (ann, bea) = (seal(0).unwrap(), Form::parse(&seal(1).unwrap()).unwrap());
    let ann = Form::parse(&ann).unwrap();
    assert_eq!((&ann.key, &bea.key), (&keys[0].0, &keys[1].0));
    assert_eq!(open(&ann, &keys[0].1, b"").unwrap().as_str(), "hers");
    assert!(open(&ann, &keys[1].1, b"").is_err());
    sealer.install_subject(class, subjects[1], None);
    assert_eq!(seal(1).unwrap(), ERASED);
    // The cache holds two subjects: the third replaces the one that was not used for the longest time.
    sealer.install_subject(class, subjects[2], Some((keys[2].0.clone(), &keys[2].1)));
    assert_eq!(seal(0), Err(Failure::Wanted(Wanted::Subject(class, subjects[0]))));
    assert!(seal(2).is_ok());
}

#[test]
fn what_is_none_of_ours_is_told_from_what_was_damaged() {
    let ground = Ground::new();
    let text = ground.encrypt(b"", "secret");
    assert_eq!(Form::parse("Ann"), Err(FormError::Other));
    assert_eq!(Form::parse(&text[..text.len() - 1]), Err(FormError::Damaged));
    assert_eq!(Form::parse("aes256gcm:d0123456789abcdef:AQ=="), Err(FormError::Damaged));
    assert_eq!(Form::parse("aes256gcm:d0123456789abcdef:Ag=="), Err(FormError::Newer));
    assert_eq!(Form::parse(&text.replacen("aes256gcm", "aes-siv", 1)), Err(FormError::Damaged));
}

/// Opens a value that an earlier release stored, together with its key: the format never changes.
#[test]
fn stored_values_stay_readable() {
    let key = SecretKey::from_slice(&std::array::from_fn::<u8, 32, _>(|n| n as u8)).unwrap();
    let token = "aes-siv:t0123456789abcdef:KG1LPCaJN5d2ZHNRLpqXHls61KuTviA";
    let text = "aes256gcm:d0123456789abcdef:AUgLXktv8gsZW+TxVd3gwp8AAAAAAAAAAIri4IBhgFOu548imKwl59MLAFYCdwYs";
    assert_eq!(open(&Form::parse(text).unwrap(), &key, b"here").unwrap().as_str(), "Grüße");
    assert_eq!(open_token(&Form::parse(token).unwrap(), &key, b"people").unwrap().as_str(), "Grüße");
}
