//! Names of disks and operations.

use std::collections::BTreeMap;
use std::path::Path;

use headroom_abi::block::op;

use crate::files;

/// Names by number, each asked once.
pub struct Names<'a> {
    sys: &'a Path,
    known: BTreeMap<u32, String>,
}

impl<'a> Names<'a> {
    pub const fn new(sys: &'a Path) -> Self {
        Self {
            sys,
            known: BTreeMap::new(),
        }
    }

    /// Such as `vda`; its numbers for a disk that is gone.
    pub fn of(&mut self, device: u32) -> String {
        let sys = self.sys;
        self.known
            .entry(device)
            .or_insert_with(|| {
                let numbers = major_minor(device);
                let file = sys.join("dev/block").join(&numbers).join("uevent");
                let text = files::text(file).unwrap_or_default();
                let name = text.lines().find_map(|l| l.strip_prefix("DEVNAME="));
                name.map_or(numbers, str::to_owned)
            })
            .clone()
    }
}

/// `MAJOR:MINOR` of a `dev_t` as the kernel keeps it (include/linux/kdev_t.h).
pub fn major_minor(device: u32) -> String {
    format!("{}:{}", device >> 20, device & 0xf_ffff)
}

/// Name of one of [`op`].
pub const fn op(number: u32) -> &'static str {
    match number {
        op::READ => "read",
        op::WRITE => "write",
        op::FLUSH => "flush",
        op::DISCARD => "discard",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_is_gone_keeps_its_numbers() {
        let mut names = Names::new(Path::new("/nonexistent"));
        assert_eq!(names.of(254 << 20 | 16), "254:16");
        assert_eq!(op(op::DISCARD), "discard");
    }
}
