//! Every supported type, with values that are known to cause faults, and random ones.

use crate::dice::Dice;

/// A type and values of it, as text that the type accepts.
pub struct Type {
    /// The type's name in the name of a column.
    pub name: &'static str,
    pub sql: &'static str,
    pub texts: &'static [&'static str],
    pub random: fn(&mut Dice) -> String,
}

/// The SQL that the types below need. `xml` is left out if the server was built without it.
pub const PRELUDE: &str = r#"
CREATE EXTENSION hstore; CREATE EXTENSION ltree; CREATE EXTENSION citext;
CREATE TYPE mood AS ENUM ('sad', 'so-so', 'very happy', 'quo"te', 'ünïcode ☃');
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE DOMAIN tags AS text[] CHECK (cardinality(VALUE) < 100);
CREATE DOMAIN small_positive AS positive CHECK (VALUE < 1000);
CREATE DOMAIN stamp AS timestamptz;
CREATE TYPE "Odd Pair" AS (a int, "b c" text, d timestamptz);
CREATE TYPE float_range AS RANGE (subtype = float8);
"#;

const fn kind(
    name: &'static str,
    sql: &'static str,
    texts: &'static [&'static str],
    random: fn(&mut Dice) -> String,
) -> Type {
    Type { name, sql, texts, random }
}

