//! Parameters from the wire, as text and as binary.

use pgwire::api::Type;
use time::format_description::well_known::Rfc3339;
use time::{Date, Duration, OffsetDateTime};

use crate::query::postgres::{Parameter, ParameterType};

/// 2000-01-01T00:00:00Z, where PostgreSQL's times begin, s.
const EPOCH: i64 = 946_684_800;
/// Elements of one list.
const LONGEST_LIST: usize = 10_000;

/// Protocol type of a parameter that the client did not type.
pub fn wire_type(kind: ParameterType) -> Type {
    match kind {
        ParameterType::Bool => Type::BOOL,
        ParameterType::Int => Type::INT8,
        ParameterType::Float => Type::FLOAT8,
        ParameterType::Text => Type::TEXT,
        ParameterType::Bytes => Type::BYTEA,
        ParameterType::Time => Type::TIMESTAMPTZ,
        ParameterType::Interval => Type::INTERVAL,
        ParameterType::IntList => Type::INT8_ARRAY,
        ParameterType::FloatList => Type::FLOAT8_ARRAY,
        ParameterType::TextList => Type::TEXT_ARRAY,
    }
}

/// The type that a NULL of a protocol type gets.
pub fn null(wire: &Type) -> ParameterType {
    match *wire {
        Type::BOOL => ParameterType::Bool,
        Type::INT2 | Type::INT4 | Type::INT8 | Type::OID => ParameterType::Int,
        Type::FLOAT4 | Type::FLOAT8 | Type::NUMERIC => ParameterType::Float,
        Type::BYTEA => ParameterType::Bytes,
        Type::TIMESTAMP | Type::TIMESTAMPTZ | Type::DATE => ParameterType::Time,
        Type::INTERVAL => ParameterType::Interval,
        Type::INT2_ARRAY | Type::INT4_ARRAY | Type::INT8_ARRAY => ParameterType::IntList,
        Type::FLOAT4_ARRAY | Type::FLOAT8_ARRAY => ParameterType::FloatList,
        Type::TEXT_ARRAY | Type::VARCHAR_ARRAY => ParameterType::TextList,
        _ => ParameterType::Text,
    }
}

/// The value of one parameter; the error says what is wrong with it.
pub fn decode(wire: &Type, binary: bool, bytes: Option<&[u8]>) -> Result<Parameter, String> {
    let Some(bytes) = bytes else {
        return Ok(Parameter::Null(null(wire)));
    };
    if binary {
        from_binary(wire, bytes)
    } else {
        let text = std::str::from_utf8(bytes).map_err(|_| "the text is not UTF-8".to_owned())?;
        from_text(wire, text)
    }
}

fn from_text(wire: &Type, text: &str) -> Result<Parameter, String> {
    let bad = || format!("invalid input for type {wire}: {text:?}");
    let trimmed = text.trim();
    Ok(match *wire {
        Type::BOOL => match trimmed.to_lowercase().as_str() {
            "t" | "true" | "on" | "yes" | "1" => Parameter::Bool(true),
            "f" | "false" | "off" | "no" | "0" => Parameter::Bool(false),
            _ => return Err(bad()),
        },
        Type::INT2 | Type::INT4 | Type::INT8 | Type::OID => {
            Parameter::Int(trimmed.parse().map_err(|_| bad())?)
        }
        Type::FLOAT4 | Type::FLOAT8 | Type::NUMERIC => {
            Parameter::Float(trimmed.parse().map_err(|_| bad())?)
        }
        Type::BYTEA => Parameter::Bytes(hex(trimmed).ok_or_else(bad)?),
        Type::TIMESTAMP | Type::TIMESTAMPTZ => Parameter::Time(trimmed.to_owned()),
        Type::DATE => Parameter::Date(trimmed.to_owned()),
        Type::INTERVAL => Parameter::Interval(trimmed.to_owned()),
        _ => match element(wire) {
            None => Parameter::Text(text.to_owned()),
            Some(element) => list(&element, trimmed).ok_or_else(bad)?,
        },
    })
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix("\\x")?.as_bytes();
    if digits.len() % 2 != 0 {
        return None;
    }
    let byte = |pair: &[u8]| {
        let text = std::str::from_utf8(pair).ok()?;
        u8::from_str_radix(text, 16).ok()
    };
    digits.chunks(2).map(byte).collect()
}

/// `{a,b}` without quotes or NULLs.
fn list(element: &Type, text: &str) -> Option<Parameter> {
    let inner = text.strip_prefix('{')?.strip_suffix('}')?;
    if inner.contains(['"', '\\', '{']) || inner.matches(',').count() >= LONGEST_LIST {
        return None;
    }
    let parts = inner.split(',').filter(|p| !p.is_empty());
    let parts: Option<Vec<_>> = parts.map(|p| from_text(element, p).ok()).collect();
    parts.map(Parameter::List)
}

fn element(wire: &Type) -> Option<Type> {
    Some(match *wire {
        Type::BOOL_ARRAY => Type::BOOL,
        Type::INT2_ARRAY => Type::INT2,
        Type::INT4_ARRAY => Type::INT4,
        Type::INT8_ARRAY => Type::INT8,
        Type::FLOAT4_ARRAY => Type::FLOAT4,
        Type::FLOAT8_ARRAY => Type::FLOAT8,
        Type::TEXT_ARRAY | Type::VARCHAR_ARRAY => Type::TEXT,
        Type::TIMESTAMPTZ_ARRAY => Type::TIMESTAMPTZ,
        _ => return None,
    })
}

