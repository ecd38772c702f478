//! This process and its children before all others, so that other load of the
//! machine does not bend the measure.

use std::fs;
use std::path::{Path, PathBuf};

use crate::wait;

/// Membership of a CPU cgroup with the largest weight; ends when dropped.
pub struct Weight {
    dir: PathBuf,
    home: PathBuf,
}

impl Weight {
    /// `None` where no CPU controller is writable.
    pub fn heaviest() -> Option<Self> {
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let tries = [
            ("cpu", "/sys/fs/cgroup/cpu", "cpu.shares", "262144"),
            ("", "/sys/fs/cgroup", "cpu.weight", "10000"),
        ];
        for (controller, root, file, weight) in tries {
            let path = groups.lines().find_map(|line| {
                let mut parts = line.splitn(3, ':').skip(1);
                let mut names = parts.next()?.split(',');
                names.any(|name| name == controller).then(|| parts.next())?
            });
            let Some(path) = path else { continue };
            let home = Path::new(root).join(path.trim_start_matches('/'));
            let dir = Path::new(root).join(format!("headroom-soak-{}", std::process::id()));
            if fs::create_dir(&dir).is_err() {
                continue;
            }
            let made = Self { dir, home };
            let ready = made.dir.join(file).exists()
                && fs::write(made.dir.join(file), weight).is_ok()
                && enter(&made.dir);
            if ready {
                return Some(made);
            }
        }
        println!("note: no writable CPU cgroup, other load may bend the figures");
        None
    }
}

impl Drop for Weight {
    fn drop(&mut self) {
        enter(&self.home);
        if !std::thread::panicking() {
            // The kernel needs a moment after the last process is gone.
            wait("an empty cgroup", || fs::remove_dir(&self.dir).is_ok());
        }
        let _ = fs::remove_dir(&self.dir);
    }
}

fn enter(dir: &Path) -> bool {
    fs::write(dir.join("cgroup.procs"), std::process::id().to_string()).is_ok()
}
