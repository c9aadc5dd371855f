//! Tests of the formats with a small tree of values.

use std::cell::Cell;
use std::fmt;

use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::ser::{Error as _, SerializeMap, SerializeSeq, Serializer};

use super::*;

#[derive(Clone, Debug, PartialEq)]
enum Tree {
    Nil,
    Bool(bool),
    Signed(i64),
    Unsigned(u64),
    Float(f64),
    Text(String),
    Binary(Vec<u8>),
    List(Vec<Tree>),
    Map(Vec<(Tree, Tree)>),
    Typed(ExtCode, Vec<Tree>),
}

use Tree::{Binary, Bool, Float, List, Map, Nil, Signed, Text, Typed, Unsigned};

struct Writer<'a>(&'a Tree, Depth);

impl Serialize for Writer<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let deeper = || self.1.deeper().map_err(S::Error::custom);
        match self.0 {
            Nil => serializer.serialize_unit(),
            Bool(value) => serializer.serialize_bool(*value),
            Signed(value) => serializer.serialize_i64(*value),
            Unsigned(value) => serializer.serialize_u64(*value),
            Float(value) => serializer.serialize_f64(*value),
            Text(value) => serializer.serialize_str(value),
            Binary(value) => serializer.serialize_bytes(value),
            List(items) => {
                let depth = deeper()?;
                serializer.collect_seq(items.iter().map(|item| Writer(item, depth)))
            }
            Map(entries) => {
                let depth = deeper()?;
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                for (key, value) in entries {
                    map.serialize_entry(&Writer(key, depth), &Writer(value, depth))?;
                }
                map.end()
            }
            Typed(code, parts) => {
                let depth = deeper()?;
                let mut seq = serializer.serialize_seq(Some(parts.len() + 1))?;
                seq.serialize_element(&Marker(*code))?;
                for part in parts {
                    seq.serialize_element(&Writer(part, depth))?;
                }
                seq.end()
            }
        }
    }
}

