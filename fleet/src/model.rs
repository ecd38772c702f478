//! Hosts, their VMs, and what a window of each looks like.

use headroom_core::hist::Hist;
use headroom_core::rows::{HostRow, VcpuRow, VmRow};

use crate::series::Series;
use crate::share;

/// Sizes of VMs, vCPUs; four on average.
const SIZES: [u32; 5] = [2, 2, 4, 4, 8];
/// Mean time on CPU between two switches, ns.
const SLICE: f64 = 400_000.0;
const MIB: i64 = 1 << 20;

/// What the fleet is like.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Number of hosts.
    pub hosts: u32,
    /// VMs of each.
    pub vms: u32,
    /// CPU threads of each.
    pub threads: u32,
    /// Length of a window, µs.
    pub window_us: i64,
    /// Two fleets of one seed are the same.
    pub seed: u64,
}

/// One host.
#[derive(Clone, Debug)]
pub struct Host {
    /// Its name.
    pub name: String,
    threads: u32,
    window_us: i64,
    vms: Vec<Vm>,
}

#[derive(Clone, Debug)]
struct Vm {
    id: String,
    name: String,
    vcpus: u32,
    series: usize,
    shift: f64,
    seed: u64,
}

/// Rows of one window of one host.
#[derive(Clone, Debug)]
pub struct Window {
    /// One for each vCPU.
    pub vcpus: Vec<VcpuRow>,
    /// One for each VM.
    pub vms: Vec<VmRow>,
    /// The host.
    pub host: HostRow,
}

/// The hosts of a fleet, over `series`.
#[must_use]
pub fn hosts(spec: &Spec, series: &Series) -> Vec<Host> {
    (0..spec.hosts).map(|h| host(spec, series, h)).collect()
}

fn host(spec: &Spec, series: &Series, number: u32) -> Host {
    let name = format!("host-{number:04}");
    let vm = |v: u32| {
        let seed = mix(spec.seed ^ (u64::from(number) << 32 | u64::from(v)));
        let pick =
            |n: usize, salt: u64| usize::try_from(mix(seed ^ salt) % n.max(1) as u64).unwrap_or(0);
        Vm {
            id: format!(
                "{:08x}-{:04x}-4000-8000-{:012x}",
                seed >> 32,
                v & 0xffff,
                seed & 0xffff_ffff_ffff
            ),
            name: format!("vm-{number:04}-{v:03}"),
            vcpus: SIZES[pick(SIZES.len(), 1)],
            series: pick(series.len(), 2),
            shift: unit(mix(seed ^ 3)) * 604_800.0,
            seed,
        }
    };
    Host {
        threads: spec.threads,
        window_us: spec.window_us,
        vms: (0..spec.vms).map(vm).collect(),
        name,
    }
}

impl Host {
    /// The window that ends at `ts`, µs since 1970 UTC.
    #[must_use]
    pub fn window(&self, series: &Series, ts: i64) -> Window {
        let demands = self.demands(series, ts);
        let shares = share::shares(&demands, f64::from(self.threads));
        let load = shares.iter().sum::<f64>() / f64::from(self.threads.max(1));
        let factor = share::wait_per_run(load, self.threads);
        let mut at = demands.iter().zip(&shares);
        let (mut vcpus, mut vms) = (Vec::with_capacity(demands.len()), Vec::new());
        for (n, vm) in (0_i64..).zip(&self.vms) {
            let first = vcpus.len();
            for (number, (demand, share)) in (0..vm.vcpus).zip(&mut at) {
                let excess = demand - share + share * factor;
                vcpus.push(self.vcpu(vm, number, ts, (*share, excess)));
            }
            vms.push(self.vm(vm, n, &vcpus[first..]));
        }
        let host = self.row(ts, &vms);
        Window { vcpus, vms, host }
    }

    /// Demand of each vCPU, 0..=1.
    fn demands(&self, series: &Series, ts: i64) -> Vec<f64> {
        let seconds = seconds(ts);
        let of = |vm: &Vm| {
            let mean = series.at(vm.series, seconds + vm.shift);
            let window = mix(vm.seed ^ ts.unsigned_abs());
            (0..vm.vcpus).map(move |v| {
                let jitter = 0.6 + 0.8 * unit(mix(window ^ u64::from(v)));
                (mean * jitter + 0.002).min(1.0)
            })
        };
        self.vms.iter().flat_map(of).collect()
    }

