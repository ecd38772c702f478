//! Shortage of memory on this host's kernel: real guests, limits, swap.
#![expect(clippy::expect_used, clippy::print_stdout, reason = "helpers of tests")]

mod squeeze;

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use headroom_agent::probe::AttachPolicy;
use headroom_agent::sampler::{Sampler, SamplerOptions, Window};
use headroom_core::batch::{Chunk, ColumnData};
use headroom_core::rows::EventRow;
use squeeze::{GUEST_BYTES, Group, Guest, Swap, skipped};

/// One test at a time: they share the host's swap and counters.
static ALONE: Mutex<()> = Mutex::new(());

const LIMIT: u64 = 128 << 20;
const SWAP: u64 = 64 << 20;

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
}

impl Story {
    fn add(&mut self, window: Window) {
        self.events.extend(window.events);
        self.chunks.extend(window.more);
    }

    /// The values of a column, of one VM if a name is given.
    fn values(&self, table: &str, vm: Option<&str>, column: &str) -> Vec<i64> {
        let mut values = Vec::new();
        for chunk in self.chunks.iter().filter(|c| c.table.name == table) {
            let at = |name: &str| &chunk.columns[chunk.table.position(name).expect("column")];
            let ColumnData::Int(all) = at(column) else {
                panic!("{column} holds no numbers");
            };
            for (row, value) in all.iter().enumerate() {
                let of_vm = vm.is_none_or(|vm| {
                    matches!(at("vm_name"), ColumnData::Text(names) if names[row].as_deref() == Some(vm))
                });
                values.extend(value.filter(|_| of_vm));
            }
        }
        values
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
        skipped("not root");
        return None;
    }
    let group = Group::new()?;
    let _swap = Swap::new(SWAP)?;
    group.limit(LIMIT);
    let mut sampler = sampler(attach);
    if attach != AttachPolicy::Off
        && let Some(reason) = sampler.degraded()
    {
        return squeeze::skip("bpf", reason);
    }
    let guest = Guest::start(name, &group)?;
    let mut story = Story::default();
    follow(&mut sampler, &mut story, "the guest", |story| {
        !story
            .values("vm_memory", Some(name), "used_bytes")
            .is_empty()
    });
    assert!(story.events.iter().all(|e| !e.kind.starts_with("memory_")));
    guest.go();
    follow(&mut sampler, &mut story, "the kill", |story| {
        story.first("memory_oom_kill", name).is_some()
    });
    println!("pid {}", guest.pid());
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
        swapped > SWAP as i64 / 2 && swapped <= SWAP as i64,
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
    assert!(stored > SWAP as i64 / 2 && compressed < stored);
}

#[test]
fn a_squeezed_guest_climbs_the_ladder_by_files() {
    if let Some(story) = squeezed(AttachPolicy::Off, "squeezed") {
        assert_ladder(&story, "squeezed");
    }
}