#[derive(Clone, Copy)]
struct Reader<'a> {
    data: &'a [u8],
    depth: Depth,
    slot: Option<&'a Cell<Option<ExtCode>>>,
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = Tree;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Nil)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Signed(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(i64::try_from(value).map_or(Unsigned(value), Signed))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
        Ok(Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Text(value.to_owned()))
    }

    fn visit_borrowed_bytes<E: serde::de::Error>(self, value: &'de [u8]) -> Result<Tree, E> {
        if is_binary(self.data, value) {
            Ok(Binary(value.to_owned()))
        } else {
            Err(E::custom("text that is not UTF-8"))
        }
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, ext: D) -> Result<Tree, D::Error> {
        let slot = self
            .slot
            .ok_or_else(|| D::Error::custom("a stray marker"))?;
        slot.set(Some(read_marker(ext)?));
        Ok(Nil)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Tree, A::Error> {
        let depth = self.depth.deeper().map_err(A::Error::custom)?;
        let marker = Cell::new(None);
        let mut items = Vec::new();
        let first = Reader {
            data: self.data,
            depth,
            slot: Some(&marker),
        };
        if let Some(item) = seq.next_element_seed(first)? {
            items.push(item);
        }
        while let Some(item) = seq.next_element_seed(Reader {
            depth,
            slot: None,
            ..self
        })? {
            items.push(item);
        }
        Ok(match marker.get() {
            Some(code) => Typed(code, items.split_off(1)),
            None => List(items),
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        let depth = self.depth.deeper().map_err(A::Error::custom)?;
        let inner = Reader {
            depth,
            slot: None,
            ..self
        };
        let mut entries = Vec::new();
        while let Some(key) = map.next_key_seed(inner)? {
            entries.push((key, map.next_value_seed(inner)?));
        }
        Ok(Map(entries))
    }
}

fn write(tree: &Tree, format: Format) -> Result<Vec<u8>, CodecError> {
    encode(&Writer(tree, Depth::default()), format)
}

fn read(data: &[u8], format: Format) -> Result<Tree, CodecError> {
    decode(
        data,
        format,
        Reader {
            data,
            depth: Depth::default(),
            slot: None,
        },
    )
}

fn text(value: &str) -> Tree {
    Text(value.to_owned())
}

fn plain() -> Tree {
    List(vec![
        Nil,
        Bool(true),
        Signed(i64::MIN),
        Unsigned(u64::MAX),
        Float(-0.0),
        Float(5e-324),
        text("a \"quoted\" \u{1f600}\0 line\n"),
        List(vec![]),
        Map(vec![(text("z"), Signed(-1)), (text("a"), Map(vec![]))]),
    ])
}

fn nested(depth: usize) -> Tree {
    (1..depth).fold(List(vec![]), |inner, _| List(vec![inner]))
}

#[test]
fn names_are_read_back_and_others_are_not() {
    for format in [
        Format::Json,
        Format::Orjson,
        Format::MsgPack,
        Format::Cachetronomy,
    ] {
        assert_eq!(Format::parse(format.as_str()), Some(format));
    }
    assert_eq!(Format::parse("pickle"), None);
    assert_eq!(Format::parse("JSON"), None);
}

#[test]
fn plain_values_come_back_from_every_format() {
    for format in [
        Format::Json,
        Format::Orjson,
        Format::MsgPack,
        Format::Cachetronomy,
    ] {
        let bytes = write(&plain(), format).unwrap();
        let back = read(&bytes, format).unwrap();
        // Debug tells -0.0 from 0.0, equality does not.
        assert_eq!(format!("{back:?}"), format!("{:?}", plain()), "{format:?}");
    }
}

#[test]
fn json_has_no_spaces_and_keeps_the_order_of_keys() {
    let tree = Map(vec![
        (text("b"), List(vec![Signed(1), Float(0.5)])),
        (text("a"), Nil),
    ]);
    assert_eq!(
        write(&tree, Format::Json).unwrap(),
        br#"{"b":[1,0.5],"a":null}"#
    );
}

#[test]
fn json_floats_come_back_to_the_last_bit() {
    // These need the `float_roundtrip` feature of serde_json.
    for value in [
        0.1 + 0.7,
        71.597_598_259_265_8,
        1.797_693_134_862_315_7e308,
        2.5e-317,
    ] {
        let bytes = write(&Float(value), Format::Json).unwrap();
        assert_eq!(read(&bytes, Format::Json), Ok(Float(value)));
    }
    let mut bits: u64 = 0x9e37_79b9_7f4a_7c15;
    for _ in 0..20_000 {
        bits = bits
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let value = f64::from_bits(bits);
        if value.is_finite() {
            let bytes = write(&Float(value), Format::Json).unwrap();
            assert_eq!(read(&bytes, Format::Json), Ok(Float(value)));
        }
    }
}

#[test]
fn typed_arrays_nest_and_may_be_keys() {
    let typed = Typed(
        ExtCode::DateTime,
        vec![
            Signed(2020),
            Typed(ExtCode::TimeZone, vec![Typed(ExtCode::TimeDelta, vec![])]),
        ],
    );
    let tree = Map(vec![
        (
            Typed(ExtCode::Tuple, vec![Signed(1), typed.clone()]),
            Binary(vec![0, 255]),
        ),
        (Signed(7), List(vec![Typed(ExtCode::Set, vec![]), typed])),
    ]);
    let bytes = write(&tree, Format::Cachetronomy).unwrap();
    assert_eq!(read(&bytes, Format::Cachetronomy), Ok(tree));
}

#[test]
fn the_bytes_of_a_typed_array_are_a_contract() {
    let bytes = write(&Typed(ExtCode::Tuple, vec![Nil]), Format::Cachetronomy).unwrap();
    assert_eq!(bytes, [0x92, 0xc7, 0x00, 0x01, 0xc0]);
    let numbers: Vec<i8> = (1..=21).collect();
    let codes: Vec<i8> = (i8::MIN..=i8::MAX)
        .filter_map(ExtCode::from_number)
        .map(|code| code as i8)
        .collect();
    assert_eq!(codes, numbers);
}

#[test]
fn markers_stand_only_at_the_beginning_of_an_array() {
    for bytes in [
        &[0xc7, 0, 1][..],
        &[0x92, 0xc0, 0xc7, 0, 1],
        &[0x81, 0xc7, 0, 1, 0xc0],
    ] {
        assert!(read(bytes, Format::Cachetronomy).is_err(), "{bytes:?}");
    }
}

#[test]
fn unknown_extension_types_and_payloads_are_refused() {
    for bytes in [
        &[0x91, 0xc7, 0, 99][..],
        &[0x91, 0xc7, 0, 0xff],
        &[0x91, 0xd4, 1, 0],
    ] {
        assert!(read(bytes, Format::Cachetronomy).is_err(), "{bytes:?}");
    }
}

#[test]
fn bytes_left_over_are_refused() {
    for format in [Format::Json, Format::MsgPack, Format::Cachetronomy] {
        let bytes = write(&plain(), format).unwrap();
        for extra in [b"1", b"\xc1", b"\x93", b"]"] {
            let longer = [bytes.as_slice(), extra].concat();
            assert!(
                matches!(read(&longer, format), Err(CodecError::Malformed(_))),
                "{extra:?}"
            );
        }
    }
}

#[test]
fn every_truncation_is_refused() {
    for format in [Format::Json, Format::MsgPack] {
        let bytes = write(&plain(), format).unwrap();
        for end in 0..bytes.len() {
            assert!(
                read(&bytes[..end], format).is_err(),
                "{format:?} cut at {end}"
            );
        }
    }
}

#[test]
fn claimed_lengths_reserve_nothing() {
    for header in [0xdb, 0xc6, 0xdd, 0xdf, 0xc9] {
        assert!(read(&[header, 0xff, 0xff, 0xff, 0xff], Format::MsgPack).is_err());
        assert!(read(&[header, 0xff, 0xff, 0xff, 0xff, 1], Format::Cachetronomy).is_err());
    }
}

#[test]
fn text_that_is_not_utf8_is_not_taken_for_binary() {
    let invalid = [0xff; 300];
    for (text, binary) in [
        (&[0xa0][..], &[0xc4, 0][..]),
        (&[0xa3], &[0xc4, 3]),
        (&[0xd9, 3], &[0xc5, 0, 3]),
        (&[0xda, 0, 3], &[0xc6, 0, 0, 0, 3]),
        (&[0xdb, 0, 0, 0, 3], &[0xc4, 3]),
        (&[0xda, 1, 44], &[0xc5, 1, 44]),
        (&[0xdb, 0, 0, 1, 44], &[0xc6, 0, 0, 1, 44]),
    ] {
        let length = match text.last() {
            Some(0xa0) => 0,
            Some(44) => 300,
            _ => 3,
        };
        // An element that ends in the header byte of a binary stands in front.
        let wrap = |header: &[u8]| [&[0x92, 0xcc, 0xc4], header, &invalid[..length]].concat();
        assert_eq!(
            read(&wrap(text), Format::MsgPack).is_err(),
            length > 0,
            "{text:?}"
        );
        assert!(read(&wrap(binary), Format::MsgPack).is_ok(), "{binary:?}");
    }
}

#[test]
fn the_depth_limit_is_one_for_writing_and_reading() {
    let limit = usize::from(MAX_DEPTH);
    for format in [Format::Json, Format::MsgPack, Format::Cachetronomy] {
        let deepest = nested(limit);
        assert_eq!(read(&write(&deepest, format).unwrap(), format), Ok(deepest));
        assert!(write(&nested(limit + 1), format).is_err());
    }
    assert!(read(&vec![b'['; 1_000_000], Format::Json).is_err());
    assert!(read(&vec![0x91; 1_000_000], Format::MsgPack).is_err());
    let typed = (1..limit).fold(Typed(ExtCode::Tuple, vec![]), |inner, _| {
        Typed(ExtCode::Tuple, vec![inner])
    });
    let bytes = write(&typed, Format::Cachetronomy).unwrap();
    assert_eq!(read(&bytes, Format::Cachetronomy), Ok(typed));
}