fn from_binary(wire: &Type, bytes: &[u8]) -> Result<Parameter, String> {
    let bad = |_| format!("{} bytes are no binary {wire}", bytes.len());
    Ok(match *wire {
        Type::BOOL => Parameter::Bool(fixed::<1>(bytes).map_err(bad)? != [0]),
        Type::INT2 => Parameter::Int(i16::from_be_bytes(fixed(bytes).map_err(bad)?).into()),
        Type::INT4 => Parameter::Int(i32::from_be_bytes(fixed(bytes).map_err(bad)?).into()),
        Type::OID => Parameter::Int(u32::from_be_bytes(fixed(bytes).map_err(bad)?).into()),
        Type::INT8 => Parameter::Int(i64::from_be_bytes(fixed(bytes).map_err(bad)?)),
        Type::FLOAT4 => Parameter::Float(f32::from_be_bytes(fixed(bytes).map_err(bad)?).into()),
        Type::FLOAT8 => Parameter::Float(f64::from_be_bytes(fixed(bytes).map_err(bad)?)),
        Type::BYTEA => Parameter::Bytes(bytes.to_vec()),
        Type::TIMESTAMP | Type::TIMESTAMPTZ => {
            instant(i64::from_be_bytes(fixed(bytes).map_err(bad)?))?
        }
        Type::DATE => day(i32::from_be_bytes(fixed(bytes).map_err(bad)?))?,
        Type::INTERVAL => interval(fixed(bytes).map_err(bad)?),
        Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::UNKNOWN | Type::JSON => {
            let text = std::str::from_utf8(bytes).map_err(|_| "the text is not UTF-8")?;
            Parameter::Text(text.to_owned())
        }
        _ => match element(wire) {
            Some(element) => binary_list(&element, bytes)?,
            None => return Err(format!("binary {wire} is not supported; send it as text")),
        },
    })
}

fn fixed<const N: usize>(bytes: &[u8]) -> Result<[u8; N], std::array::TryFromSliceError> {
    bytes.try_into()
}

/// µs since 2000; both ends of the range mean infinity.
fn instant(micros: i64) -> Result<Parameter, String> {
    let out = || "the timestamp is out of range".to_owned();
    let nanos = (i128::from(EPOCH) * 1_000_000 + i128::from(micros)) * 1000;
    let at = OffsetDateTime::from_unix_timestamp_nanos(nanos).map_err(|_| out())?;
    Ok(Parameter::Time(at.format(&Rfc3339).map_err(|_| out())?))
}

fn day(days: i32) -> Result<Parameter, String> {
    let out = || "the date is out of range".to_owned();
    let first = OffsetDateTime::from_unix_timestamp(EPOCH).map_err(|_| out())?;
    let day: Option<Date> = first.date().checked_add(Duration::days(days.into()));
    Ok(Parameter::Date(day.ok_or_else(out)?.to_string()))
}

/// µs, days, months.
fn interval(bytes: [u8; 16]) -> Parameter {
    let [micros @ .., d0, d1, d2, d3, m0, m1, m2, m3] = bytes;
    let micros = i64::from_be_bytes(micros);
    let (days, months) = (
        i32::from_be_bytes([d0, d1, d2, d3]),
        i32::from_be_bytes([m0, m1, m2, m3]),
    );
    Parameter::Interval(format!("{months} months {days} days {micros} microseconds"))
}

/// One dimension: dimensions, has NULLs, element type, length, lower bound;
/// then length and bytes of each.
fn binary_list(element: &Type, bytes: &[u8]) -> Result<Parameter, String> {
    let bad = || "the array is damaged or has more than one dimension".to_owned();
    let mut rest = bytes;
    let int = move |rest: &mut &[u8]| -> Option<i32> {
        let (head, tail) = rest.split_first_chunk::<4>()?;
        *rest = tail;
        Some(i32::from_be_bytes(*head))
    };
    let dimensions = int(&mut rest).ok_or_else(bad)?;
    let _nulls = int(&mut rest).ok_or_else(bad)?;
    let _type = int(&mut rest).ok_or_else(bad)?;
    if dimensions == 0 {
        return Ok(Parameter::List(Vec::new()));
    }
    let length = int(&mut rest).ok_or_else(bad)?;
    let _lower = int(&mut rest).ok_or_else(bad)?;
    let length = usize::try_from(length).map_err(|_| bad())?;
    if dimensions != 1 || length > LONGEST_LIST {
        return Err(bad());
    }
    let mut list = Vec::new();
    for _ in 0..length {
        let bytes = int(&mut rest).ok_or_else(bad)?;
        let Ok(bytes) = usize::try_from(bytes) else {
            list.push(Parameter::Null(null(element)));
            continue;
        };
        let (value, tail) = rest.split_at_checked(bytes).ok_or_else(bad)?;
        list.push(from_binary(element, value)?);
        rest = tail;
    }
    Ok(Parameter::List(list))
}
