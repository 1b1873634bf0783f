//! A workload's questions, and what is wrong with the answers.

use std::collections::BTreeMap;

use cdc_audit_tests::dice::Dice;
use cdc_audit_tests::value::{Text, from_json};
use cdc_audit_tests::world::World;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::truth::{Moments, Truth};

/// From where an answer is taken: from one sink alone, or from both.
pub const FROM: [&[&str]; 3] = [&["--from", "hot"], &["--from", "archive"], &[]];

pub struct Asked<'w> {
    pub world: &'w World,
    pub truth: &'w Truth,
    pub moments: Moments,
    pub dice: Dice,
    full: Vec<&'w str>,
    wrong: Vec<String>,
    /// What was compared, and how often.
    pub counts: BTreeMap<&'static str, u64>,
}

/// An answer: its exit code, and what it wrote.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl<'w> Asked<'w> {
    pub fn new(world: &'w World, truth: &'w Truth, full: Vec<&'w str>, moments: Moments, dice: Dice) -> Asked<'w> {
        Asked { world, truth, moments, dice, full, wrong: Vec::new(), counts: BTreeMap::new() }
    }

    /// Whether the server sends whole old rows of the table.
    pub fn is_full(&self, table: &str) -> bool {
        self.full.iter().any(|full| table == format!("public.{full}"))
    }

    pub fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// Keeps what is wrong with the answer to a question.
    pub fn blame(&mut self, question: &[&str], wrong: impl IntoIterator<Item = String>) {
        let question = question.join(" ");
        self.wrong.extend(wrong.into_iter().map(|what| format!("{question}: {what}")));
    }

    /// Asks the same of each sink alone and of both, and returns the answer, which must be the same.
    pub fn ask(&mut self, question: &[&str]) -> Answer {
        let answers = FROM.map(|from| {
            let output = self.world.command(&[&question[..1], from, &question[1..]].concat());
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
            let out = text(&output.stdout).lines().map(|line| same(line) + "\n").collect();
            Answer { code: output.status.code().unwrap_or(-1), out, err: text(&output.stderr) }
        });
        self.count("questions");
        for (from, answer) in FROM.iter().zip(&answers).skip(1) {
            if (answer.code, &answer.out) != (answers[0].code, &answers[0].out) {
                let (one, other) = first_difference(&answers[0].out, &answer.out);
                let what = format!(
                    "from hot and {from:?} differ: {} and {}, {one}\n   and {other}\n{}{}",
                    answers[0].code, answer.code, answers[0].err, answer.err
                );
                self.wrong.push(format!("{}: {what}", question.join(" ")));
            }
        }
        let [_, _, both] = answers;
        both
    }

    pub fn conclude(self, seed: u64) {
        let counts: Vec<String> = self.counts.iter().map(|(what, count)| format!("{count} {what}")).collect();
        eprintln!("{}", counts.join(", "));
        let shown = self
            .wrong
            .iter()
            .take(40)
            .map(|wrong| wrong.chars().take(600).collect::<String>())
            .collect::<Vec<_>>()
            .join("\n");
        assert!(self.wrong.is_empty(), "CDC_AUDIT_SEED={seed}: {} answers are wrong:\n{shown}", self.wrong.len());
    }
}

fn first_difference<'a>(one: &'a str, other: &'a str) -> (&'a str, &'a str) {
    let end = one.lines().count().max(other.lines().count());
    let line = |text: &'a str, at: usize| text.lines().nth(at).unwrap_or("(no line)");
    (0..end).map(|at| (line(one, at), line(other, at))).find(|(one, other)| one != other).unwrap_or(("", ""))
}

/// A line without what names the sink: the time of recording, what the answer covers, and the row after an update,
/// which hot does not keep.
pub fn same(line: &str) -> String {
    let Ok(mut members) = serde_json::from_str::<Members>(line) else { return line.to_owned() };
    members.0.retain(|(name, _)| name != "recorded_at" && name != "coverage");
    let is_update = members.0.iter().any(|(name, value)| name == "event" && value.get() == "\"updated\"");
    members.0.retain(|(name, _)| !(is_update && name == "after"));
    // `jsonb` reorders the members of what the application said.
    let parsed = |json: &RawValue| {
        let parsed: Option<BTreeMap<&str, serde_json::Value>> = serde_json::from_str(json.get()).expect("an object");
        serde_json::to_string(&parsed).expect("JSON")
    };
    let member = |(name, value): &(String, &RawValue)| match name.as_str() {
        "context" | "actor" => format!("\"{name}\":{}", parsed(value)),
        _ => format!("\"{name}\":{}", value.get()),
    };
    format!("{{{}}}", members.0.iter().map(member).collect::<Vec<_>>().join(","))
}

/// The members of an object, in their order and as they are written.
struct Members<'r>(Vec<(String, &'r RawValue)>);

impl<'de: 'r, 'r> Deserialize<'de> for Members<'r> {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Members<'r>, D::Error> {
        struct Read;
        impl<'de> serde::de::Visitor<'de> for Read {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(members)
            }
        }
        from.deserialize_map(Read).map(Members)
    }
}

/// Whether a column's values are protected.
pub fn hidden(table: &str, column: &str) -> bool {
    table == "public.people" && ["ssn", "email", "card", "pin"].contains(&column)
}

/// A value as PostgreSQL writes it.
pub fn text(json: &RawValue, types: &BTreeMap<String, String>, column: &str) -> Text {
    let kind = match types.get(column).map(String::as_str).unwrap_or("text") {
        "timestamp with time zone" => "timestamptz",
        "boolean" => "bool",
        kind => kind,
    };
    from_json(json, kind)
}
