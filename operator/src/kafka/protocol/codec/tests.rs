use proptest::prelude::*;

use super::*;

fn reader(bytes: &[u8], flexible: bool) -> Reader<'_> {
    Reader::new(bytes, flexible)
}

fn refused<T: std::fmt::Debug>(result: Result<T, Malformed>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn an_array_that_claims_more_elements_than_bytes_is_refused_before_the_first_element() {
    for (bytes, flexible) in [
        (&[0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0][..], false),
        (&[0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0], true),
    ] {
        let why = refused(reader(bytes, flexible).array(|_| -> Result<(), _> { unreachable!() }));
        assert!(
            why.contains("an array claims 214") || why.contains("an array claims 429"),
            "{why}"
        );
    }
}

#[test]
fn an_array_grows_beyond_its_initial_capacity() {
    let million = [&1_000_000_i32.to_be_bytes()[..], &[1; 1_000_000]].concat();
    let elements = reader(&million, false).array(Reader::bool).unwrap();
    assert_eq!(elements.len(), 1_000_000);
}

#[test]
fn lengths_below_null_are_refused() {
    assert!(refused(reader(&[0x80, 0], false).string()).contains("-32768 is negative"));
    assert!(refused(reader(&[0xff, 0xff, 0xff, 0xfe], false).array(Reader::bool)).contains("-2 is negative"));
    assert!(refused(reader(&[0xff, 0xff, 0xff, 0xfe], false).bytes()).contains("-2 is negative"));
}

#[test]
fn null_is_refused_where_a_value_is_required() {
    for (bytes, flexible) in [(&[0xff, 0xff, 0xff, 0xff][..], false), (&[0], true)] {
        assert!(refused(reader(bytes, flexible).string()).contains("a string is null"));
        assert!(refused(reader(bytes, flexible).bytes()).contains("a byte field is null"));
        assert!(refused(reader(bytes, flexible).array(Reader::bool)).contains("an array is null"));
        assert_eq!(reader(bytes, flexible).nullable_string().unwrap(), None);
    }
}

#[test]
fn a_string_must_be_utf8_and_complete() {
    assert!(refused(reader(&[0, 2, 0xc3, 0x28], false).string()).contains("not UTF-8"));
    assert!(refused(reader(&[0, 3, b'a', b'b'], false).string()).contains("has 3 bytes, 2 remain"));
    assert!(refused(reader(&[4, b'a', b'b'], true).string()).contains("has 3 bytes, 2 remain"));
}

#[test]
fn a_varint_has_at_most_32_bits() {
    assert_eq!(
        reader(&[0xff, 0xff, 0xff, 0xff, 0x0f], true).unsigned_varint(),
        Ok(u32::MAX)
    );
    for too_long in [
        [0xff, 0xff, 0xff, 0xff, 0x1f, 0],
        [0x80, 0x80, 0x80, 0x80, 0x80, 0x01],
    ] {
        assert!(refused(reader(&too_long, true).unsigned_varint()).contains("longer than 32 bits"));
    }
}

#[test]
fn tagged_fields_are_skipped_in_flexible_versions_only() {
    let two_fields = [2, 0, 1, 0xaa, 1, 2, 0xbb, 0xcc, 42];
    let mut flexible = reader(&two_fields, true);
    flexible.end_of_struct().unwrap();
    assert_eq!(flexible.remaining(), 1);
    let mut fixed = reader(&two_fields, false);
    fixed.end_of_struct().unwrap();
    assert_eq!(fixed.remaining(), two_fields.len());
    for wrong in [
        &[2, 0, 1, 0xaa][..],
        &[1, 0, 5, 0],
        &[0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0],
    ] {
        assert!(reader(wrong, true).end_of_struct().is_err());
    }
}

#[test]
fn a_string_too_long_for_its_length_is_written_as_null() {
    let mut out = Writer::new(false);
    out.string(&"a".repeat(32768));
    assert_eq!(out.into_bytes(), [0xff, 0xff]);
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        flexible: bool,
        numbers: (i16, i32, i64, bool, [u8; 16]),
        text: Option<String>,
        bytes: Vec<u8>,
        texts: Vec<String>,
    ) {
        let mut out = Writer::new(flexible);
        out.i16(numbers.0);
        out.i32(numbers.1);
        out.i64(numbers.2);
        out.bool(numbers.3);
        out.uuid(numbers.4);
        out.nullable_string(text.as_deref());
        out.bytes(&bytes);
        out.array(&texts, |out, text| {
            out.string(text);
            out.end_of_struct();
        });
        out.end_of_struct();
        let written = out.into_bytes();

        let mut reader = reader(&written, flexible);
        let read = (
            reader.i16()?,
            reader.i32()?,
            reader.i64()?,
            reader.bool()?,
            reader.uuid()?,
        );
        prop_assert_eq!(read, numbers);
        prop_assert_eq!(reader.nullable_string()?, text);
        prop_assert_eq!(reader.bytes()?, bytes);
        let read = reader.array(|reader| {
            let text = reader.string()?;
            reader.end_of_struct()?;
            Ok(text)
        })?;
        prop_assert_eq!(read, texts);
        reader.end_of_struct()?;
        prop_assert_eq!(reader.remaining(), 0);
    }

    #[test]
    fn every_varint_is_read_as_it_was_written(value: u32) {
        let mut out = Writer::new(true);
        out.unsigned_varint(value);
        prop_assert_eq!(reader(&out.into_bytes(), true).unsigned_varint()?, value);
    }
}
