//! Measures the cost of a value: `cargo run --release -p audit-cipher --example cost`.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "an example that prints")]

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use audit_cipher::{Aad, KeyId, Kind, Limits, Row, Sealer, SecretKey};

const VALUES: u32 = 200_000;

fn main() {
    let limits = Limits {
        rotate_after: Duration::from_secs(3_600),
        rotate_count: u64::MAX,
        subjects_max: NonZeroUsize::new(1_000).unwrap(),
        subject_for: Duration::from_secs(3_600),
    };
    let sealer = Sealer::new("shop", [("pii".to_owned(), limits)]);
    let class = sealer.class("pii").unwrap();
    let key = SecretKey::generate();
    sealer.install_data(class, KeyId::generate(Kind::Data), &key);
    sealer.install_tokens(class, KeyId::generate(Kind::Tokens), &key);
    sealer.install_subjects(class, &key);
    let subject = sealer.subject(class, b"4711").unwrap();
    sealer.install_subject(class, subject, Some((KeyId::generate(Kind::Subject), &key)));

    let mut aad = Aad::new();
    let row = Row { source: "shop", table: "public.users", key: Some("4711"), xid: 7, lsn: 1 << 40, seq: 1 };
    let mut out = String::with_capacity(1 << 20);
    for plain in ["123-45-6789", &"x".repeat(200)] {
        let bytes = plain.as_bytes();
        let mut measure = |what: &str, one: &mut dyn FnMut(&mut String)| {
            let begun = Instant::now();
            for _ in 0..VALUES {
                out.clear();
                one(&mut out);
            }
            println!("{what}, {} bytes: {} ns", bytes.len(), begun.elapsed().as_nanos() / u128::from(VALUES));
        };
        measure("encrypt", &mut |out| {
            aad.row(&row, std::iter::empty());
            sealer.encrypt(class, aad.column("ssn"), bytes, out).unwrap();
        });
        measure("encrypt for a subject", &mut |out| {
            aad.row(&row, std::iter::empty());
            let subject = sealer.subject(class, b"4711").unwrap();
            sealer.encrypt_for(class, &subject, aad.column("ssn"), bytes, out).unwrap();
        });
        measure("token", &mut |out| sealer.token(class, b"people", bytes, out).unwrap());
    }
}
