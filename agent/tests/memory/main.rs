//! Shortage of memory on this host's kernel: real guests, limits, swap.
#![expect(clippy::expect_used, clippy::print_stdout, reason = "helpers of tests")]

mod squeeze;

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use headroom_agent::probe::AttachPolicy;
use headroom_agent::sampler::{Sampler, SamplerOptions, Window};
use headroom_core::batch::{Chunk, ColumnData};
use headroom_core::hist::Hist;
use headroom_core::rows::EventRow;
use headroom_tests::require::lacks;
use rustix::time::{ClockId, clock_gettime};
use squeeze::{Fragments, GUEST_BYTES, Group, Guest, Swap};

/// One test at a time: they share the host's swap and counters.
static ALONE: Mutex<()> = Mutex::new(());

/// A size in swap that no guess of an unsqueezed process reaches.
const ENOUGH: u64 = 64 << 20;
const LIMIT: u64 = 128 << 20;
/// Enough for all of the guest: it dies when the test wants it to.
const SWAP: u64 = 384 << 20;

fn sampler(attach: AttachPolicy) -> Sampler {
    Sampler::new(SamplerOptions {
        attach,
        ..SamplerOptions::new("here".into())
    })
}

/// Windows put together: sums of what happened, largest amounts.
#[derive(Default)]
struct Story {
    events: Vec<EventRow>,
    chunks: Vec<Chunk>,
    /// Process of the guest.
    pid: u32,
}

impl Story {
    fn add(&mut self, window: Window) {
        self.events.extend(window.events);
        self.chunks.extend(window.more);
    }

    /// The values of a column, of one VM if a name is given.
    fn values(&self, table: &str, vm: Option<&str>, column: &str) -> Vec<i64> {
        let mut values = Vec::new();
        self.each(table, vm, column, |data, row| match data {
            ColumnData::Int(all) => values.extend(all[row]),
            other => panic!("{column} holds no numbers: {other:?}"),
        });
        values
    }

    /// The sum of a column's histograms.
    fn hist(&self, table: &str, vm: Option<&str>, column: &str) -> Hist {
        let mut sum = Hist::default();
        self.each(table, vm, column, |data, row| match data {
            ColumnData::Bytes(all) => {
                let bytes = all[row].as_deref().unwrap_or_default();
                sum.merge(&Hist::decode(bytes).expect("histogram"));
            }
            other => panic!("{column} holds no histograms: {other:?}"),
        });
        sum
    }

    /// Calls with each cell of a column, of one VM if a name is given.
    fn each(
        &self,
        table: &str,
        vm: Option<&str>,
        column: &str,
        mut call: impl FnMut(&ColumnData, usize),
    ) {
        for chunk in self.chunks.iter().filter(|c| c.table.name == table) {
            let at = |name: &str| &chunk.columns[chunk.table.position(name).expect("column")];
            for row in 0..chunk.rows() {
                let of_vm = vm.is_none_or(|vm| {
                    matches!(at("vm_name"), ColumnData::Text(names) if names[row].as_deref() == Some(vm))
                });
                if of_vm {
                    call(at(column), row);
                }
            }
        }
    }

    fn sum(&self, table: &str, vm: Option<&str>, column: &str) -> i64 {
        self.values(table, vm, column).iter().sum()
    }

    fn max(&self, table: &str, vm: Option<&str>, column: &str) -> i64 {
        let values = self.values(table, vm, column).into_iter().max();
        values.unwrap_or_else(|| panic!("{table}.{column} is unavailable"))
    }

    /// When that first happened to a VM of a name.
    fn first(&self, kind: &str, vm: &str) -> Option<i64> {
        let subject = format!("vm/{vm}@");
        self.events
            .iter()
            .find(|e| e.kind == kind && e.subject.starts_with(&subject))
            .map(|e| e.ts)
    }
}

/// Ticks and windows in a hurry until something is true.
fn follow(sampler: &mut Sampler, story: &mut Story, what: &str, done: impl Fn(&Story) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut n = 0;
    while !done(story) {
        assert!(
            Instant::now() < deadline,
            "waited 60 s for {what}: {:?}",
            story.events
        );
        std::thread::sleep(Duration::from_millis(10));
        sampler.tick();
        n += 1;
        story.add(sampler.window(n));
    }
}

/// A guest that wants more than its limit and all of the swap hold.
fn squeezed(attach: AttachPolicy, name: &str) -> Option<Story> {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    if !rustix::process::geteuid().is_root() {
        lacks("root", "not root");
        return None;
    }
    let group = Group::new()?;
    let _swap = Swap::new(SWAP)?;
    group.limit(LIMIT);
    let mut sampler = sampler(attach);
    if attach != AttachPolicy::Off
        && let Some(reason) = sampler.degraded()
    {
        lacks("bpf", reason);
        return None;
    }
    let guest = Guest::start(name, &group)?;
    let mut story = Story::default();
    follow(&mut sampler, &mut story, "the guest", |story| {
        !story
            .values("vm_memory", Some(name), "used_bytes")
            .is_empty()
    });
    guest.go();
    follow(&mut sampler, &mut story, "swap", |story| {
        story.first("memory_swap", name).is_some()
            && story.first("memory_reclaim", name).is_some()
            && story.max("vm_memory", Some(name), "swapped_bytes") > ENOUGH as i64
    });
    assert_eq!(story.first("memory_oom_kill", name), None);
    group.forbid_swap();
    // A probe tells it before the cgroup has counted it.
    follow(&mut sampler, &mut story, "the kill", |story| {
        story.first("memory_oom_kill", name).is_some()
            && story.sum("vm_memory", Some(name), "oom_kills") > 0
    });
    story.pid = guest.pid();
    for event in story
        .events
        .iter()
        .filter(|e| e.kind.starts_with("memory_"))
    {
        println!(
            "{} {} {}: {}",
            event.ts, event.subject, event.kind, event.detail
        );
    }
    Some(story)
}

