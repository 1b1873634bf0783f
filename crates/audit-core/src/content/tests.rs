use proptest::prelude::*;

use super::*;

/// The text with everything that is found in brackets.
fn marked(content: Content, text: &str) -> String {
    let (mut out, mut at) = (String::new(), 0);
    while let Some(found) = content.find(text, at) {
        out.push_str(&format!("{}[{}]", &text[at..found.start], &text[found.clone()]));
        at = found.end;
    }
    out + &text[at..]
}

#[test]
fn cards_are_found_in_text_and_other_numbers_are_not() {
    for text in [
        "[4532015112830366]",
        "card 4532 0151 1283 0366".replace("4532 0151 1283 0366", "[4532 0151 1283 0366]").as_str(),
        "paid with [4532-0151-1283-0366], thanks",
        "amex [3782 822463 10005] and diners [3056 930902 5904]",
        "two: [4532015112830366] [5555555555554444]",
        "order 12345678 [4532015112830366]",
        "ref 2026 [4532 0151 1283 0366] 77",
        "[6011000990139424]!",
        "[2223003122003222]",
        "日本[4222222222222]円",
        "x[4532015112830366] [4532015112830366]y",
        "PAN[4532015112830366], pan_[4532015112830366], card no.[4532015112830366]",
        "[4532  0151  1283  0366] [4532 - 0151 - 1283 - 0366]",
        "[4532\u{a0}0151\u{a0}1283\u{a0}0366] [4532.0151.1283.0366] [4532/0151/1283/0366]",
        "[4532 0151\r\n1283 0366] [4532\u{2011}0151\u{2011}1283\u{2011}0366] [4532\u{200f}0151 1283 0366]",
        "[４５３２０１５１１２８３０３６６] and [４５３２　０１５１　１２８３　０３６６]",
        "MRN 4711 [4532 0151 1283 0366] 2026-11-21 [4532 0151 1283 0366] 123",
        "[4532015112830366]^ swiped [%B4532015112830366^DOE/ANN^2512101000000000000?] [;4532015112830366=25121010000000000?]",
        "[4532015112830366=2512101] 4532015112830366=1 is no stripe"
            .replace(" 4532015112830366=1", " [4532015112830366]=1")
            .as_str(),
        // These are no cards.
        "4532015112830367",
        "1732226789123 1732226789123456",
        "2026-11-21 2026-11-22",
        "550e8400-e29b-41d4-a716-446655440000",
        "x14532015112830366 x1y4532015112830366",
        "4532015112830366y2",
        "0.4532015112830366",
        "4532015112830366.25",
        "45320151128303660000000",
        "4 5 3 2 0 1 5 1 1 2 8 3 0 3 6 6",
        "4532    0151    1283    0366",
        "4,532,015,112,830,366",
        "4532015112831",
        "",
    ] {
        let plain = text.replace(['[', ']'], "");
        assert_eq!(marked(Content::Card, &plain), text);
    }
}

#[test]
fn other_content_is_found() {
    for (content, text) in [
        (Content::Email, "write to [ann.b+c@mail.example.com]."),
        (Content::Email, "<[ann@example.com]>, '[bea@example.org]' and \"[ü@münchen.example]\""),
        (Content::Email, "mailto:[ann@example.com]?subject=x"),
        (Content::Email, "@ann @ bea@ x@y x@y.1 a@b..c"),
        (Content::Email, "x@[y@example.com]"),
        (Content::Ssn, "ssn [123-45-6789], [123 45 6789]; not 123-456-789, 123456789, 1123-45-6789, a1_123-45-6789"),
        (Content::Ssn, "MRN 4711 [123-45-6789] DOB"),
        (Content::Ssn, "SSN [123-45-6789] 2024-01-01 SSN[987-65-4321]x"),
        (Content::Ssn, "[123-45-6789] [987-65-4321] 7 [123–45–6789]\n[123.45.6789]/[123\u{a0}45\u{a0}6789]"),
        (Content::Ssn, "room 12 bed 3 2024-01-01 08:00 120/80 36.6"),
        (Content::Phone, "call [555-123-4567] or [+49 151 23456789] or [+1-555-123-4567]; not 5551234567, +12, 1+2"),
        (Content::Phone, "room 12 [555-123-4567] [555.123.4567] or [(555) 123-4567], 1 [(555)123-4567]"),
        (Content::Phone, "[+4915112345678] 2024-01-01 [+1 (555) 123-4567] 2024"),
        (Content::Phone, "+491511234567890123 [555-123-4567] +"),
        (
            Content::Iban,
            "to [DE89370400440532013000] or [GB82 WEST 1234 5698 7654 32], not DE88370400440532013000 or XDE89370400440532013000",
        ),
    ] {
        let plain = text.replace(['[', ']'], "");
        assert_eq!(marked(content, &plain), text);
    }
}

proptest! {
    /// Ranges begin and end between characters, go forward, and cover what was put in.
    #[test]
    fn a_card_is_found_wherever_it_stands(before in "[^0-9A-Za-z_.-]{0,40}", after in "[^0-9A-Za-z_.-]{0,40}", far in "\\PC{0,60}") {
        let text = format!("{before}4532015112830366{after}");
        let found = Content::Card.find(&text, 0).expect("the card");
        prop_assert_eq!(&text[found], "4532015112830366");
        for content in [Content::Card, Content::Email, Content::Ssn, Content::Phone, Content::Iban] {
            let shown = marked(content, &far);
            prop_assert_eq!(shown.len() >= far.len(), true);
        }
    }
}
