//! Where the hierarchies of cgroups are mounted.

use std::path::PathBuf;

use super::{Controller, lines, names};

/// Version of a hierarchy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// `memory.usage_in_bytes` and so on.
    V1,
    /// `memory.current` and so on.
    V2,
}

/// A mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where.
    point: PathBuf,
    /// The part of it that is mounted, `/` for all.
    root: String,
    pub version: Version,
}

/// Hierarchies of this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mounts {
    /// Of version 1, with their controllers.
    v1: Vec<(String, Mount)>,
    v2: Option<Mount>,
}

impl Controller {
    /// Its name in version 1.
    const fn v1(self) -> Option<&'static str> {
        match self {
            Self::Memory => Some("memory"),
            Self::Hugetlb => Some("hugetlb"),
            Self::Block => Some("blkio"),
            Self::Pressure => None,
        }
    }
}

impl Mounts {
    /// Those in `mountinfo` (Documentation/filesystems/proc.rst, 3.5).
    pub fn parse(mountinfo: &str) -> Self {
        let mut found = Self::default();
        for line in mountinfo.lines() {
            let Some((place, fs)) = line.split_once(" - ") else {
                continue;
            };
            let mut place = place.split(' ').skip(3);
            let (Some(root), Some(point)) = (place.next(), place.next()) else {
                continue;
            };
            let mount = |version| Mount {
                point: point.into(),
                root: root.trim_end_matches('/').into(),
                version,
            };
            let mut fs = fs.split(' ');
            let (kind, options) = (fs.next(), fs.nth(1).unwrap_or_default());
            match kind {
                Some("cgroup") => found.v1.push((options.to_owned(), mount(Version::V1))),
                // The first of several mounts of one hierarchy does.
                Some("cgroup2") if found.v2.is_none() => found.v2 = Some(mount(Version::V2)),
                _ => {}
            }
        }
        found
    }

    /// The hierarchy of a controller, and the path in it of the process whose
    /// `/proc/<pid>/cgroup` this is.
    pub fn place<'a>(&self, controller: Controller, text: &'a str) -> Option<(&Mount, &'a str)> {
        let path_of = |wanted: &dyn Fn(&str) -> bool| {
            let found = lines(text).find(|(controllers, _)| wanted(controllers));
            found.map(|(_, path)| path)
        };
        let v1 = controller.v1().and_then(|name| {
            let (_, mount) = self.v1.iter().find(|(options, _)| names(options, name))?;
            Some((mount, name))
        });
        match v1 {
            Some((mount, name)) => Some((mount, path_of(&|list| names(list, name))?)),
            None => Some((self.v2.as_ref()?, path_of(&str::is_empty)?)),
        }
    }
}

impl Mount {
    /// Directory of a group; `None` for the hierarchy's root, and for a group
    /// outside of the mounted part, as a container sees its host's.
    pub fn dir(&self, path: &str) -> Option<PathBuf> {
        let inside = path.strip_prefix(&self.root)?.strip_prefix('/')?;
        if inside.is_empty() || inside.split('/').any(|part| part == "..") {
            return None;
        }
        Some(self.point.join(inside))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "24 1 0:20 / /proc rw,nosuid shared:5 - proc proc rw
30 25 0:26 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
31 25 0:27 / /sys/fs/cgroup/blkio rw,nosuid - cgroup cgroup rw,blkio
32 25 0:28 / /sys/fs/cgroup/unified rw,relatime shared:11 - cgroup2 cgroup2 rw,nsdelegate
33 25 0:28 /other /mnt/part rw - cgroup2 cgroup2 rw
";
    const PROCESS: &str = "8:pids:/\n7:blkio,io:/machine/vm1\n4:memory:/qemu/100\n1:name=systemd:/x\n0::/machine.slice/vm1.scope (deleted)\n";

    #[test]
    fn a_hierarchy_each_controller() {
        let mounts = Mounts::parse(HYBRID);
        let dir = |controller| {
            let (mount, path) = mounts.place(controller, PROCESS)?;
            Some((mount.dir(path)?.to_str()?.to_owned(), mount.version))
        };
        let v1 = |path: &str| Some((format!("/sys/fs/cgroup/{path}"), Version::V1));
        assert_eq!(dir(Controller::Memory), v1("memory/qemu/100"));
        assert_eq!(dir(Controller::Block), v1("blkio/machine/vm1"));
        let v2 = Some((
            "/sys/fs/cgroup/unified/machine.slice/vm1.scope".to_owned(),
            Version::V2,
        ));
        // No hierarchy of version 1 has it.
        assert_eq!(dir(Controller::Hugetlb), v2);
        assert_eq!(dir(Controller::Pressure), v2);
        assert!(mounts.place(Controller::Memory, "0::/x\n").is_none());
        let none = Mounts::parse("22 1 254:0 / / rw - ext4 /dev/vda rw");
        assert_eq!(none, Mounts::default());
        assert!(none.place(Controller::Block, PROCESS).is_none());
    }

    #[test]
    fn a_part_of_a_hierarchy_may_be_mounted() {
        let line = "9 1 0:1 /pods/agent /sys/fs/cgroup ro - cgroup2 cgroup rw\n";
        let mount = Mounts::parse(line).v2.unwrap();
        assert_eq!(
            mount.dir("/pods/agent/vm"),
            Some("/sys/fs/cgroup/vm".into())
        );
        for outside in [
            "/pods/other",
            "/pods/agent",
            "/pods/agents/a",
            "/../../x",
            "/",
        ] {
            assert_eq!(mount.dir(outside), None, "{outside}");
        }
    }
}
