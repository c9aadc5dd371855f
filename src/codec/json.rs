//! JSON text, compact, as `serde_json` writes and reads it.

use serde::Serialize;
use serde::de::DeserializeSeed;

use super::CodecError;

pub(super) fn write<T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    serde_json::to_vec(value).map_err(|error| CodecError::NotCarried(error.to_string()))
}

pub(super) fn read<'de, S: DeserializeSeed<'de>>(
    data: &'de [u8],
    seed: S,
) -> Result<S::Value, CodecError> {
    // One check of the whole is faster than one of each string.
    let text = std::str::from_utf8(data)
        .map_err(|error| CodecError::Malformed(format!("not UTF-8: {error}")))?;
    let mut reader = serde_json::Deserializer::from_str(text);
    // Its own limit is 128 and fixed; the walker counts up to ours.
    reader.disable_recursion_limit();
    let value = seed.deserialize(&mut reader).map_err(malformed)?;
    reader.end().map_err(malformed)?;
    Ok(value)
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "the shape that map_err wants"
)]
fn malformed(error: serde_json::Error) -> CodecError {
    CodecError::Malformed(error.to_string())
}
