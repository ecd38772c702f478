//! The host's disks, from `/proc/diskstats` (Documentation/admin-guide/iostats.rst)
//! and `/sys/block`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use headroom_core::rows::HostDiskRow;

use super::super::rows::{Frame, int};
use crate::clock::monotonic_ns;
use crate::files;

/// Sectors of these files, whatever the disk's are.
const SECTOR_BYTES: u64 = 512;
const NS_PER_MS: u64 = 1_000_000;

/// Counters of one disk. Times are ms modulo 2^32: the kernel prints them so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counters {
    reads: [u64; 3],
    read_ms: u32,
    writes: [u64; 3],
    write_ms: u32,
    in_flight: u64,
    discards: [u64; 3],
    discard_ms: u32,
    flushes: Option<(u64, u32)>,
}

type Disks = BTreeMap<String, (String, Counters)>;

/// Reads the disks and keeps the last reading.
pub struct DiskStatsReader {
    proc: PathBuf,
    sys: PathBuf,
    base: (u64, Disks),
}

impl DiskStatsReader {
    pub fn new(proc: PathBuf, sys: PathBuf) -> Self {
        let mut reader = Self {
            proc,
            sys,
            base: (0, Disks::new()),
        };
        reader.base = reader.read();
        reader
    }

    /// One row a disk that ever did anything, none for partitions.
    pub fn window(&mut self, frame: &Frame<'_>) -> Vec<HostDiskRow> {
        let now = self.read();
        let base = std::mem::replace(&mut self.base, now);
        let window_ns = self.base.0.saturating_sub(base.0);
        let (numbers, disks) = (&base.1, &self.base.1);
        disks
            .iter()
            .filter(|(_, (_, now))| *now != Counters::default())
            .map(|(name, (major_minor, now))| {
                // A disk of the same name may be another one.
                let same = numbers.get(name).filter(|(then, _)| then == major_minor);
                let then = same.map_or_else(Counters::default, |(_, counters)| *counters);
                HostDiskRow {
                    ts: frame.ts,
                    host: frame.host.to_owned(),
                    device: name.replace('!', "/"),
                    major_minor: major_minor.clone(),
                    ..row(&then, now, window_ns, &self.sys.join("block").join(name))
                }
            })
            .collect()
    }

    fn read(&self) -> (u64, Disks) {
        let text = files::text(self.proc.join("diskstats")).unwrap_or_default();
        let whole = |name: &str| self.sys.join("block").join(name).is_dir();
        let disks = text
            .lines()
            .filter_map(parse)
            .filter(|(name, _)| whole(name));
        (monotonic_ns(), disks.collect())
    }
}

fn row(then: &Counters, now: &Counters, window_ns: u64, dir: &Path) -> HostDiskRow {
    let less = |now: u64, then: u64| now.saturating_sub(then);
    let ns = |now: u32, then: u32| u64::from(now.wrapping_sub(then)) * NS_PER_MS;
    let three = |now: [u64; 3], then: [u64; 3]| {
        let [done, merged, sectors] = [0, 1, 2].map(|i| less(now[i], then[i]));
        (done, merged, sectors * SECTOR_BYTES)
    };
    let (reads, reads_merged, read_bytes) = three(now.reads, then.reads);
    let (writes, writes_merged, write_bytes) = three(now.writes, then.writes);
    let (discards, _, discard_bytes) = three(now.discards, then.discards);
    let read_ns = ns(now.read_ms, then.read_ms);
    let write_ns = ns(now.write_ms, then.write_ms);
    let discard_ns = ns(now.discard_ms, then.discard_ms);
    let then_flushes = then.flushes.unwrap_or_default();
    let flush = now
        .flushes
        .map(|(n, ms)| (less(n, then_flushes.0), ns(ms, then_flushes.1)));
    let (done, time) = (reads + writes + discards, read_ns + write_ns + discard_ns);
    let queue = |file: &str| setting(&dir.join("queue").join(file));
    let number = |text: Option<String>| text?.parse::<i64>().ok();
    HostDiskRow {
        window_ns: int(window_ns),
        reads: int(reads),
        reads_merged: int(reads_merged),
        read_bytes: int(read_bytes),
        read_ns: int(read_ns),
        writes: int(writes),
        writes_merged: int(writes_merged),
        write_bytes: int(write_bytes),
        write_ns: int(write_ns),
        discards: int(discards),
        discard_bytes: int(discard_bytes),
        discard_ns: int(discard_ns),
        flushes: flush.map(|(n, _)| int(n)),
        flush_ns: flush.map(|(_, ns)| int(ns)),
        await_ns: (done > 0).then(|| time as f64 / done as f64),
        in_flight: time as f64 / window_ns.max(1) as f64,
        in_flight_now: int(now.in_flight),
        depth: number(queue("nr_requests")),
        scheduler: queue("scheduler").map(|text| chosen(&text)),
        rotational: number(queue("rotational")),
        write_cache: queue("write_cache"),
        size_bytes: number(setting(&dir.join("size"))).map(|sectors| sectors * 512),
        ..HostDiskRow::default()
    }
}