/// The types, but those that [`xml`] and [`since_15`] add.
pub const TYPES: &[Type] = &[
    kind("bool", "bool", &["t", "f"], |d| d.pick(&["t", "f"]).to_string()),
    kind("int2", "int2", &["-32768", "0", "32767"], |d| d.between(-32768, 32767).to_string()),
    kind("int4", "int4", &["-2147483648", "0", "2147483647"], |d| d.between(-2147483648, 2147483647).to_string()),
    kind("int8", "int8", &["-9223372036854775808", "9007199254740993", "9223372036854775807"], |d| {
        (d.next() as i64).to_string()
    }),
    kind("float4", "float4", &["NaN", "Infinity", "-Infinity", "-0", "3.4028235e+38", "1e-45", "0.1"], |d| {
        format!("{}e{}", d.between(-99_999_999, 99_999_999), d.between(-30, 20))
    }),
    kind(
        "float8",
        "float8",
        &["NaN", "Infinity", "-Infinity", "-0", "1.7976931348623157e+308", "5e-324", "0.1", "1e+20"],
        |d| format!("{}e{}", d.next() as i64, d.between(-300, 280)),
    ),
    kind(
        "numeric",
        "numeric",
        &["NaN", "Infinity", "-Infinity", "0", "-0.000", HUNDRED_DIGITS, "1e-200", "1e1000"],
        |d| format!("{}.{:010}", d.next() as i64, d.below(10_000_000_000)),
    ),
    kind("numeric_18_4", "numeric(18,4)", &["NaN", "0", "-0.0001", "99999999999999.9999"], |d| {
        format!("{}.{:04}", d.between(-99_999_999, 99_999_999), d.below(10_000))
    }),
    kind("numeric_38_0", "numeric(38,0)", &["99999999999999999999999999999999999999", "-1"], |d| d.next().to_string()),
    kind("numeric_60_20", "numeric(60,20)", &["1234567890123456789012345678901234567890.12345678901234567890"], |d| {
        format!("{}.5", d.next())
    }),
    kind("money", "money", &["$92,233,720,368,547,758.07", "-$1.05"], |d| {
        format!("{}.{:02}", d.between(-999_999, 999_999), d.below(100))
    }),
    kind("char5", "char(5)", &["", "ab", "☃☃"], |d| text(d, 5)),
    kind("varchar20", "varchar(20)", &["", " lead and trail "], |d| text(d, 20)),
    kind(
        "text",
        "text",
        &[
            "",
            "NULL",
            "null",
            "\\N",
            "\\x00",
            "it's",
            "a\"b",
            "tab\tnew\nline\rback\u{8}",
            "\u{2028}\u{2029}",
            "😀 ä \u{10fffd} e\u{301}",
            "{}",
            "[]",
            "[REDACTED]",
        ],
        |d| text(d, 40),
    ),
    kind("one_byte", "\"char\"", &["a", ""], |d| d.pick(&["x", "~", "\""]).to_string()),
    kind("name", "name", &["pg_class", "an odd \"name\""], |d| text(d, 12)),
    kind("bytea", "bytea", &["\\x", "\\x00", "\\xdeadbeef00ff", "\\x5c78"], bytea),
    kind("bit5", "bit(5)", &["10101", "00000"], |d| format!("{:05b}", d.below(32))),
    kind("varbit", "bit varying", &["", "1", "0000000000000000000000000000000000001"], |d| {
        format!("{:b}", d.below(1 << 40))
    }),
    kind(
        "date",
        "date",
        &[
            "infinity",
            "-infinity",
            "4714-11-24 BC",
            "0001-01-01 BC",
            "0001-01-01",
            "5874897-12-31",
            "9999-12-31",
            "2024-02-29",
        ],
        date,
    ),
    kind("time", "time", &["24:00:00", "00:00:00", "23:59:59.999999"], clock),
    kind("timetz", "timetz", &["24:00:00+15:59:59", "00:00:00-12"], |d| format!("{}+{:02}:30", clock(d), d.below(13))),
    kind(
        "timestamp",
        "timestamp",
        &[
            "infinity",
            "-infinity",
            "4714-11-24 00:00:00 BC",
            "294276-12-31 23:59:59.999999",
            "10000-01-01 00:00:00",
            "0001-01-01 00:00:00",
        ],
        stamp,
    ),
    kind(
        "timestamptz",
        "timestamptz",
        &[
            "infinity",
            "-infinity",
            "4714-11-24 00:00:00+00 BC",
            "294276-12-31 23:59:59.999999+00",
            "2026-03-29 02:30:00 Europe/Berlin",
        ],
        |d| stamp(d) + "+00",
    ),
    kind("timestamptz3", "timestamptz(3)", &["2026-03-01 09:30:00.123+00"], |d| stamp(d) + "+00"),
    kind(
        "interval",
        "interval",
        &["0", "-178000000 years", "1 year 2 mons -3 days 04:05:06.789", "-00:00:00.000001"],
        |d| {
            format!(
                "{} mons {} days {} microseconds",
                d.between(-99, 99),
                d.between(-999, 999),
                d.between(-999_999_999, 999_999_999)
            )
        },
    ),
    kind("uuid", "uuid", &["00000000-0000-0000-0000-000000000000", "FFFFFFFF-ffff-ffff-ffff-ffffffffffff"], |d| {
        format!("{:016x}{:016x}", d.next(), d.next())
    }),
    kind(
        "json",
        "json",
        &[
            r#"{"a":1,"a": 2 }"#,
            "null",
            "  [1 ,-0]",
            r#""\ud800""#,
            r#""\u0000""#,
            "\"\u{2028}\"",
            "1e400",
            "1234567890123456789012345678901234567890.0",
        ],
        json,
    ),
    kind(
        "jsonb",
        "jsonb",
        &[
            "null",
            "[]",
            "{}",
            "0",
            "\"\"",
            "1e100",
            "-0.00",
            "1234567890123456789012345678901234567890.12345",
            r#"{"b": 1, "aa": [null, {"$json": 1}], "": true}"#,
        ],
        json,
    ),
    kind("int4s", "int4[]", &["{}", "{1,NULL,3}", "{{1,2},{3,4}}", "[0:1]={1,2}", "[-1:0][5:6]={{1,2},{3,4}}"], |d| {
        format!("{{{},{}}}", d.between(-9, 9), d.between(-9, 9))
    }),
    kind("texts", "text[]", &["{}", r#"{"a,b","c\"d\\",NULL,"NULL",x,"",null}"#, r#"{{"{}"},{" "}}"#], |d| {
        format!("{{{},{}}}", quoted(d), quoted(d))
    }),
    kind("float8s", "float8[]", &["{NaN,Infinity,-Infinity,NULL,-0,1e+20}"], |d| {
        format!("{{{}e{}}}", d.between(-999, 999), d.between(-30, 30))
    }),
    kind("bools", "bool[]", &["{t,f,NULL}"], |d| format!("{{{}}}", d.pick(&["t", "f"]))),
    kind("numerics", "numeric(20,3)[]", &["{NaN,1.5,NULL}"], |d| format!("{{{}.5}}", d.between(-99_999, 99_999))),
    kind("byteas", "bytea[]", &[r#"{"\\x00ff",NULL,"\\x"}"#], |d| format!("{{\"\\{}\"}}", bytea(d))),
    kind("jsons", "json[]", &[r#"{"{\"a\":1,\"a\": 2}","null",NULL}"#], |d| format!("{{{}}}", d.below(9))),
    kind("jsonbs", "jsonb[]", &[r#"{"[1, {\"a\": \"}\"}]","null",NULL}"#], |d| format!("{{{}}}", d.below(9))),
    kind("timestamptzs", "timestamptz[]", &[r#"{"infinity",NULL,"0044-03-15 12:00:00+00 BC"}"#], |d| {
        format!("{{\"{}+00\"}}", stamp(d))
    }),
    kind("int4range", "int4range", &["empty", "(,)", "[1,10)"], |d| {
        let low = d.between(-99, 99);
        format!("[{low},{})", low + 5)
    }),
    kind("numrange", "numrange", &["[1.5,2.5]", "(,7)"], |d| {
        let low = d.between(-99, 99);
        format!("[{low},{}]", low + 5)
    }),
    kind("tstzrange", "tstzrange", &[r#"["2026-01-01 00:00:00+00",infinity)"#], |d| format!("(,{}+00]", stamp(d))),
    kind("float_range", "float_range", &["[NaN,NaN]", "[0.1,0.2)"], |d| {
        let low = d.between(-99, 99);
        format!("[{low}.5,{})", low + 5)
    }),
    kind("multirange", "int4multirange", &["{}", "{[1,3),[7,9)}"], |d| {
        let low = d.between(-99, 99);
        format!("{{[{low},{})}}", low + 3)
    }),
    kind("mood", "mood", &["sad", "very happy", "quo\"te", "ünïcode ☃"], |d| d.pick(&["sad", "so-so"]).to_string()),
    kind("moods", "mood[]", &[r#"{sad,NULL,"very happy","quo\"te"}"#], |d| {
        format!("{{{}}}", d.pick(&["sad", "so-so"]))
    }),
    kind("positive", "positive", &["1"], |d| d.between(1, 999_999).to_string()),
    kind("small_positive", "small_positive", &["999"], |d| d.between(1, 999).to_string()),
    kind("tags", "tags", &["{}", "{a,\"b c\"}"], |d| format!("{{{}}}", quoted(d))),
    kind("stamp", "stamp", &["infinity", "2026-03-01 09:30:00+00"], |d| stamp(d) + "+00"),
    kind("pair", "\"Odd Pair\"", &["(,,)", r#"(1,"a ""b"" (c),",infinity)"#, "(1,\"\",)"], |d| {
        format!("({},x,)", d.between(-9, 9))
    }),
    kind("pairs", "\"Odd Pair\"[]", &[r#"{"(1,\"a b\",)",NULL}"#], |d| format!("{{\"({},x,)\"}}", d.between(-9, 9))),
    kind("hstore", "hstore", &["", r#""a b"=>"c\"d", "n"=>NULL"#], |d| format!("\"k\"=>\"{}\"", d.below(99))),
    kind("ltree", "ltree", &["", "Top.Science.Astronomy"], |d| format!("a.b{}", d.below(99))),
    kind("citext", "citext", &["MiXed"], |d| text(d, 9)),
    kind("inet", "inet", &["10.0.0.1", "10.0.0.0/8", "::1", "::ffff:1.2.3.4/128"], |d| {
        format!("10.{}.{}.1", d.below(256), d.below(256))
    }),
    kind("cidr", "cidr", &["10.0.0.0/8", "2001:db8::/32"], |d| format!("10.{}.0.0/16", d.below(256))),
    kind("macaddr", "macaddr", &["08:00:2b:01:02:03"], |d| format!("08:00:2b:01:02:{:02x}", d.below(256))),
    kind("macaddr8", "macaddr8", &["08:00:2b:01:02:03:04:05"], |d| {
        format!("08:00:2b:01:02:03:04:{:02x}", d.below(256))
    }),
    kind("tsvector", "tsvector", &["", "'a b':1A 'it''s':2,3B"], |d| format!("'w{}':1", d.below(99))),
    kind("tsquery", "tsquery", &["'a' & !( 'b' | 'c':*A )"], |d| format!("'w{}'", d.below(99))),
    kind("pg_lsn", "pg_lsn", &["0/0", "FFFFFFFF/FFFFFFFF"], |d| {
        format!("{:X}/{:X}", d.below(1 << 32), d.below(1 << 32))
    }),
    kind("oid", "oid", &["0", "4294967295"], |d| d.below(1 << 32).to_string()),
    kind("point", "point", &["(NaN,Infinity)", "(0.1,-0)"], |d| format!("({},{})", d.between(-9, 9), d.between(-9, 9))),
    kind("line", "line", &["{1,2,3}"], |d| format!("{{{},2,3}}", d.between(1, 9))),
    kind("lseg", "lseg", &["[(0,0),(1,1)]"], |d| format!("[({},0),(1,1)]", d.between(2, 9))),
    kind("box", "box", &["(1,1),(0,0)"], |d| format!("({0},{0}),(0,0)", d.between(2, 9))),
    kind("boxes", "box[]", &["{(1,1),(0,0);(2,2),(0,0)}"], |d| format!("{{({0},{0}),(0,0)}}", d.between(2, 9))),
    kind("path", "path", &["((0,0),(1,1))", "[(0,0),(1,1)]"], |d| format!("[(0,0),({},1)]", d.between(2, 9))),
    kind("polygon", "polygon", &["((0,0),(1,1),(1,0))"], |d| format!("((0,0),({},1))", d.between(2, 9))),
    kind("circle", "circle", &["<(0,0),1.5>"], |d| format!("<(0,0),{}>", d.between(2, 9))),
    kind("jsonpath", "jsonpath", &[r#"$."a b"[*] ? (@ > 1)"#], |d| format!("$[{}]", d.below(9))),
    kind("snapshot", "pg_snapshot", &["10:20:10,14,15"], |d| format!("10:{}:", d.between(20, 99))),
    kind("int2vector", "int2vector", &["", "1 2 3"], |d| d.below(99).to_string()),
];

/// The type `xml`, if the server has it.
pub const XML: Type = kind("xml", "xml", &["", "<a b=\"c\">&amp; it's</a>", "<?xml version=\"1.0\"?><a/>"], |d| {
    format!("<n>{}</n>", d.below(99))
});

/// Types since PostgreSQL 15: scales that are negative or larger than the precision.
pub const SINCE_15: &[Type] = &[
    kind("numeric_5_m2", "numeric(5,-2)", &["-1234500", "0"], |d| (d.between(-9999, 9999) * 100).to_string()),
    kind("numeric_3_6", "numeric(3,6)", &["0.000999", "-0.000001"], |d| format!("0.000{:03}", d.below(1000))),
];

const HUNDRED_DIGITS: &str =
    "-1234567890123456789012345678901234567890123456789012345678901234567890.123456789012345678901234567890123456789";

impl Type {
    /// Writes a value as an SQL expression, sometimes NULL.
    pub fn value(&self, dice: &mut Dice) -> String {
        match dice.below(10) {
            0 => "NULL".to_owned(),
            1..=4 => self.literal(dice.pick::<&str>(self.texts)),
            _ => self.literal(&(self.random)(dice)),
        }
    }

    pub fn literal(&self, text: &str) -> String {
        format!("{}::{}", quote(text), self.sql)
    }
}

/// Writes a text as an SQL literal.
pub fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Writes a name as an SQL identifier.
pub fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn text(dice: &mut Dice, longest: u64) -> String {
    const CHARS: [char; 16] =
        ['a', 'B', '7', ' ', '\'', '"', '\\', ',', '{', '}', '\n', 'ä', '漢', '😀', '\u{2028}', ':'];
    let length = dice.below(longest + 1);
    (0..length).map(|_| *dice.pick(&CHARS)).collect()
}

/// Writes an array's item in quotes.
fn quoted(dice: &mut Dice) -> String {
    format!("\"{}\"", text(dice, 8).replace('\\', "\\\\").replace('"', "\\\""))
}

fn bytea(dice: &mut Dice) -> String {
    let length = dice.below(20);
    let bytes: String = (0..length).map(|_| format!("{:02x}", dice.below(256))).collect();
    format!("\\x{bytes}")
}

fn date(dice: &mut Dice) -> String {
    format!("{:04}-{:02}-{:02}", dice.between(1, 9999), dice.between(1, 12), dice.between(1, 28))
}

fn clock(dice: &mut Dice) -> String {
    format!("{:02}:{:02}:{:02}.{:06}", dice.below(24), dice.below(60), dice.below(60), dice.below(1_000_000))
}

fn stamp(dice: &mut Dice) -> String {
    format!("{} {}", date(dice), clock(dice))
}

fn json(dice: &mut Dice) -> String {
    match dice.below(4) {
        0 => format!("{{\"n\": {}, \"f\": {}.{}}}", dice.next() as i64, dice.between(-9, 9), dice.below(1000)),
        1 => format!("[{}, null, true]", dice.below(1000)),
        2 => serde_json::to_string(&text(dice, 20)).expect("a string"),
        _ => format!("{{\"k{}\": {{\"deep\": [[[{}]]]}}}}", dice.below(5), dice.below(1000)),
    }
}
