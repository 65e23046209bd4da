use proptest::prelude::*;
use serde_json::Value;

use super::{super::json::StrictValue, *};

/// What the reader makes of `text`.
fn read(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut members = Vec::new();
    let put = |member: Member<'_>| {
        members.push((member.name.into_owned(), member.value.text.to_owned()));
        Ok(())
    };
    read_object(text, put).map(|()| members).map_err(|problem| problem.to_string())
}

/// Fails where the reader and the builder of values disagree about `text`.
fn compare(text: &str) {
    let built = serde_json::from_str::<StrictValue>(text).ok().map(|value| value.0);
    let Ok(members) = read(text) else {
        assert!(!built.as_ref().is_some_and(Value::is_object), "only the reader refuses {text:?}");
        return;
    };
    let Some(Value::Object(built)) = built else { panic!("only the reader accepts {text:?}") };
    assert_eq!(members.len(), built.len(), "{text:?}");
    for (name, value) in members {
        assert_eq!(serde_json::from_str::<Value>(&value).ok().as_ref(), built.get(&name), "{text:?}");
    }
}

#[test]
fn what_is_not_one_strict_object_is_refused_with_place_and_cause() {
    for (text, cause) in [
        ("", "ends too early at byte 0"),
        ("[]", "not a JSON object at byte 0"),
        ("{}x", "more than one JSON text at byte 2"),
        ("\u{feff}{}", "not a JSON object at byte 0"),
        (r#"{"a":1,"a":2}"#, "a name appears twice at byte 7"),
        (r#"{"a":1,"\u0061":2}"#, "a name appears twice at byte 7"),
        (r#"{"a":{"b":[{"c":1,"c":2}]}}"#, "a name appears twice at byte 18"),
        (r#"{"a":"\ud800"}"#, "not JSON at byte 6"),
        (r#"{"a":"b"#, "ends too early at byte 7"),
        ("{\"a\":\"\u{1}\"}", "not JSON at byte 6"),
        (r#"{"a":01}"#, "not JSON at byte 6"),
        (r#"{"a":1e400}"#, "a number out of range at byte 5"),
        (r#"{"a":NaN}"#, "not JSON at byte 5"),
        (r#"{"a":1,}"#, "not JSON at byte 7"),
    ] {
        assert_eq!(read(text), Err(cause.to_owned()), "{text:?}");
    }
}

#[test]
fn one_name_twice_among_thousands_is_found_wherever_it_stands() {
    let names: Vec<String> = (0..2000).map(|number| format!("\"n{number}\":0")).collect();
    assert_eq!(read(&format!("{{{}}}", names.join(","))).map(|members| members.len()), Ok(2000));
    for at in [0, 31, 32, 33, 1999] {
        let text = format!("{{{},\"\\u006e{at}\":1}}", names.join(","));
        assert!(read(&text).is_err_and(|problem| problem.starts_with("a name appears twice")), "{at}");
    }
}

#[test]
fn reader_and_builder_agree_on_depth_escapes_and_numbers() {
    for depth in 28..36 {
        compare(&format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth)));
        compare(&format!("{}0{}", "{\"a\":".repeat(depth), "}".repeat(depth)));
    }
    for value in [
        "-0",
        "-",
        "1.",
        ".5",
        "0.5e",
        "0e1",
        "1E+5",
        "1e-400",
        "18446744073709551616",
        "+1",
        "\"\\ud83d\\ude00\"",
        "\"\\ude00\"",
        "\"\\ud83dx\"",
        "\"\\ud83d\\u0061\"",
        "\"\\x\"",
        "\"\\u00e\"",
        "\"\\/\\b\\f\\n\\r\\t\\\\\"",
        r#"["a","b","c"]"#,
        r#"["a","","c",1]"#,
        r#"["a","b","#,
        r#"["a","b""#,
        r#"["a","b",]"#,
        r#"["a","b" ]"#,
        r#"["a","b"x]"#,
        r#"[["a","b"],["c","d"],{"e":["f","g"]}]"#,
        "\"\u{7f}é\"",
        "tru",
        "nullx",
        " true ",
        "\t[ ]\n",
        "[1 2]",
        "{\"\":{}}",
        "\"12345678\\\"1234567\"",
    ] {
        compare(&format!("{{\"a\":{value}}}"));
    }
    compare(&format!("{{\"a\":{}}}", "9".repeat(400)));
}

fn json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<bool>().prop_map(|value| value.to_string()),
        any::<i64>().prop_map(|value| value.to_string()),
        (-1e9..1e9).prop_map(|value: f64| format!("{value:e}")),
        "[a-c\"\\\\u0-9é\u{1}]{0,12}".prop_map(|text: String| format!("\"{text}\"")),
        ".{0,20}".prop_map(|text| Value::String(text).to_string()),
    ];
    leaf.prop_recursive(4, 40, 5, |value| {
        prop_oneof![
            prop::collection::vec(value.clone(), 0..5).prop_map(|items| format!("[{}]", items.join(","))),
            prop::collection::vec(("[ab]{1,2}", value), 0..5).prop_map(|members| {
                let members: Vec<_> =
                    members.into_iter().map(|(name, value)| format!("\"{name}\" : {value}")).collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn reader_and_builder_of_values_agree(text in json()) {
        compare(&text);
    }

    #[test]
    fn reader_and_builder_agree_on_long_lists(
        items in prop::collection::vec("[a,\\]]{0,4}|[a-z]{0,150}", 20..80),
        at in any::<prop::sample::Index>(),
        put in "[\",a\\] ]{0,3}",
    ) {
        let list = format!("{{\"a\":[\"{}\"]}}", items.join("\",\""));
        compare(&list);
        let at = at.index(list.len());
        compare(&format!("{}{put}{}", &list[..at], &list[at..]));
        compare(&format!("{}{put}{}", &list[..at], &list[at + 1..]));
    }

    #[test]
    fn reader_and_builder_agree_on_broken_texts(text in json(), at in any::<prop::sample::Index>(), byte in "[\\[\\]{},:\"\\\\ 0e.-]") {
        if !text.is_empty() {
            let mut at = at.index(text.len());
            while !text.is_char_boundary(at) {
                at -= 1;
            }
            compare(&format!("{}{byte}{}", &text[..at], &text[at..]));
        }
    }
}
