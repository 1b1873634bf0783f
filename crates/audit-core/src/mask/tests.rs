use proptest::prelude::*;

use super::*;

fn shown(text: &str) -> String {
    let mut out = String::new();
    partial(text, &mut out);
    out
}

/// Each example of the contract, and texts that are close to it.
#[test]
fn partial_goes_by_shape() {
    for (text, expected) in [
        // Payment cards.
        ("4532123456789012", "****9012"),
        ("4532 1234 5678 9012", "****9012"),
        ("4532-1234-5678-9012", "****9012"),
        ("3714 496353 98431", "****8431"),
        ("4222222222222", "****2222"),
        ("6304000000000000000", "****0000"),
        ("4532123456789012    ", "****9012"),
        ("45321234567890123456", "[REDACTED:20chars]"),
        ("4532--1234-5678-9012", "[REDACTED:20chars]"),
        ("4532.1234.5678.9012", "[REDACTED:19chars]"),
        // E-mail addresses.
        ("user@example.com", "u***@example.com"),
        ("u@example.com", "***@example.com"),
        ("first.last+tag@mail.example.co.uk", "f***@mail.example.co.uk"),
        ("ümit@münchen.example", "ü***@münchen.example"),
        ("日本@例え.テスト", "日***@例え.テスト"),
        ("user@localhost", "[REDACTED:14chars]"),
        ("user@10.0.0.1", "[REDACTED:13chars]"),
        ("a@b@example.com", "[REDACTED:15chars]"),
        ("a b@example.com", "[REDACTED:15chars]"),
        ("https://u:p@example.com", "[REDACTED:23chars]"),
        ("@example.com", "[REDACTED:12chars]"),
        // Social security numbers.
        ("123-45-6789", "***-**-6789"),
        ("123456789", "***-**-6789"),
        ("123 45 6789", "***-**-6789"),
        ("12-3456789", "[REDACTED:10chars]"),
        // Phones.
        ("5551234567", "***-***-4567"),
        ("(555) 123-4567", "***-***-4567"),
        ("555.123.4567", "***-***-4567"),
        (")555( 123-4567", "[REDACTED:14chars]"),
        ("+1 (555) 123-4567", "+1-***-***-4567"),
        ("+44 20 7946 0958", "+44-***-***-0958"),
        ("+49 151 23456789", "+49-***-***-6789"),
        ("+358401234567", "+358-***-***-4567"),
        ("+7 495 123-45-67", "+7-***-***-4567"),
        ("+4420", "[REDACTED:5chars]"),
        ("+1234567890123456", "[REDACTED:17chars]"),
        ("+", "[REDACTED:1chars]"),
        // IBANs.
        ("DE89370400440532013000", "****3000"),
        ("GB82 WEST 1234 5698 7654 32", "****5432"),
        ("NO9386011117947", "****7947"),
        ("DE8937040044", "[REDACTED:12chars]"),
        ("de89370400440532013000", "[REDACTED:22chars]"),
        // Anything else.
        ("correct horse b", "[REDACTED:15chars]"),
        ("äöü", "[REDACTED:3chars]"),
        ("👍🏽", "[REDACTED:2chars]"),
        ("", "[REDACTED:0chars]"),
        ("-4532123456789012", "[REDACTED:17chars]"),
        ("１２３４５６７８９", "[REDACTED:9chars]"),
        (r"\x00ff", "[REDACTED:6chars]"),
        ("{4532123456789012}", "[REDACTED:18chars]"),
    ] {
        assert_eq!(shown(text), expected, "{text}");
    }
}

#[test]
fn a_pattern_shows_what_it_says() {
    for (pattern, text, expected) in [
        ("{2}***{-4}", "abcdefghijkl", "ab***ijkl"),
        ("{2}***{-4}", "äöüßéèêëñçåø", "äö***ñçåø"),
        ("{6}******{-4}", "4532123456789012", "453212******9012"),
        ("{-2}", "abcdef", "ef"),
        ("{3}…", "abcdefgh", "abc…"),
        ("***", "abc", "***"),
        ("{{{1}}}", "abc", "{a}"),
        // The pattern would show more than two thirds.
        ("{2}***{-4}", "abcdefgh", "[REDACTED:8chars]"),
        ("{2}***{-4}", "abc", "[REDACTED:3chars]"),
        ("{-2}", "", "[REDACTED:0chars]"),
    ] {
        let mut out = String::new();
        pattern.parse::<Mask>().unwrap().apply(text, &mut out);
        assert_eq!(out, expected, "{pattern} {text}");
    }
}

#[test]
fn a_bad_pattern_is_refused_at_its_place() {
    for (pattern, error) in [
        ("", MaskError::Empty),
        ("ab{2", MaskError::Bracket(3)),
        ("ab}", MaskError::Bracket(3)),
        ("ä{}", MaskError::Number(2)),
        ("{x}", MaskError::Number(1)),
        ("{+2}", MaskError::Number(1)),
        ("{0}", MaskError::Range(1)),
        ("**{99999999999999999999999}", MaskError::Range(3)),
        ("{2}{3}", MaskError::Order(4)),
        ("{-2}{3}", MaskError::Order(5)),
        ("{-2}{-3}", MaskError::Order(5)),
    ] {
        assert_eq!(pattern.parse::<Mask>(), Err(error), "{pattern}");
    }
}

proptest! {
    /// No text causes a panic, and never is more than a part of it shown.
    #[test]
    fn no_text_is_shown_whole(text in "\\PC{0,40}|[0-9A-Z+@. ()-]{0,24}", pattern in "[a{}0-9-]{0,10}") {
        let out = shown(&text);
        if text.chars().count() > 4 {
            prop_assert!(!out.contains(&text), "{out}");
        }
        if let Ok(mask) = pattern.parse::<Mask>() {
            let mut out = String::new();
            mask.apply(&text, &mut out);
            prop_assert_eq!(mask.to_string(), pattern);
        }
    }
}
