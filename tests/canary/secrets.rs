use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

pub const TABLES: &str = "
    CREATE EXTENSION hstore;
    CREATE DOMAIN remark AS text;
    CREATE TYPE visit AS (room int, remark text);
    CREATE TABLE people (
        id text PRIMARY KEY, password_digest text, email text, ssn text, phone text, card text, nick text, tenant text, editor text, why text,
        owner text, note text, doc jsonb, raw json, gone text, number bigint, pin_code int, tags text[], body bytea,
        remark remark, visits visit[], attributes hstore, markup xml, outbox text, docs jsonb[], words tsvector, lines text[]);
    ALTER TABLE people REPLICA IDENTITY FULL;
    CREATE TABLE other (id int PRIMARY KEY, api_token text);";

pub const COLUMNS: &str = "id, password_digest, email, ssn, phone, card, nick, tenant, editor, why, owner, note, doc, raw, gone, number, pin_code, tags, body, \
    remark, visits, attributes, markup, outbox, docs, words, lines";

/// Rules for content of each kind, in all columns without a rule of their own.
pub const CONTENT: &str = r#"
[[protection.rules]]
content = "ssn"
method = "partial"
[[protection.rules]]
content = "phone"
method = "hash"
[[protection.rules]]
content = "email"
method = "partial"
[[protection.rules]]
content = "iban"
method = "full"
"#;

pub const RULES: &str = r#"
[[tables]]
name = "public.people"
ignore_alone = []
tenant = "tenant"
actor_column = "editor"
reason_column = "why"
include = ["owner"]

[tables.protect]
id = "hash"
email = ["partial", "hash"]
ssn = { method = "hash", domain = "ssn" }
phone = ["hash", "partial"]
card = { method = "partial", pattern = "{-4}" }
nick = { method = "hash", algorithm = "sha256" }
tenant = "hash"
editor = "full"
why = "hash"
owner = "partial"
gone = "drop"
number = "hash"
tags = "partial"
body = "full"
"doc.inner.secretly" = "hash"
"#;

/// Everything that must not be found.
#[derive(Default)]
pub struct Secrets {
    count: u64,
    words: Vec<String>,
    keys: Vec<String>,
}

pub struct Row(Vec<String>);

impl Row {
    pub fn values(&self) -> String {
        self.0.join(", ")
    }

    pub fn key(&self) -> &str {
        self.0[0].trim_matches('\'')
    }
}

impl Secrets {
    /// Makes a word that occurs nowhere else.
    pub fn word(&mut self, what: &str) -> String {
        self.count += 1;
        // No hash, number or name has these letters and digits next to each other.
        let word = format!("zq{what}{}xwv{}kjq", self.count, self.count * 7919);
        self.words.push(word.clone());
        word
    }

    fn digits(&mut self, head: &str, length: usize) -> String {
        self.count += 1;
        let tail = length - head.len();
        let digits = format!("{head}{:0tail$}", (self.count * 7_919_009_973) % 10u64.pow(tail as u32));
        self.words.push(digits.clone());
        digits
    }

    /// Makes a card number with a valid check digit.
    fn card(&mut self) -> String {
        self.count += 1;
        let body = format!("4539{:011}", (self.count * 7_919_009_973) % 100_000_000_000);
        let sum: u32 = body
            .bytes()
            .rev()
            .enumerate()
            .map(|(place, digit)| match (place % 2, u32::from(digit - b'0')) {
                (0, digit) if digit > 4 => digit * 2 - 9,
                (0, digit) => digit * 2,
                (_, digit) => digit,
            })
            .sum();
        let card = format!("{body}{}", (10 - sum % 10) % 10);
        self.words.push(card.clone());
        card
    }

    fn grouped(&mut self) -> String {
        let card = self.card();
        let groups: Vec<&str> = (0..4).map(|group| &card[group * 4..group * 4 + 4]).collect();
        let grouped = groups.join(" ");
        self.words.push(grouped.clone());
        grouped
    }

    fn ssn(&mut self) -> String {
        let digits = self.digits("3", 9);
        let ssn = format!("{}-{}-{}", &digits[..3], &digits[3..5], &digits[5..]);
        self.words.push(ssn.clone());
        ssn
    }

    fn phone(&mut self) -> String {
        let digits = self.digits("7", 10);
        let phone = format!("{}-{}-{}", &digits[..3], &digits[3..6], &digits[6..]);
        self.words.push(phone.clone());
        phone
    }

    fn mail(&mut self) -> String {
        format!("{}@example.com", self.word("inmail"))
    }

    /// Makes an account number with valid check digits.
    fn iban(&mut self) -> String {
        let account = self.digits("37", 18);
        let rest = format!("{account}131400").bytes().fold(0, |rest, digit| (rest * 10 + u32::from(digit - b'0')) % 97);
        format!("DE{:02}{account}", 98 - rest)
    }