    fn vcpu(&self, vm: &Vm, vcpu: u32, ts: i64, (share, excess): (f64, f64)) -> VcpuRow {
        let window_ns = self.window_us * 1000;
        let length = seconds(self.window_us) * 1e9;
        let run_ns = whole(length * share).min(window_ns);
        let ready_ns = whole(length * excess).clamp(0, window_ns - run_ns);
        let noise = mix(vm.seed ^ ts.unsigned_abs().rotate_left(17) ^ u64::from(vcpu));
        let switches = whole(length * share / SLICE * (0.5 + unit(noise))).max(1);
        let preempted = ready_ns / 10 * 3;
        VcpuRow {
            ts,
            host: self.name.clone(),
            vm_id: vm.id.clone(),
            vm_name: vm.name.clone(),
            vcpu: vcpu.into(),
            window_ns,
            run_ns,
            ready_ns,
            ready_wake_ns: Some(ready_ns - preempted),
            ready_preempt_ns: Some(preempted),
            throttled_ns: Some(0),
            wait_ns: window_ns - run_ns - ready_ns,
            ready_ratio: ratio(ready_ns, window_ns),
            ready_max_ns: Some((ready_ns / switches * 8).min(ready_ns)),
            ready_hist: Some(waits(ready_ns, switches).encode()),
            switches: Some(switches),
            cpu_migrations: Some(switches / 50),
            node_migrations: Some(switches / 5000),
            tid: 10_000 + i64::from(vcpu),
            source: "tp_btf".into(),
        }
    }

    fn vm(&self, vm: &Vm, number: i64, vcpus: &[VcpuRow]) -> VmRow {
        let sum = |f: fn(&VcpuRow) -> i64| vcpus.iter().map(f).sum::<i64>();
        let sum_of = |f: fn(&VcpuRow) -> Option<i64>| vcpus.iter().map(f).sum::<Option<i64>>();
        let mut hist = Hist::default();
        for waits in vcpus.iter().filter_map(|v| v.ready_hist.as_deref()) {
            hist.merge(&Hist::decode(waits).unwrap_or_default());
        }
        let window_ns = self.window_us * 1000;
        let (run_ns, ready_ns) = (sum(|v| v.run_ns), sum(|v| v.ready_ns));
        VmRow {
            ts: vcpus.first().map_or(0, |v| v.ts),
            host: self.name.clone(),
            vm_id: vm.id.clone(),
            vm_name: vm.name.clone(),
            vcpus: vm.vcpus.into(),
            window_ns,
            run_ns,
            ready_ns,
            ready_wake_ns: sum_of(|v| v.ready_wake_ns),
            ready_preempt_ns: sum_of(|v| v.ready_preempt_ns),
            throttled_ns: Some(0),
            wait_ns: sum(|v| v.wait_ns),
            ready_ratio: ratio(ready_ns, window_ns * i64::from(vm.vcpus)),
            ready_max_ratio: vcpus.iter().map(|v| v.ready_ratio).fold(0.0, f64::max),
            ready_hist: Some(hist.encode()),
            cpu_migrations: sum_of(|v| v.cpu_migrations),
            node_migrations: sum_of(|v| v.node_migrations),
            iothread_run_ns: run_ns / 40,
            iothread_ready_ns: ready_ns / 200,
            emulator_run_ns: run_ns / 90,
            emulator_ready_ns: ready_ns / 400,
            memory_bytes: Some(i64::from(vm.vcpus) * 4096 * MIB),
            tenant: Some(format!("tenant-{}", vm.seed % 8)),
            project: Some(format!("project-{}", vm.seed % 40)),
            vm_type: Some(format!("c{}", vm.vcpus)),
            platform: "openstack".into(),
            pid: 4_000 + number,
            source: "tp_btf".into(),
        }
    }

