//! The formats of stored values: JSON and MessagePack over serde, for any value type.

mod json;
mod msgpack;

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeSeed;

pub use msgpack::{ExtCode, Marker, is_binary, read_marker};

/// The most containers that may be nested in one value, both when writing and when reading.
///
/// Python libraries that read our rows stop at this depth or later, and a walk this deep fits
/// into the small stacks that some programs give their threads.
pub const MAX_DEPTH: u16 = 254;

/// How the bytes of a stored value are to be read. The names are stored beside the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// JSON, as Python's `json` reads it.
    Json,
    /// JSON as well: the label that programs with the `orjson` library use.
    Orjson,
    /// `MessagePack` without extension types, as Python's `msgpack` reads it.
    MsgPack,
    /// `MessagePack` with the typed arrays of [`ExtCode`].
    Cachetronomy,
}

impl Format {
    /// The name under which the format is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Orjson => "orjson",
            Self::MsgPack => "msgpack",
            Self::Cachetronomy => "cachetronomy",
        }
    }

    /// The format with this stored name.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "json" => Some(Self::Json),
            "orjson" => Some(Self::Orjson),
            "msgpack" => Some(Self::MsgPack),
            "cachetronomy" => Some(Self::Cachetronomy),
            _ => None,
        }
    }

    /// Whether the bytes are JSON text.
    pub fn is_json(self) -> bool {
        matches!(self, Self::Json | Self::Orjson)
    }
}

/// Why a value was not written or not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CodecError {
    /// More than [`MAX_DEPTH`] containers are nested in each other.
    TooDeep,
    /// The value refused to be written, or the format has no room for it.
    NotCarried(String),
    /// The bytes are not a value in this format.
    Malformed(String),
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooDeep => write!(f, "nested deeper than {MAX_DEPTH} containers"),
            Self::NotCarried(reason) | Self::Malformed(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for CodecError {}

/// How deep a walk is. Every walker carries one and asks it before it enters a container.
#[derive(Clone, Copy, Debug, Default)]
pub struct Depth(u16);

impl Depth {
    /// The depth inside one more container.
    pub fn deeper(self) -> Result<Self, CodecError> {
        if self.0 >= MAX_DEPTH {
            return Err(CodecError::TooDeep);
        }
        Ok(Self(self.0 + 1))
    }
}

/// Writes a value. Its `Serialize` has to keep count with [`Depth`].
pub fn encode<T: Serialize>(value: &T, format: Format) -> Result<Vec<u8>, CodecError> {
    let bytes = match format {
        Format::Json | Format::Orjson => json::write(value)?,
        Format::MsgPack | Format::Cachetronomy => msgpack::write(value)?,
    };
    // MessagePack lengths are 32 bits wide and rmp cuts longer ones off. No single length can be
    // that large in fewer bytes than this, so one look at the end covers them all.
    if u32::try_from(bytes.len()).is_err() {
        return Err(CodecError::NotCarried("larger than 4 GiB".to_owned()));
    }
    Ok(bytes)
}

/// Reads one value that fills `data` exactly. The seed has to keep count with [`Depth`]: the
/// limits that the readers have of their own are out of the way.
pub fn decode<'de, S: DeserializeSeed<'de>>(
    data: &'de [u8],
    format: Format,
    seed: S,
) -> Result<S::Value, CodecError> {
    match format {
        Format::Json | Format::Orjson => json::read(data, seed),
        Format::MsgPack | Format::Cachetronomy => msgpack::read(data, seed),
    }
}

#[cfg(test)]
mod tests;