    /// Makes free text with content of each kind, with numbers next to each other.
    fn prose(&mut self) -> String {
        format!(
            "MRN 4711 {} 2026-01-01, room 12 {} or {}, to {} by {} 77",
            self.ssn(),
            self.phone(),
            self.mail(),
            self.iban(),
            self.grouped()
        )
    }

    pub fn row(&mut self) -> Row {
        let quoted = |text: String| format!("'{text}'");
        let id = self.word("id");
        self.keys.push(id.clone());
        let (password, email, nick) = (self.word("password"), self.word("mail"), self.word("nick"));
        let (tenant, editor, why, owner) =
            (self.word("tenant"), self.word("editor"), self.word("why"), self.word("owner"));
        let (ssn, phone, number) = (self.digits("219", 9), self.digits("555", 10), self.digits("77", 15));
        let note = format!("paid with {} and {}, thanks", self.card(), self.grouped());
        let doc = format!(
            r#"{{"inner": {{"secretly": "{}", "list": [{{"api_key": "{}"}}]}}, "password": {{"deep": "{}"}}, "text": "card {}"}}"#,
            self.word("path"),
            self.word("apikey"),
            self.word("deep"),
            self.grouped()
        );
        let raw = format!(r#"{{ "client_secret" : "{}" , "n":{} }}"#, self.word("raw"), self.card());
        let (gone, tag, body) = (self.word("gone"), self.word("tag"), self.word("body"));
        let card = self.grouped();
        Row(vec![
            quoted(id),
            quoted(password),
            quoted(format!("{email}@example.com")),
            quoted(format!("{}-{}-{}", &ssn[..3], &ssn[3..5], &ssn[5..])),
            quoted(phone),
            quoted(card),
            quoted(nick),
            quoted(tenant),
            quoted(editor),
            quoted(why),
            quoted(owner),
            quoted(note),
            quoted(doc),
            quoted(raw),
            quoted(gone),
            number,
            "4711".to_owned(),
            format!("ARRAY['{tag}', 'x']"),
            format!("convert_to('{body}', 'UTF8')"),
            quoted(self.prose()),
            format!("ARRAY[ROW(1, '{}')::visit, ROW(2, NULL)::visit]", self.prose()),
            format!("hstore('userPassword', '{}') || hstore('note', '{}')", self.word("hstore"), self.prose()),
            format!("'<note by=\"{}\">{}</note>'::xml", self.mail(), self.prose()),
            quoted(format!(
                r#"{{"apiKey": "{}", "body": "{{\"password\": \"{}\", \"{}\": 1}}", "text": "{}"}}"#,
                self.word("outbox"),
                self.word("nested"),
                self.card(),
                self.prose()
            )),
            format!(r#"ARRAY['{{"clientSecret": "{}", "n": -{}}}'::jsonb]"#, self.word("jsons"), self.card()),
            format!("to_tsvector('simple', '{} wrote of {}')", self.mail(), self.card()),
            format!(r#"ARRAY['{}', '{{"password": "{}"}}']"#, self.prose(), self.word("line")),
        ])
    }

    pub fn context(&mut self) -> String {
        format!(
            r#"{{"actor_id": "u7", "actor": {{"name": "Ann", "email": "{}@example.com"}}, "session_token": "{}", "ip": "{}", "reason": "called about {}"}}"#,
            self.word("actormail"),
            self.word("session"),
            self.word("ip"),
            self.grouped()
        )
    }

    /// Writes the keys of protection into files, and returns the section that names them. The keys are secrets too.
    pub fn keys(&mut self, hash: &Path, rows: &Path) -> String {
        for (file, what) in [(hash, "hashkey"), (rows, "rowkey")] {
            audit_testkit::write_secret(file, format!("{}-0123456789abcdef", self.word(what)));
        }
        format!(
            "[protection]\nhash_key = {{ file = \"{}\" }}\nrow_key = {{ file = \"{}\" }}\ncontext = {{ ip = \"hash\", email = \"partial\" }}\n{CONTENT}",
            hash.display(),
            rows.display()
        )
    }

    pub fn a_key(&self) -> &str {
        &self.keys[1]
    }

    /// Lists each secret in every form in which it could be written, with its name.
    pub fn forms(&self) -> Vec<(String, Vec<u8>)> {
        let mut forms = Vec::new();
        for word in &self.words {
            forms.push((word.clone(), word.clone().into_bytes()));
            let hex = hex::encode(word);
            forms.push((format!("{word} in hex"), hex.to_uppercase().into_bytes()));
            forms.push((format!("{word} in hex"), hex.into_bytes()));
            // In base64 at any offset, without the characters that depend on the neighbouring bytes.
            for shift in 0..3 {
                let encoded = STANDARD.encode([&vec![0; shift], word.as_bytes()].concat());
                let inner = &encoded[(shift * 4).div_ceil(3)..encoded.len() - 4];
                forms.push((format!("{word} in base64"), inner.as_bytes().to_vec()));
            }
        }
        forms
    }

    pub fn is_a_key_of_a_row(&self, word: &str) -> bool {
        self.keys.iter().any(|key| key == word)
    }
}