    fn row(&self, ts: i64, vms: &[VmRow]) -> HostRow {
        let sum = |f: fn(&VmRow) -> i64| vms.iter().map(f).sum::<i64>();
        let window_ns = self.window_us * 1000;
        let capacity = window_ns * i64::from(self.threads);
        let busy = sum(|v| v.run_ns + v.iothread_run_ns + v.emulator_run_ns).min(capacity);
        let memory = i64::from(self.threads) * 8192 * MIB;
        let given = sum(|v| v.memory_bytes.unwrap_or(0));
        HostRow {
            ts,
            host: self.name.clone(),
            window_ns,
            threads: self.threads.into(),
            numa_nodes: 2,
            idle_ns: Some(capacity - busy),
            busy_ns: Some(busy),
            switches: Some(busy / 200_000),
            wakeups: Some(busy / 250_000),
            vms: i64::try_from(vms.len()).unwrap_or(i64::MAX),
            vcpus: sum(|v| v.vcpus),
            vm_run_ns: sum(|v| v.run_ns),
            vm_ready_ns: sum(|v| v.ready_ns),
            psi_cpu_some_ns: Some(sum(|v| v.ready_ns).min(window_ns)),
            memory_bytes: memory,
            memory_available_bytes: Some((memory - given).max(memory / 20)),
            slots_used: Some(sum(|v| v.vcpus + 3)),
            unregistered: 0,
            clock_skews: Some(0),
            spool_dropped_rows: 0,
            kernel: "6.12.0".into(),
            source: "tp_btf".into(),
        }
    }
}

/// Waits that sum to about `ready_ns`: most short, few eight times the mean.
fn waits(ready_ns: i64, switches: i64) -> Hist {
    let mut hist = Hist::default();
    let (n, mean) = (
        switches.unsigned_abs(),
        ready_ns.unsigned_abs() / switches.unsigned_abs().max(1),
    );
    let long = n / 20;
    let short = n / 2;
    for (wait, n) in [
        (mean / 2, short),
        (mean, n - short - long),
        (mean * 4, long),
        (mean * 8, long / 10),
    ] {
        if n > 0 {
            hist.record(wait, n);
        }
    }
    hist
}

fn ratio(part: i64, whole: i64) -> f64 {
    seconds(part) / seconds(whole.max(1))
}

/// µs as s; for what divides one by another, any unit.
#[expect(clippy::cast_precision_loss, reason = "2^53 µs are 285 years")]
pub(crate) fn seconds(us: i64) -> f64 {
    us as f64 / 1e6
}

/// The integer part.
#[expect(clippy::cast_possible_truncation, reason = "saturates, which is meant")]
pub(crate) fn whole(x: f64) -> i64 {
    x as i64
}

/// A number in 0..1 of some bits.
fn unit(bits: u64) -> f64 {
    f64::from(u32::try_from(bits >> 32).unwrap_or(0)) / 4_294_967_296.0
}

/// One step of splitmix64 (Steele et al., OOPSLA 2014): the same for ever,
/// which no generator of a crate promises.
fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fleet(threads: u32, seed: u64) -> Vec<Window> {
        let series = Series::sample();
        let spec = Spec {
            hosts: 2,
            vms: 30,
            threads,
            window_us: 10_000_000,
            seed,
        };
        let at = 1_700_000_000_000_000;
        let hosts = hosts(&spec, &series);
        hosts.iter().map(|h| h.window(&series, at)).collect()
    }

    #[test]
    fn each_window_is_accounted_for_and_the_host_is_not_exceeded() {
        for threads in [4, 64] {
            for window in fleet(threads, 7) {
                for v in &window.vcpus {
                    assert_eq!(v.run_ns + v.ready_ns + v.wait_ns, v.window_ns);
                    assert!(v.run_ns >= 0 && v.ready_ns >= 0 && v.wait_ns >= 0);
                    assert_eq!(
                        v.ready_wake_ns.zip(v.ready_preempt_ns).map(|(a, b)| a + b),
                        Some(v.ready_ns)
                    );
                }
                let run: i64 = window.vcpus.iter().map(|v| v.run_ns).sum();
                assert!(run <= 10_000_000_000 * i64::from(threads));
                assert_eq!(run, window.host.vm_run_ns);
            }
        }
    }

    #[test]
    fn few_cpus_make_vms_wait_and_a_seed_makes_the_fleet() {
        let ready = |threads| fleet(threads, 7)[0].host.vm_ready_ns;
        assert!(ready(4) > 100 * ready(64), "{} {}", ready(4), ready(64));
        assert_eq!(fleet(64, 7)[1].vcpus, fleet(64, 7)[1].vcpus);
        assert_ne!(fleet(64, 7)[1].vcpus, fleet(64, 8)[1].vcpus);
    }
}
