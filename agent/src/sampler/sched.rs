//! What the scheduler's family tells beside the rows of vCPUs and VMs.

use headroom_core::batch::Chunk;
use headroom_core::rows::{VcpuMovesRow, VmConcurrencyRow};

use super::blame::Victim;
use super::rows::{Frame, count, int};
use super::track::VmDelta;
use crate::discover::Vm;

/// One VM's window.
pub struct Sched<'a> {
    delta: &'a VmDelta,
    /// For the rows of who had its CPUs; `None` where no probe looked.
    pub victim: Option<Victim>,
}

impl<'a> Sched<'a> {
    /// Of a window's deltas.
    pub fn of(delta: &'a VmDelta) -> Self {
        Self {
            victim: victim(delta),
            delta,
        }
    }

    /// How many vCPUs wanted to run at once, and their moves.
    pub fn rows(&self, frame: &Frame<'_>, vm: &Vm) -> [Chunk; 2] {
        let concurrency: Vec<VmConcurrencyRow> = self
            .delta
            .concurrency
            .iter()
            .map(|(active, time_ns)| VmConcurrencyRow {
                ts: frame.ts,
                host: frame.host.to_owned(),
                vm_id: vm.id.clone(),
                vm_name: vm.info.name.clone(),
                vcpus: count(self.delta.vcpus.len()),
                active: count(*active),
                time_ns: int(*time_ns),
            })
            .collect();
        let moves = |(n, vcpu): (&u32, &super::track::VcpuDelta)| {
            let detail = vcpu.delta.detail.as_ref()?;
            let moved = detail.cpu_migrations + detail.numa_moves.unwrap_or(0) > 0;
            moved.then(|| VcpuMovesRow {
                ts: frame.ts,
                host: frame.host.to_owned(),
                vm_id: vm.id.clone(),
                vm_name: vm.info.name.clone(),
                vcpu: i64::from(*n),
                cpu_migrations: int(detail.cpu_migrations),
                node_migrations: detail.node_migrations.map(int),
                balancer_moves: detail.numa_moves.map(int),
            })
        };
        let moves: Vec<VcpuMovesRow> = self.delta.vcpus.iter().filter_map(moves).collect();
        [Chunk::of(&concurrency), Chunk::of(&moves)]
    }
}

fn victim(delta: &VmDelta) -> Option<Victim> {
    let mut victim = Victim::default();
    for vcpu in delta.vcpus.values() {
        let detail = vcpu.delta.detail.as_ref()?;
        victim.window_ns = victim.window_ns.max(vcpu.delta.window_ns);
        victim.ready_ns += vcpu.delta.ready_ns;
        victim.throttled_ns += vcpu.delta.throttled_ns.unwrap_or(0);
        for (sum, ns) in victim.kinds.iter_mut().zip(detail.blame_ns) {
            *sum += ns;
        }
        if detail.host_pid != 0 {
            victim.host_pid = detail.host_pid;
        }
    }
    (victim.window_ns > 0).then_some(victim)
}
