//! Rows like those of a shop: texts like prose, repeated words, numbers, a JSON document.

use std::fmt::Write as _;
use std::sync::Arc;

use audit_core::change::Cell;
use audit_core::position::{Micros, Position};
use audit_core::rules::Rules;
use audit_core::shape::{KeySource, Shape, ShapeColumn, TableName};
use audit_core::table::Table;

pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

pub fn table(name: &str, columns: &[(&str, &str)]) -> Arc<Table> {
    let column = |(name, kind): &(&str, &str)| ShapeColumn {
        name: (*name).into(),
        type_oid: 0,
        typmod: -1,
        type_name: (*kind).into(),
        holds: Vec::new(),
        kind: kind.parse().unwrap(),
        attnum: None,
        in_identity: true,
    };
    let shape = Shape {
        schema: "public".into(),
        table: name.into(),
        schema_version: 1,
        digest: "d".into(),
        first: Position::default(),
        columns: columns.iter().map(column).collect(),
        key: vec!["id".into()],
        key_source: KeySource::Catalog,
        oid: None,
        partitioned: None,
        rules: None,
        seal: None,
    };
    let rules = Rules::default().for_table(&TableName::new("public", name));
    Arc::new(Table::new(Arc::new(shape), &rules, false).unwrap())
}

pub const NARROW: [(&str, &str); 5] =
    [("id", "int8"), ("bid", "int4"), ("abalance", "int4"), ("mtime", "timestamptz"), ("filler", "text")];

pub const WIDE: [(&str, &str); 20] = [
    ("id", "int8"),
    ("account_id", "uuid"),
    ("email", "text"),
    ("full_name", "text"),
    ("status", "text"),
    ("amount", "numeric(18,4)"),
    ("balance", "numeric(18,4)"),
    ("tax", "numeric(10,4)"),
    ("currency", "text"),
    ("created_at", "timestamptz"),
    ("updated_at", "timestamptz"),
    ("due_date", "date"),
    ("is_active", "bool"),
    ("retries", "int4"),
    ("score", "float8"),
    ("attrs", "jsonb"),
    ("address", "text"),
    ("note", "text"),
    ("ref", "uuid"),
    ("version", "int4"),
];

/// Words like prose, from which texts are cut as in the measured table.
pub fn prose() -> String {
    let mut random = Random(42);
    let words: Vec<String> =
        (0..4000).map(|i| (0..3 + i % 8).map(|_| (b'a' + random.below(26) as u8) as char).collect()).collect();
    (0..8000).map(|_| format!("{} ", words[random.below(4000) as usize])).collect()
}

pub fn slice<'p>(prose: &'p str, random: &mut Random, len: usize) -> &'p str {
    let at = random.below((prose.len() - len) as u64) as usize;
    &prose[at..at + len]
}

pub fn uuid(random: &mut Random) -> String {
    let (a, b) = (random.next(), random.next());
    format!(
        "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}",
        a >> 32,
        a as u16,
        b as u16 & 0xfff,
        (b >> 16) as u16 & 0xfff,
        b >> 16
    )
}

pub fn time(random: &mut Random, span: u64) -> String {
    let at = Micros(1_772_323_200_000_000 - (random.below(span * 1_000_000)) as i64).to_string();
    format!("{} {}+00", &at[..10], &at[11..26])
}

pub fn row(wide: bool, id: u64, prose: &str, random: &mut Random, out: &mut Vec<String>) {
    out.clear();
    out.push(id.to_string());
    if !wide {
        out.extend([(id % 100).to_string(), random.below(1_000_000).to_string(), time(random, 100_000)]);
        out.push((0..4).map(|_| format!("{:016x}", random.next())).collect::<String>()[..60].to_string());
        return;
    }
    let pick = |list: &[&str], at: u64| list[at as usize % list.len()].to_string();
    out.push(uuid(random));
    out.push(format!("user{}@example{}.com", random.below(500_000), id % 40));
    out.push(slice(prose, random, 16).to_string());
    out.push(pick(&["new", "paid", "shipped", "delivered", "cancelled", "returned"], id));
    for digits in [10_000, 1_000_000, 100] {
        out.push(format!("{}.{:04}", random.below(digits), random.below(10_000)));
    }
    out.push(pick(&["EUR", "USD", "GBP", "CHF", "JPY"], id));
    out.extend([time(random, 86_400_000), time(random, 86_400)]);
    out.push(time(random, 60_000_000)[..10].to_string());
    out.push(if id.is_multiple_of(2) { "t" } else { "f" }.to_string());
    out.push((id % 5).to_string());
    out.push((random.below(1 << 50) as f64 / 1e12).to_string());
    let mut doc = String::new();
    let _ = write!(
        doc,
        "{{\"plan\": \"p{}\", \"tags\": [\"t{}\", \"t{}\"], \"flags\": {{\"vip\": {}, \"beta\": {}}}, \"limits\": {{\"cpu\": {}, \"mem\": {}}}, \"source\": \"{:016x}{:08x}\", \"comment\": \"{}\"}}",
        id % 9,
        id % 50,
        id % 37,
        id.is_multiple_of(3),
        id.is_multiple_of(2),
        id % 64,
        id % 4096,
        random.next(),
        random.next() as u32,
        slice(prose, random, 70)
    );
    out.push(doc);
    out.push(format!("{} {}", id % 999, slice(prose, random, 60)));
    out.push(slice(prose, random, 330).to_string());
    out.push(uuid(random));
    out.push((id % 40).to_string());
}

pub fn cells(values: &[String], bytes: &mut Vec<u8>, cells: &mut Vec<Cell>) {
    for value in values {
        cells.push(Cell::text(bytes.len(), value.len()));
        bytes.extend_from_slice(value.as_bytes());
    }
}
