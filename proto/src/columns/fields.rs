//! Protobuf's wire format: fields, packed numbers.
//!
//! Source: <https://protobuf.dev/programming-guides/encoding/>.

use super::ReadError;

/// A field's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    /// None of ours.
    Fixed32,
}

/// Fields of a message in their order; `None` for bytes that are none, after
/// which it ends.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Option<(u64, Value<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = field(&mut self.0);
        if field.is_none() {
            self.0 = &[];
        }
        Some(field)
    }
}

fn field<'a>(rest: &mut &'a [u8]) -> Option<(u64, Value<'a>)> {
    let key = varint(rest)?;
    let value = match key & 7 {
        0 => Value::Varint(varint(rest)?),
        1 => Value::Fixed64(u64::from_le_bytes(take(rest, 8)?.try_into().ok()?)),
        2 => {
            let length = usize::try_from(varint(rest)?).ok()?;
            Value::Bytes(take(rest, length)?)
        }
        5 => {
            take(rest, 4)?;
            Value::Fixed32
        }
        _ => return None,
    };
    let number = key >> 3;
    (1..1 << 29).contains(&number).then_some((number, value))
}

fn take<'a>(rest: &mut &'a [u8], n: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(n)?;
    *rest = left;
    Some(taken)
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for (i, byte) in rest.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * i);
        if *byte < 0x80 {
            // The tenth has room for one bit.
            if i == 9 && *byte > 1 {
                return None;
            }
            *rest = &rest[i + 1..];
            return Some(value);
        }
    }
    None
}

/// Appends packed `sint64`.
pub fn packed(mut bytes: &[u8], out: &mut Vec<i64>) -> Result<(), ReadError> {
    // One byte each is the most there can be.
    while let Some((first, rest)) = bytes.split_first() {
        // Half of all values are small: zeros, counts, CPU numbers.
        let value = if *first < 0x80 {
            bytes = rest;
            u64::from(*first)
        } else {
            varint(&mut bytes).ok_or(ReadError::Malformed)?
        };
        out.push(zigzag(value));
    }
    Ok(())
}

/// Appends packed `double`.
pub fn doubles(bytes: &[u8], out: &mut Vec<f64>) -> Result<(), ReadError> {
    let (values, rest) = bytes.as_chunks::<8>();
    out.extend(values.iter().map(|b| f64::from_le_bytes(*b)));
    rest.is_empty().then_some(()).ok_or(ReadError::Malformed)
}

/// The signed number of a `sint64`.
pub const fn zigzag(v: u64) -> i64 {
    (v >> 1).cast_signed() ^ -(v & 1).cast_signed()
}
