//! The reader by table, and that it agrees with a strict one wherever that one reads.

use proptest::prelude::*;

use super::{DEPTH_MAX, Fault, Value, parse};

/// What `text` is written as again.
fn again(text: impl AsRef<[u8]>) -> String {
    parse(text.as_ref()).unwrap().to_string()
}

fn fault(text: impl AsRef<[u8]>) -> String {
    parse(text.as_ref()).unwrap_err().to_string()
}

#[test]
fn numbers_stay_as_they_were_written() {
    for number in [
        "0",
        "-0",
        "0.0",
        "-0.0",
        "1.0",
        "12.50",
        "1E5",
        "1e+5",
        "1e-5",
        "0e0",
        "0E-00",
        "1e400",
        "-1e400",
        "1e-400",
        "18446744073709551616",
        "1234567890123456789012345678901234567890",
        "0.1000000000000000055511151231257827021181583404541015625",
        "2.2250738585072011e-308",
    ] {
        assert_eq!(again(number), number);
        let around = format!("{{\"a\":[{number},{number}]}}");
        assert_eq!(again(&around), around);
    }
    assert_eq!(parse(b"1e400").unwrap().as_f64(), None);
    assert_eq!(parse(b"-12.5e1").unwrap().as_f64(), Some(-125.0));
}

#[test]
fn half_a_pair_becomes_the_replacement_character() {
    for (escaped, want) in [
        (r"cut \ud83d", "cut \u{fffd}"),
        (r"\uD83D\uDE00", "😀"),
        (r"\uDE00", "\u{fffd}"),
        (r"\ude00\ud83d", "\u{fffd}\u{fffd}"),
        (r"\ud83d\ud83d\ude00", "\u{fffd}😀"),
        (r"\uD83dx", "\u{fffd}x"),
        (r"\ud83d\n", "\u{fffd}\n"),
        (r"\ud83d\u0041", "\u{fffd}A"),
        (r"\\ud83d", r"\ud83d"),
        (r"\\\ud83d", "\\\u{fffd}"),
        (r"\udbff\udfff\uD800\uDC00", "\u{10ffff}\u{10000}"),
        (r"\ud7ff\ue000\uffff\u0000", "\u{d7ff}\u{e000}\u{ffff}\0"),
    ] {
        let list = parse(format!("[\"{escaped}\",{{\"{escaped}\":1}}]").as_bytes()).unwrap();
        let object = Value::Object([(want.to_owned(), parse(b"1").unwrap())].into());
        let text = Value::String(want.to_owned());
        assert_eq!(list, Value::Array(vec![text, object]), "{escaped}");
    }
}

