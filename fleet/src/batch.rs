//! Windows as batches of an agent, encoded once.

use bytes::Bytes;
use headroom_core::batch::{Batch, Chunk, ColumnData};
use headroom_core::metric::{Kind, SCHEMA_VERSION};
use headroom_proto::convert;
use prost::Message as _;

use crate::model::{Host, Window};
use crate::series::Series;

/// Numbers that name a row or its thread instead of measuring something.
const NAMES: [&str; 3] = ["vcpu", "tid", "pid"];

/// Which rows a batch holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `vcpus`, `vms` and `hosts` with their histograms, as of an agent with
    /// attached probes.
    Full,
    /// `vcpus` alone, without its histogram: 12 samples a row.
    Twelve,
}

/// One batch, ready to be sent.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// Host that it speaks of.
    pub host: String,
    /// Start of the sender, µs since 1970 UTC.
    pub epoch: u64,
    /// 1, 2, 3 … within the epoch.
    pub seq: u64,
    /// End of its window, µs since 1970 UTC.
    pub ts: i64,
    /// Rows by table.
    pub rows: Vec<(&'static str, u64)>,
    /// Samples in them: numbers that are there and measure something, a
    /// histogram counted as one. Times, texts and those in `NAMES` are none.
    pub samples: u64,
    /// The message.
    pub bytes: Bytes,
}

impl Encoded {
    /// Rows in all tables.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.rows.iter().map(|(_, n)| n).sum()
    }
}

/// The batch of one window of a host, whose agent has the host's name as id.
#[must_use]
pub fn encode(
    host: &Host,
    series: &Series,
    (epoch, seq): (u64, u64),
    ts: i64,
    shape: Shape,
) -> Encoded {
    let chunks = chunks(host.window(series, ts), shape);
    let batch = Batch {
        agent_id: host.name.clone(),
        host: host.name.clone(),
        epoch,
        seq,
        made_at_us: ts,
        schema_version: SCHEMA_VERSION,
        chunks,
    };
    let count = |c: &Chunk| (c.table.name, c.rows() as u64);
    Encoded {
        host: host.name.clone(),
        epoch,
        seq,
        ts,
        rows: batch.chunks.iter().map(count).collect(),
        samples: batch.chunks.iter().map(samples).sum(),
        bytes: convert::to_wire(&batch).encode_to_vec().into(),
    }
}

fn chunks(mut window: Window, shape: Shape) -> Vec<Chunk> {
    match shape {
        Shape::Full => vec![
            Chunk::of(&window.vcpus),
            Chunk::of(&window.vms),
            Chunk::of(&[window.host]),
        ],
        Shape::Twelve => {
            window.vcpus.iter_mut().for_each(|v| v.ready_hist = None);
            vec![Chunk::of(&window.vcpus)]
        }
    }
}

fn samples(chunk: &Chunk) -> u64 {
    let columns = chunk.table.columns.iter().zip(&chunk.columns);
    let measured = columns.filter(|(c, _)| {
        matches!(c.kind, Kind::Int | Kind::Float | Kind::Hist) && !NAMES.contains(&c.name)
    });
    measured.map(|(_, data)| there(data)).sum()
}

fn there(data: &ColumnData) -> u64 {
    let n = match data {
        ColumnData::Int(v) => v.iter().flatten().count(),
        ColumnData::Float(v) => v.iter().flatten().count(),
        ColumnData::Text(v) => v.iter().flatten().count(),
        ColumnData::Bytes(v) => v.iter().flatten().count(),
    };
    n as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Spec, hosts};

    #[test]
    fn the_rows_of_twelve_have_twelve_samples() {
        let series = Series::sample();
        let spec = Spec {
            hosts: 1,
            vms: 5,
            threads: 8,
            window_us: 10_000_000,
            seed: 1,
        };
        let host = &hosts(&spec, &series)[0];
        let plain = encode(host, &series, (1, 1), 1_700_000_000_000_000, Shape::Twelve);
        assert_eq!(plain.samples, 12 * plain.total());
        let full = encode(host, &series, (1, 1), 1_700_000_000_000_000, Shape::Full);
        assert!(full.samples > plain.samples && full.rows.len() == 3);
        let wire = headroom_proto::v1::Batch::decode(full.bytes.clone());
        assert!(wire.is_ok_and(|b| convert::from_wire(&b).is_ok()));
    }
}
