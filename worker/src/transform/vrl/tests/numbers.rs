//! Which values stay as they are byte for byte, and what happens to numbers that 64 bits cannot hold.

use super::*;

/// Neither 64-bit integers nor 64-bit floats can hold these.
const LONG: [&str; 11] = [
    "12345678901234567890",
    "18446744073709551615",
    "9223372036854775809",
    "-9223372036854775809",
    "123456789012345678901234567890",
    "0.1234567890123456789",
    "-1.00000000000000000001",
    "9007199254740993.0",
    "1e-400",
    "0.30000000000000001",
    "1.2345678901234569e-400",
];

/// Floats and integers that are not written as serde_json would write them.
const UNUSUAL: [&str; 12] = [
    "1.50",
    "1e3",
    "1E+3",
    "-0",
    "-0.0",
    "0.00",
    "100000000000000000000",
    "1.10e-7",
    "0e99999999999999999999",
    // As `%.17g` writes 0.1, -2.8 and 1e-5.
    "0.10000000000000001",
    "-2.7999999999999998",
    "1.0000000000000001e-05",
];

fn failure(chain: &VrlChain, value: &str) -> String {
    let (outputs, failures, _) = apply(chain, &[(Some(b"k"), Some(value.as_bytes()))]);
    assert_eq!((outputs.len(), failures.len()), (0, 1), "{outputs:?}");
    failures[0].clone()
}

#[test]
fn a_program_that_changes_nothing_of_the_value_keeps_it_byte_for_byte() {
    let value = r#"{ "model": "x", "id": 12345678901234567890, "b": [1.50, {"a": -0}], "a": 1, "a": 2 }"#;
    for program in [
        r#"if .model == "test" { abort }"#,
        r#"if .deleted == true { abort } # del(.id)"#,
        "x = .\ndel(x.id)\ny = del(x.b)",
        ".id",
        "%note = .id",
        "if is_null(.b) { .b = 5 }",
        "del(.absent)\ndel(.absent.below)",
        "for_each(array!(.b)) -> |_i, v| { %last = v }",
        "_, err = to_int(.model)\n%err = err",
        "del(%topic)",
    ] {
        assert_eq!(one("Json", program, value.as_bytes()), value, "{program}");
    }
}