fn assert_ladder(story: &Story, name: &str) {
    let step = |kind: &str| {
        story
            .first(kind, name)
            .unwrap_or_else(|| panic!("no {kind}"))
    };
    let (reclaim, swap, kill) = (
        step("memory_reclaim"),
        step("memory_swap"),
        step("memory_oom_kill"),
    );
    assert!(reclaim < swap && swap < kill, "{reclaim} {swap} {kill}");
    let vm = Some(name);
    assert_eq!(story.max("vm_memory", vm, "limit_bytes"), LIMIT as i64);
    assert_eq!(
        story.max("vm_memory", vm, "given_bytes"),
        GUEST_BYTES as i64
    );
    let used = story.max("vm_memory", vm, "used_bytes");
    assert!(
        used > LIMIT as i64 * 9 / 10 && used < LIMIT as i64 * 21 / 20,
        "{used}"
    );
    let swapped = story.max("vm_memory", vm, "swapped_bytes");
    assert!(
        swapped > ENOUGH as i64 && swapped <= GUEST_BYTES as i64 + (64 << 20),
        "{swapped}"
    );
    assert!(story.sum("vm_memory", vm, "limit_hits") > 0);
    assert_eq!(story.sum("vm_memory", vm, "oom_kills"), 1);
    let host = |column| story.sum("host_memory", None, column);
    // A page is the process's swap before it is written, and VmSwap is exact
    // to some dozens of pages a CPU.
    let out = host("swap_out_bytes");
    assert!(out >= swapped - (8 << 20), "{out} {swapped}");
    assert!(host("oom_kills") >= 1);
    let stored = story.max("host_memory", None, "zram_stored_bytes");
    let compressed = story.max("host_memory", None, "zram_compressed_bytes");
    println!(
        "limit hits {} used {used} swapped {swapped} zram {stored} -> {compressed}, PSI of the VM {:?} ns, of the host {} ns",
        story.sum("vm_memory", vm, "limit_hits"),
        story.sum("vm_memory", vm, "psi_memory_some_ns"),
        host("psi_memory_some_ns")
    );
    assert!(stored > ENOUGH as i64 / 2 && compressed < stored);
}

#[test]
fn a_squeezed_guest_climbs_the_ladder_by_files() {
    if let Some(story) = squeezed(AttachPolicy::Off, "squeezed") {
        assert_ladder(&story, "squeezed");
    }
}

/// A guest whose memory is in huge pages and may not swap: the huge page that
/// the limit has no room for falls back to small ones, then comes the kill.
#[test]
fn a_huge_page_beyond_the_limit_falls_back() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let enabled = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
    if !rustix::process::geteuid().is_root() || enabled.is_ok_and(|text| text.contains("[never]")) {
        lacks("root", "not root, or huge pages are switched off");
        return;
    }
    let Some(group) = Group::new() else { return };
    group.limit(LIMIT);
    group.forbid_swap();
    let mut sampler = sampler(AttachPolicy::Off);
    let Some(guest) = Guest::start("huge", &group) else {
        return;
    };
    let mut story = Story::default();
    follow(&mut sampler, &mut story, "the guest", |story| {
        !story
            .values("vm_memory", Some("huge"), "used_bytes")
            .is_empty()
    });
    guest.go();
    follow(&mut sampler, &mut story, "the kill", |story| {
        story.first("memory_oom_kill", "huge").is_some()
    });
    let host = |column| story.sum("host_memory", None, column);
    println!(
        "huge pages {} fallback {} by a limit {}",
        host("thp_fault_alloc"),
        host("thp_fault_fallback"),
        host("thp_fault_fallback_charge")
    );
    assert!(host("thp_fault_alloc") > 10);
    assert!(host("thp_fault_fallback") >= 1);
    assert!(host("thp_fault_fallback_charge") >= 1);
    assert_eq!(story.first("memory_swap", "huge"), None);
}