fn setting(path: &Path) -> Option<String> {
    let text = files::text(path)?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// The one in brackets, or the only one.
fn chosen(text: &str) -> String {
    let marked = text
        .split_once('[')
        .and_then(|(_, rest)| rest.split_once(']'))
        .map(|(name, _)| name);
    marked.unwrap_or(text).to_owned()
}

/// Name, numbers and counters of a line.
fn parse(line: &str) -> Option<(String, (String, Counters))> {
    let mut fields = line.split_ascii_whitespace();
    let (major, minor, name) = (fields.next()?, fields.next()?, fields.next()?);
    let numbers: Vec<u64> = fields.map_while(|f| f.parse().ok()).collect();
    let at = |i: usize| numbers.get(i).copied();
    let three = |i: usize| Some([at(i)?, at(i + 1)?, at(i + 2)?]);
    let ms = |i: usize| u32::try_from(at(i)? & u64::from(u32::MAX)).ok();
    let counters = Counters {
        reads: three(0)?,
        read_ms: ms(3)?,
        writes: three(4)?,
        write_ms: ms(7)?,
        in_flight: at(8)?,
        discards: three(11).unwrap_or_default(),
        discard_ms: ms(14).unwrap_or_default(),
        flushes: at(15).zip(ms(16)),
    };
    Some((name.to_owned(), (format!("{major}:{minor}"), counters)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = " 254       0 vda 2920031 170799 282648858 3997025 420547 351174 154939072 621887 1 295644 4672527 327736 161 103244792 48004 46347 5609";

    #[test]
    fn a_line_of_6_18_and_one_of_4_17() {
        let (name, (numbers, counters)) = parse(LINE).unwrap();
        assert_eq!((name.as_str(), numbers.as_str()), ("vda", "254:0"));
        assert_eq!(counters.writes, [420_547, 351_174, 154_939_072]);
        assert_eq!(counters.discards[2], 103_244_792);
        assert_eq!(
            (counters.in_flight, counters.flushes),
            (1, Some((46_347, 5609)))
        );
        let old = "8 0 sda 1 2 3 4 5 6 7 8 0 9 10";
        assert_eq!(parse(old).unwrap().1.1.flushes, None);
        assert_eq!(parse("8 0 sda 1 2"), None);
    }

    #[test]
    fn times_wrap_as_the_kernel_prints_them() {
        let (mut then, mut now) = (Counters::default(), Counters::default());
        (then.read_ms, now.read_ms) = (u32::MAX - 4, 5);
        now.reads = [2, 0, 16];
        let row = row(&then, &now, 1_000_000_000, Path::new("/nonexistent"));
        assert_eq!((row.read_ns, row.read_bytes), (10_000_000, 8192));
        assert_eq!(row.await_ns, Some(5_000_000.0));
        assert!((row.in_flight - 0.01).abs() < 1e-9);
        assert_eq!((row.depth, row.scheduler, row.flushes), (None, None, None));
    }

    #[test]
    fn the_scheduler_in_brackets() {
        assert_eq!(chosen("none [mq-deadline] kyber bfq"), "mq-deadline");
        assert_eq!(chosen("none"), "none");
    }
}
