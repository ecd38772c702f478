//! Rows of the stored tables, each declared once with units and descriptions.

macro_rules! rust_type {
    (time) => { i64 };
    (int) => { i64 };
    (float) => { f64 };
    (text) => { String };
    (hist) => { Vec<u8> };
    (opt_int) => { Option<i64> };
    (opt_float) => { Option<f64> };
    (opt_text) => { Option<String> };
    (opt_hist) => { Option<Vec<u8>> };
}

macro_rules! kind {
    (time) => {
        (Kind::Time, false)
    };
    (int) => {
        (Kind::Int, false)
    };
    (float) => {
        (Kind::Float, false)
    };
    (text) => {
        (Kind::Text, false)
    };
    (hist) => {
        (Kind::Hist, false)
    };
    (opt_int) => {
        (Kind::Int, true)
    };
    (opt_float) => {
        (Kind::Float, true)
    };
    (opt_text) => {
        (Kind::Text, true)
    };
    (opt_hist) => {
        (Kind::Hist, true)
    };
}

macro_rules! roll {
    () => {
        Roll::Drop
    };
    (key) => {
        Roll::Key
    };
    (sum) => {
        Roll::Sum
    };
    (max) => {
        Roll::Max
    };
    (min) => {
        Roll::Min
    };
    (last) => {
        Roll::Last
    };
    (merge) => {
        Roll::Merge
    };
    (amount) => {
        Roll::Amount
    };
    ($over:ident / $under:ident) => {
        Roll::Ratio {
            over: stringify!($over),
            under: stringify!($under),
            times: None,
        }
    };
    ($over:ident / $under:ident * $times:ident) => {
        Roll::Ratio {
            over: stringify!($over),
            under: stringify!($under),
            times: Some(stringify!($times)),
        }
    };
}

macro_rules! table {
    ($static:ident $name:literal, $row:ident, sort [$($sort:literal),+], $description:literal;
     $($field:ident: $kind:ident $unit:ident $([$($roll:tt)+])? $text:literal;)+) => {
        #[doc = $description]
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct $row {
            $(#[doc = $text] pub $field: rust_type!($kind),)+
        }

        #[doc = concat!("Declaration of table `", $name, "`.")]
        pub static $static: Table = Table {
            name: $name,
            description: $description,
            columns: &[$(Column {
                name: stringify!($field),
                kind: kind!($kind).0,
                nullable: kind!($kind).1,
                unit: Unit::$unit,
                roll: roll!($($($roll)+)?),
                description: $text,
            },)+],
            sort: &[$($sort),+],
        };

        impl Row for $row {
            const TABLE: &'static Table = &$static;
            fn append(&self, columns: &mut [ColumnData]) {
                let mut columns = columns.iter_mut();
                $(if let Some(c) = columns.next() { self.$field.append(c); })+
            }
        }
    };
}

mod advice;
mod block;
mod host;
mod inventory;
mod memory;
mod net;
mod numa;
mod overhead;
mod sched;
mod virtio;

pub use advice::*;
pub use block::*;
pub use host::*;
pub use inventory::*;
pub use memory::*;
pub use net::*;
pub use numa::*;
pub use overhead::*;
pub use sched::*;
pub use virtio::*;