/// Compaction that a task asks for is a stall of that task, and nobody's VM.
#[test]
fn compaction_of_a_task_is_timed() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut sampler = sampler(AttachPolicy::Auto);
    if let Some(reason) = sampler.degraded() {
        lacks("bpf", reason);
        return;
    }
    let mut story = Story::default();
    sampler.tick();
    story.add(sampler.window(0));
    // Of the thread's own time: on a busy host the call waits as well.
    let ran = || {
        let now = clock_gettime(ClockId::ThreadCPUTime);
        now.tv_sec * 1_000_000_000 + now.tv_nsec
    };
    let began = ran();
    if let Err(error) = std::fs::write("/proc/sys/vm/compact_memory", "1") {
        lacks("compaction", format_args!("compact_memory: {error}"));
        return;
    }
    let took = ran() - began;
    sampler.tick();
    story.add(sampler.window(1));
    let compacted = story.sum("host_memory", None, "compaction_ns");
    let hist = story.hist("host_memory", None, "compaction_hist");
    println!(
        "compacted {compacted} ns of {took} ns in {} zones",
        hist.total()
    );
    assert!(hist.total() >= 1);
    // Nearly all that the call did; others may compact at the same time.
    assert!(compacted > took / 2, "{compacted} of {took}");
}

/// A host whose free memory lies in single pages: a guest that wants huge ones
/// stalls for compaction, or falls back.
#[test]
fn a_fragmented_host_stalls_its_guest() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    if !rustix::process::geteuid().is_root() {
        lacks("root", "not root");
        return;
    }
    let Some(_fragments) = Fragments::new() else {
        return;
    };
    let Some(group) = Group::new() else { return };
    let mut sampler = sampler(AttachPolicy::Auto);
    if let Some(reason) = sampler.degraded() {
        lacks("bpf", reason);
        return;
    }
    let Some(guest) = Guest::start("fragmented", &group) else {
        return;
    };
    let vm = Some("fragmented");
    let mut story = Story::default();
    follow(&mut sampler, &mut story, "the guest", |story| {
        !story.values("vm_memory", vm, "resident_bytes").is_empty()
    });
    guest.go();
    follow(&mut sampler, &mut story, "a stall", |story| {
        story.sum("host_memory", None, "compact_stall") > 0
            && story.sum("host_memory", None, "thp_fault_fallback") > 0
            && story.hist("vm_memory", vm, "compaction_hist").total() > 0
            && story
                .first("memory_compaction_stall", "fragmented")
                .is_some()
    });
    let (ns, hist) = (
        story.sum("vm_memory", vm, "compaction_ns"),
        story.hist("vm_memory", vm, "compaction_hist"),
    );
    println!(
        "compact_stall {} fallback {}; of the VM {ns} ns in {} zones, PSI {:?} ns",
        story.sum("host_memory", None, "compact_stall"),
        story.sum("host_memory", None, "thp_fault_fallback"),
        hist.total(),
        story.sum("vm_memory", vm, "psi_memory_some_ns")
    );
    assert!(ns > 0 && story.sum("host_memory", None, "compaction_ns") >= ns);
}

/// What the probes add: each stall's length, and exact times.
fn by_probes(attach: AttachPolicy, name: &str) {
    let Some(story) = squeezed(attach, name) else {
        return;
    };
    assert_ladder(&story, name);
    let vm = Some(name);
    let kill = story.events.iter().find(|e| e.kind == "memory_oom_kill");
    let kill = kill.expect("a kill");
    let pid = story.pid.to_string();
    assert!(kill.detail.contains(&format!("process {pid} ")), "{kill:?}");
    let stalled = story.sum("vm_memory", vm, "reclaim_ns");
    let host = story.sum("host_memory", None, "reclaim_ns");
    let (hits, hist) = (
        story.sum("vm_memory", vm, "limit_hits"),
        story.hist("vm_memory", vm, "reclaim_hist"),
    );
    println!(
        "reclaim of the VM {stalled} ns in {} stalls (p50 {:?} p99 {:?} ns), of the host {host} ns",
        hist.total(),
        hist.quantile(0.5),
        hist.quantile(0.99)
    );
    assert!(hist.total() > 0 && hist.total() <= u64::try_from(hits).expect("count"));
    assert!(host >= stalled, "the host's tasks are the VM's too");
    // The kernel's own account of the same, by PSI: what a guest of one vCPU
    // stalls in reclaim it stalls for memory. It counts waits for swap as well,
    // and leaves out some of the time in which a task in reclaim waits for a
    // CPU: on a busy host ours was a fifth more.
    let psi = story.values("vm_memory", vm, "psi_memory_some_ns");
    if !psi.is_empty() {
        let psi: i64 = psi.iter().sum();
        assert!(
            stalled <= psi + psi / 2 && stalled > psi / 4,
            "{stalled} {psi}"
        );
    }
    // The middle of each bucket times its count is the sum, within 12.5 %.
    let by_hist: u64 = (hist.counts().iter().enumerate())
        .map(|(bucket, n)| headroom_core::hist::midpoint(bucket) * n)
        .sum();
    let by_hist = i64::try_from(by_hist).expect("ns");
    assert!(
        (by_hist - stalled).abs() <= stalled / 8,
        "{by_hist} {stalled}"
    );
}

#[test]
fn a_squeezed_guest_by_probes() {
    by_probes(AttachPolicy::TpBtf, "probed");
}

#[test]
fn a_squeezed_guest_by_raw_tracepoints() {
    by_probes(AttachPolicy::RawTp, "raw");
}
