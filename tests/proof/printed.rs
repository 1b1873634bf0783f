use audit_core::jsonb;
use audit_testkit::{connect, install, shared};
use cdc_audit_tests::dice::Dice;
use cdc_audit_tests::seed;

/// Random documents, made fit, are printed as every installed release of PostgreSQL prints them as `jsonb`.
#[tokio::test(flavor = "multi_thread")]
async fn documents_are_printed_as_each_release_prints_them() {
    let mut dice = Dice::new(seed());
    let mut documents: Vec<String> = (0..3_000).map(|_| document(&mut dice, 0)).collect();
    documents.extend(ODD.iter().map(|odd| (*odd).to_owned()));
    documents.push(format!("{}1e2{}", "[".repeat(200), "]".repeat(200)));
    documents.push(format!("{{\"a\" : {}\"\\u00e9\"{}}}", "[".repeat(200), "]".repeat(200)));
    let fit: Vec<String> = documents.iter().map(|document| jsonb::fit(document).into_owned()).collect();
    for major in install::MAJORS {
        let (_, url) = shared(major).await.new_database();
        let client = connect(&url).await;
        let statement =
            "SELECT document::jsonb::text FROM unnest($1::text[]) WITH ORDINALITY AS d (document, at) ORDER BY at";
        let rows = client.query(statement, &[&fit]).await.expect("what is fit is taken");
        assert_eq!(rows.len(), fit.len());
        for ((row, fit), document) in rows.iter().zip(&fit).zip(&documents) {
            let theirs: String = row.get(0);
            assert_eq!(jsonb::print(fit), theirs, "PostgreSQL {major}: {document}");
            assert_eq!(jsonb::print(&jsonb::fit(&theirs)), theirs, "again, PostgreSQL {major}: {document}");
        }
    }
}

const ODD: &[&str] = &[
    "0",
    "-0",
    "-0.0",
    "-0e5",
    "0e-5",
    "0.00e1",
    "1e999",
    "12e999",
    "1e-998",
    "1e-999",
    "9e99999999999999999999",
    "1E+2",
    "1.50e1",
    "12345e-2",
    "0.0012e2",
    "100e-2",
    "1.0e-0",
    "-1.5e-000003",
    "123456789012345678901234567890.1234567890",
    r#"{"b": 1, "aa": 2, "a": 3, "": 4, "é": 5, "zz": 6, "z": 7, "a": 8, "\u0061": 9}"#,
    r#"{"a\u0000": 1, "a\ufffd": 2, "\ud800": 3, "\ud800\udc00": 4, "\udc00\ud800": 5}"#,
    r#"["\u0000", "\u001f", "\u007f", "\u0080", "\/", "\\u0000", "\\\u0000", "\"", "\b\f\n\r\t", "\u2028", "😀", "\ud83d\ude00"]"#,
    " [ ] ",
    "{ }",
    "\t\n\r [\n{\r}\t]",
    "true",
    "null",
    "\"\"",
];

fn document(dice: &mut Dice, depth: u64) -> String {
    match dice.below(if depth < 4 { 8 } else { 5 }) {
        0 => dice.pick(&["true", "false", "null"]).to_string(),
        1 | 2 => number(dice),
        3 | 4 => string(dice),
        5 | 6 => {
            let members: Vec<String> = (0..dice.below(6))
                .map(|_| format!("{}{}:{}{}", string(dice), space(dice), space(dice), document(dice, depth + 1)))
                .collect();
            format!("{{{}}}", members.join(&format!("{},{}", space(dice), space(dice))))
        }
        _ => {
            let items: Vec<String> = (0..dice.below(5)).map(|_| document(dice, depth + 1)).collect();
            format!("[{}{}]", space(dice), items.join(","))
        }
    }
}

fn space(dice: &mut Dice) -> &'static str {
    ["", "", " ", "\n\t"][dice.below(4) as usize]
}

fn number(dice: &mut Dice) -> String {
    let sign = *dice.pick(&["", "-"]);
    let whole = *dice.pick(&["0", "1", "10", "9007199254740993", "123456789012345678901234567890"]);
    let fraction = *dice.pick(&["", "", ".0", ".50", ".000", ".123456789012345678901234567890"]);
    let exponent = match dice.below(3) {
        0 => format!("{}{}{}", dice.pick(&["e", "E"]), dice.pick(&["", "+", "-"]), dice.below(40)),
        1 if dice.below(20) == 0 => format!("e{}{}", dice.pick(&["", "-"]), dice.below(1_200)),
        _ => String::new(),
    };
    format!("{sign}{whole}{fraction}{exponent}")
}

fn string(dice: &mut Dice) -> String {
    const PIECES: &[&str] = &[
        "a",
        "b",
        "aa",
        "é",
        "😀",
        "\\u0041",
        "\\u00e9",
        "\\ud83d\\ude00",
        "\\ud83d",
        "\\ude00",
        "\\u0000",
        "\\u001F",
        "\\n",
        "\\/",
        "\\\\",
        "\\\"",
        "\u{7f}",
        "\u{2028}",
        " ",
    ];
    let pieces: String = (0..dice.below(4)).map(|_| *dice.pick(PIECES)).collect();
    format!("\"{pieces}\"")
}