#[test]
fn numbers_that_a_program_does_not_compute_keep_their_digits() {
    for number in LONG.iter().chain(&UNUSUAL) {
        let value = format!(r#"{{"b":{number},"a":[{{"c":{number}}},[{number},2.5,2]],"n":1}}"#);
        for (program, expected) in [
            (
                ".n = 2",
                format!(r#"{{"a":[{{"c":{number}}},[{number},2.5,2]],"b":{number},"n":2}}"#),
            ),
            (
                ".n = del(.b)",
                format!(r#"{{"a":[{{"c":{number}}},[{number},2.5,2]],"n":{number}}}"#),
            ),
            (
                "del(.a)\n.c = .b",
                format!(r#"{{"b":{number},"c":{number},"n":1}}"#),
            ),
            (
                ". = {\"x\": {\"y\": [.b, .n]}}",
                format!(r#"{{"x":{{"y":[{number},1]}}}}"#),
            ),
            (
                "x = .b\n. = {\"x\": x, \"same\": .b == x}",
                format!(r#"{{"same":true,"x":{number}}}"#),
            ),
            (
                "del(.a)\n. = merge(object!(.), {\"m\": .b})",
                format!(r#"{{"b":{number},"m":{number},"n":1}}"#),
            ),
            (
                "del(.a)\n. = map_values(object!(.)) -> |v| { v }",
                format!(r#"{{"b":{number},"n":1}}"#),
            ),
            (
                "if float!(.b) > 3.0 { .n = true } else { .n = true }\ndel(.a)",
                format!(r#"{{"b":{number},"n":true}}"#),
            ),
            (
                "del(.a)\n.n = if .n == 1 { .b } else { 0 }",
                format!(r#"{{"b":{number},"n":{number}}}"#),
            ),
            ("del(.a)\n.n = length([.b])", format!(r#"{{"b":{number},"n":1}}"#)),
        ] {
            assert_eq!(one("Json", program, value.as_bytes()), expected, "{program}");
        }
    }
}

#[test]
fn numbers_with_the_same_nearest_float_stay_apart() {
    let value = "[12345678901234567891,12345678901234567890,12345678901234567890.0,12345678901234567168,1.5]";
    assert_eq!(
        one("Json", ".[4] = 2", value.as_bytes()),
        value.replace("1.5]", "2]")
    );
    // Numbers in strings are text.
    let text = r#"{"a":"12345678901234567891 \" 1.50","b":12345678901234567891}"#;
    assert_eq!(
        one("Json", ".c = 1", text.as_bytes()),
        text.replace("891}", r#"891,"c":1}"#)
    );
}

#[test]
fn long_numbers_keep_their_digits_across_programs_outputs_and_keys() {
    let decode = decode("Json", "Json");
    let programs = [("a", ". = .items"), ("b", "%key = {\"id\": .id, \"old\": %key}")];
    let chain = VrlChain::compile(&programs, VrlNumbers::Exact, &decode, true).unwrap();
    let value = br#"{"items":[{"id":12345678901234567890},{"id":12345678901234567891}]}"#;
    let (outputs, failures, _) = apply(&chain, &[(Some(b"0.1234567890123456789"), Some(value))]);
    assert_eq!(failures, Vec::<String>::new());
    assert_eq!(
        outputs,
        [
            r#"100 {"id":12345678901234567890,"old":0.1234567890123456789} {"id":12345678901234567890}"#,
            r#"100 {"id":12345678901234567891,"old":0.1234567890123456789} {"id":12345678901234567891}"#,
        ]
    );
}

#[test]
fn a_record_whose_long_number_is_computed_with_fails_and_says_why() {
    for number in LONG {
        let value = format!(r#"{{"b":{number},"n":1,"list":[1,{number}]}}"#);
        for program in [
            ".b = to_float!(.b) + 1",
            ".n = to_string!(.b)",
            "x = to_string!(.b)\n.n = x",
            "x = to_string!(.b)\ny = [x]\nif true { .n = y }",
            ".n = encode_json(.)",
            "s = \"\"\nx = to_string!(.b)\n.n = \"<{{x}}>\"",
            ".list = map_values(array!(.list)) -> |v| { to_float!(v) * 2 }",
            "for_each(array!(.list)) -> |_i, v| { .n = to_int!(v) }",
            "x = del(.b)\n.n = round(float!(x))",
            ".c = .b\n.n = ceil(float!(.c))",
            "%x = to_float!(.b) * 2\n.n = %x",
            "%key = to_string!(.b)",
        ] {
            let message = failure(&chain("Json", &[program]), &value);
            assert!(
                message.contains("would lose digits") && message.contains("numbers: Lossy"),
                "{message}"
            );
            assert!(!message.contains(number), "{message}");
        }
    }
}

#[test]
fn a_program_computes_with_other_numbers_of_a_record_that_has_a_long_one() {
    let value = r#"{"a":1.5,"id":12345678901234567890}"#;
    assert_eq!(
        one(
            "Json",
            ".a = float!(.a) * 2\n.t = to_string!(.a)",
            value.as_bytes()
        ),
        r#"{"a":3.0,"id":12345678901234567890,"t":"3"}"#
    );
    // What is computed only in a branch that does not run does no harm.
    assert_eq!(
        one(
            "Json",
            "if .a == 7 { .id = to_float!(.id) + 1 }\n.a = 2",
            value.as_bytes()
        ),
        r#"{"a":2,"id":12345678901234567890}"#
    );
}

#[test]
fn a_program_computes_with_a_float_that_is_written_with_17_digits() {
    let value = r#"{"a":0.10000000000000001,"b":2.7999999999999998}"#;
    assert_eq!(
        one(
            "Json",
            ".c = float!(.a) * 4\n.t = to_string!(.b)",
            value.as_bytes()
        ),
        r#"{"a":0.10000000000000001,"b":2.7999999999999998,"c":0.4,"t":"2.8"}"#
    );
    assert_eq!(
        one("String", ". = parse_json!(.)", value.as_bytes()),
        r#"{"a":0.1,"b":2.8}"#
    );
}

#[test]
fn lossy_numbers_are_64_bit_floats() {
    let value = br#"{"id":12345678901234567890,"p":1.50}"#;
    let chain = VrlChain::compile(
        &[(
            "p",
            ".n = to_float!(.id) / 2.0\n.m = parse_json!(\"0.1234567890123456789\")",
        )],
        VrlNumbers::Lossy,
        &decode("String", "Json"),
        true,
    )
    .unwrap();
    assert_eq!(
        apply(&chain, &[(None, Some(value))]).0,
        [
            r#"100 null {"id":1.2345678901234567e+19,"m":0.12345678901234568,"n":6.172839450617284e+18,"p":1.5}"#
        ]
    );
}

#[test]
fn parse_json_refuses_numbers_that_would_lose_digits() {
    for number in LONG {
        let text = format!(r#"{{"a":[{number}]}}"#);
        for program in [
            ". = parse_json!(.)",
            ". = parse_json!(value: ., max_depth: 3)",
            ". = {\"x\": parse_json!(del(.))}",
        ] {
            let message = failure(&chain("String", &[program]), &text);
            assert!(message.contains("would lose digits"), "{message}");
        }
        assert_eq!(
            one("String", ". = parse_json!(., max_depth: 1)", text.as_bytes()),
            format!(r#"{{"a":"[{number}]"}}"#),
            "what stays text keeps its digits"
        );
        assert_eq!(
            one("String", ". = parse_json(.) ?? \"no\"", text.as_bytes()),
            "no"
        );
    }
    let text = "\u{feff}{\"a\":[1.50,\"\u{e4}\",null,{\"b\":9223372036854775807}]}";
    for program in [
        ". = parse_json!(.)",
        ". = parse_json!(value: ., max_depth: 128, lossy: false)",
    ] {
        assert_eq!(
            one("String", program, text.as_bytes()),
            "{\"a\":[1.5,\"\u{e4}\",null,{\"b\":9223372036854775807}]}"
        );
    }
}

proptest! {
    #[test]
    fn any_number_is_written_with_the_digits_that_were_read(
        numbers in proptest::collection::vec("-?(0|[1-9][0-9]{0,24})(\\.[0-9]{1,24})?([eE][-+]?[0-9]{1,2})?", 1..8)
    ) {
        let value = format!(r#"{{"a":[{}]}}"#, numbers.join(","));
        let output = one("Json", ".b = 1\ndel(.b)", value.as_bytes());
        let expected: Vec<&str> = numbers.iter().map(String::as_str).collect();
        let written = output.strip_prefix(r#"{"a":["#).unwrap().strip_suffix("]}").unwrap();
        // Two spellings of one float in a record become one spelling.
        let unique = |number: &str| {
            let value = |number: &str| number.parse::<f64>().unwrap().to_bits();
            numbers.iter().filter(|other| value(other) == value(number)).all(|other| other == number)
        };
        for (read, written) in expected.iter().zip(written.split(',')) {
            prop_assert!(*read == written || !unique(read), "{} became {}", read, written);
        }
    }
}
