//! TCP and interrupts of the host.

use std::path::{Path, PathBuf};

use headroom_core::rows::HostNetRow;

use crate::clock::monotonic_ns;
use crate::files;
use crate::sampler::rows::{Frame, int};

/// Reads `net/snmp` and `stat` once a window.
pub struct HostNet {
    proc: PathBuf,
    base: Reading,
    lost_drops: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Reading {
    at_ns: u64,
    out: Option<u64>,
    again: Option<u64>,
    interrupts: Option<u64>,
    net_rx: Option<u64>,
    net_tx: Option<u64>,
}

impl HostNet {
    /// Starts at the present figures.
    pub fn new(proc: &Path) -> Self {
        Self {
            base: read(proc),
            proc: proc.to_owned(),
            lost_drops: 0,
        }
    }

    /// The row since the last window; `lost_drops` is cumulative.
    pub fn row(&mut self, frame: &Frame<'_>, lost_drops: Option<u64>) -> HostNetRow {
        let now = read(&self.proc);
        let base = std::mem::replace(&mut self.base, now.clone());
        let lost = lost_drops.map(|n| n.saturating_sub(self.lost_drops));
        self.lost_drops = lost_drops.unwrap_or(self.lost_drops);
        HostNetRow {
            ts: frame.ts,
            host: frame.host.to_owned(),
            tap_drops_lost: lost.map(int),
            ..row(&base, &now)
        }
    }
}

fn row(base: &Reading, now: &Reading) -> HostNetRow {
    let by = |figure: fn(&Reading) -> Option<u64>| {
        let (now, then) = (figure(now)?, figure(base)?);
        Some(int(now.saturating_sub(then)))
    };
    let (out, again) = (by(|r| r.out), by(|r| r.again));
    let ratio = |(again, out): (i64, i64)| (out > 0).then(|| again as f64 / out as f64);
    HostNetRow {
        window_ns: int(now.at_ns.saturating_sub(base.at_ns)),
        tcp_segments_out: out,
        tcp_retransmits: again,
        tcp_retransmit_ratio: again.zip(out).and_then(ratio),
        interrupts: by(|r| r.interrupts),
        softirqs_net_rx: by(|r| r.net_rx),
        softirqs_net_tx: by(|r| r.net_tx),
        ..HostNetRow::default()
    }
}

fn read(proc: &Path) -> Reading {
    let text = |path: &str| files::text(proc.join(path)).unwrap_or_default();
    let (snmp, stat) = (text("net/snmp"), text("stat"));
    Reading {
        at_ns: monotonic_ns(),
        out: snmp_tcp(&snmp, "OutSegs"),
        again: snmp_tcp(&snmp, "RetransSegs"),
        interrupts: stat_field(&stat, "intr ", 0),
        // softirq TOTAL HI TIMER NET_TX NET_RX …
        net_tx: stat_field(&stat, "softirq ", 3),
        net_rx: stat_field(&stat, "softirq ", 4),
    }
}

/// A figure of the `Tcp:` pair of lines: names, then values.
fn snmp_tcp(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|l| l.strip_prefix("Tcp: "));
    let (names, values) = (lines.next()?, lines.next()?);
    let at = names.split(' ').position(|n| n == name)?;
    values.split(' ').nth(at)?.parse().ok()
}

fn stat_field(text: &str, line: &str, at: usize) -> Option<u64> {
    let line = text.lines().find_map(|l| l.strip_prefix(line))?;
    line.split(' ').nth(at)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    // Linux 6.18.
    const SNMP: &str = "Ip: Forwarding\nIp: 1\nTcp: RtoAlgorithm RtoMin RtoMax MaxConn ActiveOpens PassiveOpens AttemptFails EstabResets CurrEstab InSegs OutSegs RetransSegs InErrs OutRsts InCsumErrors\nTcp: 1 200 120000 -1 6934 6528 120 4615 0 186948 171766 123 0 3383 0\n";
    const STAT: &str = "cpu  1 2\nintr 8526478 0 0 7\nctxt 5\nsoftirq 4366321 0 587676 8 143871 1364656 0 1111 879771 38 1389190\n";

    #[test]
    fn figures_of_a_kernel() {
        assert_eq!(snmp_tcp(SNMP, "OutSegs"), Some(171_766));
        assert_eq!(snmp_tcp(SNMP, "RetransSegs"), Some(123));
        assert_eq!(snmp_tcp(SNMP, "Absent"), None);
        assert_eq!(stat_field(STAT, "intr ", 0), Some(8_526_478));
        assert_eq!(stat_field(STAT, "softirq ", 3), Some(8));
        assert_eq!(stat_field(STAT, "softirq ", 4), Some(143_871));
    }

    #[test]
    fn ratio_only_of_something() {
        let at = |out, again| Reading {
            at_ns: 1,
            out: Some(out),
            again: Some(again),
            ..Reading::default()
        };
        let r = row(&at(100, 1), &at(300, 11));
        assert_eq!(r.tcp_retransmit_ratio, Some(0.05));
        let r = row(&at(100, 1), &at(100, 1));
        assert_eq!((r.tcp_retransmits, r.tcp_retransmit_ratio), (Some(0), None));
        assert_eq!(r.interrupts, None);
    }

    #[test]
    fn this_host_has_interrupts() {
        let now = read(Path::new("/proc"));
        assert!(now.interrupts.is_some_and(|n| n > 0));
    }
}
