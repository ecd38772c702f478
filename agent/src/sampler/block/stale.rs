//! Records of requests that are over although no completion was seen.
//!
//! Measured: of 4000 reads up to 20 fired no `block_rq_complete` on a virtual
//! host (nor `block_io_done`; biolatency missed as many), in interrupts that
//! also ended other requests. The kernel's own count of requests at the device
//! tells which of ours cannot be.

use std::collections::BTreeMap;
use std::path::Path;

use super::device::major_minor;
use crate::files;
use crate::probe::BlockReading;

/// Younger requests come and go between the two counts.
const SURELY_NS: u64 = 1_000_000_000;

/// Leaves the oldest records out where there are more of a second or older
/// than the kernel has requests at that device; how many were left out.
pub fn leave_out(
    reading: &mut BlockReading,
    in_flight: impl Fn(u32) -> Option<u64>,
) -> Option<usize> {
    let at_ns = reading.at_ns;
    let open = reading.open.as_mut()?;
    let old = |issue_ns: u64| issue_ns != 0 && at_ns.saturating_sub(issue_ns) >= SURELY_NS;
    let mut excess: BTreeMap<u32, u64> = BTreeMap::new();
    for request in open.iter().filter(|r| old(r.issue_ns)) {
        *excess.entry(request.key.device).or_default() += 1;
    }
    for (device, count) in &mut excess {
        // A kernel that does not tell leaves ours as they are.
        *count = in_flight(*device).map_or(0, |real| count.saturating_sub(real));
    }
    let before = open.len();
    open.sort_by_key(|r| r.issue_ns);
    open.retain(|request| {
        let rest = excess.get_mut(&request.key.device);
        match rest.filter(|rest| old(request.issue_ns) && **rest > 0) {
            Some(rest) => {
                *rest -= 1;
                false
            }
            None => true,
        }
    });
    Some(before - open.len())
}

/// Requests at a device by the kernel's count: reads and writes.
pub fn in_flight(sys: &Path, device: u32) -> Option<u64> {
    let file = sys
        .join("dev/block")
        .join(major_minor(device))
        .join("inflight");
    let text = files::text(file)?;
    text.split_ascii_whitespace()
        .map(|n| n.parse::<u64>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use headroom_abi::block::{DiskKey, OpenRequest};

    fn open(device: u32, issue_ns: u64) -> OpenRequest {
        OpenRequest {
            start_ns: 1,
            issue_ns,
            key: DiskKey {
                vm: 0,
                device,
                op: 0,
            },
            bytes: 512,
        }
    }

    fn left(in_flight: Option<u64>) -> (Vec<u64>, usize) {
        let mut reading = BlockReading {
            at_ns: 5 * SURELY_NS,
            open: Some(vec![
                open(1, 5 * SURELY_NS - 10),
                open(1, 7),
                open(1, 9),
                open(2, 0),
            ]),
            ..BlockReading::default()
        };
        let out = leave_out(&mut reading, |_| in_flight).unwrap();
        let kept = reading.open.unwrap().iter().map(|r| r.issue_ns).collect();
        (kept, out)
    }

    #[test]
    fn no_more_than_the_kernel_has() {
        let young = 5 * SURELY_NS - 10;
        assert_eq!(left(Some(1)), (vec![0, 9, young], 1));
        assert_eq!(left(Some(0)), (vec![0, young], 2));
        // A request that is stuck indeed is in the kernel's count too.
        assert_eq!(left(Some(3)), (vec![0, 7, 9, young], 0));
        assert_eq!(left(None), (vec![0, 7, 9, young], 0));
    }
}
