//! The machine's CPUs as its kernel shows them.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use headroom_vmlab::message::Cpu;

const CPUS: &str = "/sys/devices/system/cpu";

/// All of them, in order.
pub fn read() -> anyhow::Result<Vec<Cpu>> {
    let info = fs::read_to_string("/proc/cpuinfo")?;
    let models = info.lines().filter(|l| l.starts_with("model name"));
    let models = models.filter_map(|l| Some(l.split_once(": ")?.1));
    models.enumerate().map(cpu).collect()
}

fn cpu((cpu, model): (usize, &str)) -> anyhow::Result<Cpu> {
    let dir = Path::new(CPUS).join(format!("cpu{cpu}"));
    let read = |name: &str| {
        let path = dir.join("topology").join(name);
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        anyhow::Ok(text.trim().to_owned())
    };
    // A link beside the files names the node, where the kernel knows nodes.
    let of_node = |n: &usize| dir.join(format!("node{n}")).exists();
    Ok(Cpu {
        cpu,
        socket: read("physical_package_id")?.parse()?,
        node: (0..64).find(of_node).unwrap_or(0),
        siblings: read("thread_siblings_list")?,
        model: model.to_owned(),
    })
}