#[test]
fn all_that_json_allows_is_read() {
    for (text, want) in [
        ("\u{feff}{}", "{}"),
        ("\u{feff} \r\n\t[ ] ", "[]"),
        (
            " { \"a\" : 1 , \"b\" : [ true , false , null ] } ",
            r#"{"a":1,"b":[true,false,null]}"#,
        ),
        (r#"{"":0,"\u0061":1,"a":2}"#, r#"{"":0,"a":2}"#),
        (r#""\"\\\/\b\f\n\r\t""#, r#""\"\\/\b\f\n\r\t""#),
        (
            "\"\u{7f}\u{2028}\u{2029}\u{ffff}é😀\u{feff}\"",
            "\"\u{7f}\u{2028}\u{2029}\u{ffff}é😀\u{feff}\"",
        ),
        (r#""\u001F\u0000\u20AC\u20ac""#, "\"\\u001f\\u0000€€\""),
        // The mark by which serde_json would know a number of its own.
        (
            r#"{"$serde_json::private::Number":"1"}"#,
            r#"{"$serde_json::private::Number":"1"}"#,
        ),
        ("\"x\"", "\"x\""),
        ("null", "null"),
    ] {
        assert_eq!(again(text), want, "{text:?}");
    }
}

/// What is no JSON, and what is said of it.
const FAULTS: &[(&str, &str)] = &[
    ("", "not JSON: it is empty at line 1 column 1"),
    ("\u{feff} \n", "not JSON: it is empty at line 2 column 1"),
    (
        "{\"a\":\n  é",
        "not JSON: a value is expected at line 2 column 3",
    ),
    (
        "{\"é\":x",
        "not JSON: a value is expected at line 1 column 6",
    ),
    ("{\"a\":1", "not JSON: it ends too early at line 1 column 7"),
    ("{\"a", "not JSON: it ends too early at line 1 column 4"),
    ("\"\\", "not JSON: it ends too early at line 1 column 2"),
    (
        "{'a':1}",
        "not JSON: a name in double quotes is expected at line 1 column 2",
    ),
    (
        "{\"a\":1,}",
        "not JSON: a name in double quotes is expected at line 1 column 8",
    ),
    (
        "{\"a\" 1}",
        "not JSON: a colon is expected after a name at line 1 column 6",
    ),
    (
        "{\"a\":1 \"b\":2}",
        "not JSON: a comma or a closing brace is expected at line 1 column 8",
    ),
    (
        "[1 2]",
        "not JSON: a comma or a closing bracket is expected at line 1 column 4",
    ),
    ("[1,]", "not JSON: a value is expected at line 1 column 4"),
    ("[NaN]", "not JSON: a value is expected at line 1 column 2"),
    (
        "-Infinity",
        "not JSON: a digit is expected at line 1 column 2",
    ),
    ("nul", "not JSON: a value is expected at line 1 column 1"),
    (
        "truex",
        "not JSON: something follows after its end at line 1 column 5",
    ),
    (
        "01",
        "not JSON: something follows after its end at line 1 column 2",
    ),
    ("1.", "not JSON: it ends too early at line 1 column 3"),
    ("[1.e5]", "not JSON: a digit is expected at line 1 column 4"),
    ("[.5]", "not JSON: a value is expected at line 1 column 2"),
    ("[+1]", "not JSON: a value is expected at line 1 column 2"),
    ("[1e]", "not JSON: a digit is expected at line 1 column 4"),
    (
        "{}{}",
        "not JSON: something follows after its end at line 1 column 3",
    ),
    (
        "{}\u{feff}",
        "not JSON: something follows after its end at line 1 column 3",
    ),
    (
        "\"a\nb\"",
        "not JSON: a control character in a string is not escaped at line 1 column 3",
    ),
    (
        "\"\\x\"",
        "not JSON: an escape in a string is none of JSON's at line 1 column 2",
    ),
    (
        "\"\\u12G4\"",
        "not JSON: an escape in a string is none of JSON's at line 1 column 2",
    ),
    (
        "\"\\u+123\"",
        "not JSON: an escape in a string is none of JSON's at line 1 column 2",
    ),
    (
        "\"\\ud83d\\u\"",
        "not JSON: an escape in a string is none of JSON's at line 1 column 8",
    ),
    (
        "// x\n{}",
        "not JSON: a value is expected at line 1 column 1",
    ),
];

#[test]
fn each_fault_has_its_place() {
    for (text, want) in FAULTS {
        assert_eq!(fault(text), *want, "{text:?}");
    }
    assert_eq!(
        fault(b"{\n\"\xc3\xa9\":\"\xed\xa0\x80\"}"),
        "not UTF-8 at line 2 column 6"
    );
    assert_eq!(fault(b"\xff\xfe{\0}\0"), "not UTF-8 at line 1 column 1");
}

#[test]
fn depth_is_told_from_what_is_no_json() {
    let lists = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert_eq!(again(lists(DEPTH_MAX)), lists(DEPTH_MAX));
    let objects = "{\"a\":".repeat(DEPTH_MAX) + "1" + &"}".repeat(DEPTH_MAX);
    assert_eq!(again(&objects), objects);
    for text in [lists(DEPTH_MAX + 1), lists(30_000), "[".repeat(65_536)] {
        let error = parse(text.as_bytes()).unwrap_err();
        assert_eq!(
            (error.fault, error.line, error.column),
            (Fault::Depth, 1, 128)
        );
    }
    // One beside the other is not one in the other.
    let wide = format!("[{}[]]", "[[]],".repeat(5_000));
    assert_eq!(again(&wide), wide);
}

/// A JSON value as another library has it; its floats are not of many digits, which it would round.
fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        any::<String>().prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            prop::collection::btree_map(any::<String>(), inner, 0..4)
                .prop_map(|map| map.into_iter().collect()),
        ]
    })
}

proptest! {
    #[test]
    fn what_a_strict_reader_takes_is_taken_and_means_the_same(
        value in any_json(),
        pretty in any::<bool>(),
        at in any::<prop::sample::Index>(),
        byte in prop::option::of(any::<u8>()),
    ) {
        let text = if pretty { serde_json::to_vec_pretty(&value) } else { serde_json::to_vec(&value) };
        let mut text = text.unwrap();
        if let Some(byte) = byte {
            let at = at.index(text.len());
            text[at] = byte;
        }
        let ours = parse(&text);
        if let Ok(strict) = serde_json::from_slice::<serde_json::Value>(&text) {
            let ours = ours.unwrap();
            let written = ours.to_string();
            prop_assert_eq!(&serde_json::from_str::<serde_json::Value>(&written).unwrap(), &strict);
            prop_assert_eq!(serde_json::Value::from(ours.clone()), strict);
            prop_assert!(!written.contains(['\n', '\r']));
            prop_assert_eq!(parse(written.as_bytes()).unwrap(), ours);
        }
    }

    #[test]
    fn a_text_is_quoted_in_the_bytes_that_others_quote_it_in(text in "[\\x00-\\x7f\u{20ac}\u{1f600}]{0,9}[ -~\u{20ac}]{0,90}") {
        prop_assert_eq!(Value::String(text.clone()).to_string(), serde_json::to_string(&text).unwrap());
    }

    #[test]
    fn any_bytes_are_read_or_have_a_fault(bytes in prop::collection::vec(any::<u8>(), 0..100), mark in any::<bool>()) {
        let marked = if mark { [b"\xef\xbb\xbf".as_slice(), &bytes].concat() } else { bytes.clone() };
        prop_assert!(parse(&marked) == parse(&bytes) || bytes.starts_with(b"\xef\xbb\xbf"));
    }
}
