//! `MessagePack`, plain or with the markers of our typed arrays.

use rmp_serde::MSGPACK_EXT_STRUCT_NAME;
use rmp_serde::decode::Error as ReadError;
use serde::de::{DeserializeSeed, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_bytes::Bytes;

use super::{CodecError, MAX_DEPTH};

/// The types which the `cachetronomy` format adds to `MessagePack`.
///
/// This is an on-disk contract: a number is never given another meaning, and new types get new
/// numbers. A typed value is an array: first a marker, which is an extension object with this
/// number and an empty payload, then the parts listed here as ordinary values, in this order.
/// No plain list can begin with a marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i8)]
pub enum ExtCode {
    /// The items.
    Tuple = 1,
    /// The members, in any order.
    Set = 2,
    /// The members, in any order.
    FrozenSet = 3,
    /// Real part, imaginary part; both floats.
    Complex = 4,
    /// Binary.
    ByteArray = 5,
    /// Binary: two's complement, least significant byte first.
    BigInt = 6,
    /// Year, month, day.
    Date = 7,
    /// Hour, minute, second, microsecond, fold, time zone or nil.
    Time = 8,
    /// Year, month, day, hour, minute, second, microsecond, fold, time zone or nil.
    DateTime = 9,
    /// Days, seconds, microseconds.
    TimeDelta = 10,
    /// Offset as a time delta; then the name, if it was given one.
    TimeZone = 11,
    /// Key of the time zone database.
    ZoneInfo = 12,
    /// Text.
    Decimal = 13,
    /// Numerator, denominator.
    Fraction = 14,
    /// Binary of 16 bytes.
    Uuid = 15,
    /// Text of a path of the system that reads it.
    Path = 16,
    /// Text.
    PurePosixPath = 17,
    /// Text.
    PureWindowsPath = 18,
    /// Binary: a string that is not Unicode, as UTF-8 in which surrogates are let through.
    SurrogateStr = 19,
    /// Data type in numpy's notation, shape as a tuple, binary in C order.
    NumpyArray = 20,
    /// As an array, with an empty shape.
    NumpyScalar = 21,
}

impl ExtCode {
    const ALL: [Self; 21] = [
        Self::Tuple,
        Self::Set,
        Self::FrozenSet,
        Self::Complex,
        Self::ByteArray,
        Self::BigInt,
        Self::Date,
        Self::Time,
        Self::DateTime,
        Self::TimeDelta,
        Self::TimeZone,
        Self::ZoneInfo,
        Self::Decimal,
        Self::Fraction,
        Self::Uuid,
        Self::Path,
        Self::PurePosixPath,
        Self::PureWindowsPath,
        Self::SurrogateStr,
        Self::NumpyArray,
        Self::NumpyScalar,
    ];

    pub(super) fn from_number(number: i8) -> Option<Self> {
        Self::ALL.into_iter().find(|code| *code as i8 == number)
    }
}

/// The first element of a typed array.
#[derive(Clone, Copy, Debug)]
pub struct Marker(pub ExtCode);

impl Serialize for Marker {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let content = (self.0 as i8, Bytes::new(&[]));
        serializer.serialize_newtype_struct(MSGPACK_EXT_STRUCT_NAME, &content)
    }
}

/// Reads a marker, from the deserializer that a visitor gets in `visit_newtype_struct`.
pub fn read_marker<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ExtCode, D::Error> {
    // Both parts have to be asked for: what is not asked for stays in the input, unread.
    let (number, payload) = <(i8, &Bytes)>::deserialize(deserializer)?;
    match ExtCode::from_number(number) {
        Some(code) if payload.is_empty() => Ok(code),
        _ => Err(D::Error::custom(format_args!(
            "extension type {number} with {} bytes is not one of ours",
            payload.len()
        ))),
    }
}

/// Whether `bytes`, a slice of `data` that the reader handed out, was written as binary.
///
/// The reader also offers text that is not valid UTF-8 as bytes, and only the header in front
/// tells the two apart. The headers of text and binary of one length never look alike.
pub fn is_binary(data: &[u8], bytes: &[u8]) -> bool {
    let start = bytes.as_ptr().addr().wrapping_sub(data.as_ptr().addr());
    let Some(before) = data.get(..start) else {
        return false;
    };
    let Ok(length) = u32::try_from(bytes.len()) else {
        return false;
    };
    let [b3, b2, b1, b0] = length.to_be_bytes();
    match length {
        0..=0xff if before.ends_with(&[0xc4, b0]) => true,
        0..=0xffff if before.ends_with(&[0xc5, b1, b0]) => true,
        _ => before.ends_with(&[0xc6, b3, b2, b1, b0]),
    }
}

pub(super) fn write<T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    rmp_serde::to_vec(value).map_err(|error| CodecError::NotCarried(error.to_string()))
}

pub(super) fn read<'de, S: DeserializeSeed<'de>>(
    data: &'de [u8],
    seed: S,
) -> Result<S::Value, CodecError> {
    let mut reader = rmp_serde::Deserializer::from_read_ref(data);
    // A marker counts as a level there, and the last level is never entered.
    reader.set_max_depth(usize::from(MAX_DEPTH) + 2);
    let value = seed
        .deserialize(&mut reader)
        .map_err(|error| CodecError::Malformed(error.to_string()))?;
    // The reader does not tell where it stopped, but only at the end of the input does it fail to
    // read the marker of one more value.
    match bool::deserialize(&mut reader) {
        Err(ReadError::InvalidMarkerRead(_)) => Ok(value),
        _ => Err(CodecError::Malformed(
            "bytes left over after the value".to_owned(),
        )),
    }
}
