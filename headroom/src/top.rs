//! `headroom top`: the VMs of this host, live, without a collector.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use headroom_agent::clock;
use headroom_agent::sampler::{Sampler, SamplerOptions, Window};
use headroom_core::rows::{BlameRow, VmRow};
use serde_json::{Value, json};

use crate::output::{Format, complain, say};

/// Flags of `headroom top`.
#[derive(Args, Debug)]
pub struct TopArgs {
    /// How long; until Ctrl-C when left out on a terminal
    #[arg(long = "for", value_parser = crate::duration)]
    time: Option<Duration>,
    /// Time between two tables
    #[arg(long, default_value = "2s", value_parser = crate::duration)]
    interval: Duration,
    /// Form of the rows
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Shows windows until the time is over.
///
/// # Errors
/// An interval that is too short.
pub async fn run(args: TopArgs) -> anyhow::Result<()> {
    if args.interval < Duration::from_millis(200) {
        bail!("--interval is shorter than 200ms");
    }
    let host = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    let mut sampler = Sampler::new(SamplerOptions::new(host));
    if let Some(reason) = sampler.degraded() {
        complain(&format!("headroom: without BPF, from schedstat: {reason}"));
    }
    sampler.tick();
    let end = args.time.map(|t| Instant::now() + t);
    let mut all = Vec::new();
    while end.is_none_or(|end| Instant::now() < end) {
        tokio::select! {
            () = tokio::time::sleep(args.interval) => {}
            () = crate::interrupted() => break,
        }
        sampler.tick();
        let window = sampler.window(clock::micros(clock::wall()));
        match args.output {
            Format::Table => table(&window),
            Format::Csv => csv(&window, all.is_empty()),
            Format::Ndjson => window
                .vms
                .iter()
                .for_each(|vm| say(&object(vm, &window).to_string())),
            Format::Json => {}
        }
        all.extend(window.vms.iter().map(|vm| object(vm, &window)));
    }
    if args.output == Format::Json {
        say(&serde_json::to_string_pretty(&all).context("print the rows")?);
    }
    Ok(())
}

fn table(window: &Window) {
    let Some(host) = window.hosts.first() else {
        return;
    };
    #[expect(clippy::cast_precision_loss, reason = "ns of one window")]
    let threads = |ns: i64| ns as f64 / host.window_ns as f64;
    say(&format!(
        "\n{}  {} CPU threads, busy {}, {} VMs, {} vCPUs, waiting {:.2}  [{}]",
        host.host,
        host.threads,
        host.busy_ns
            .map_or_else(|| "n/a".into(), |ns| format!("{:.2}", threads(ns))),
        host.vms,
        host.vcpus,
        threads(host.vm_ready_ns),
        host.source,
    ));
    say(&format!(
        "{:<24} {:>5} {:>7} {:>7} {:>12} {:>11} {:>9}  who took it",
        "VM", "vCPUs", "run %", "ready %", "worst vCPU %", "throttled %", "pid"
    ));
    let mut vms: Vec<&VmRow> = window.vms.iter().collect();
    vms.sort_by(|a, b| {
        b.ready_max_ratio
            .total_cmp(&a.ready_max_ratio)
            .then_with(|| a.vm_name.cmp(&b.vm_name))
    });
    for vm in vms {
        say(&format!(
            "{:<24} {:>5} {:>7.1} {:>7.1} {:>12.1} {:>11} {:>9}  {}",
            vm.vm_name,
            vm.vcpus,
            100.0 * run_ratio(vm),
            100.0 * vm.ready_ratio,
            100.0 * vm.ready_max_ratio,
            vm.throttled_ns
                .map_or_else(|| "n/a".into(), |ns| format!("{:.1}", 100.0 * part(ns, vm))),
            vm.pid,
            culprits(vm, &window.blame)
        ));
    }
}

/// The two that had most of the CPU time a VM waited for, with their share of
/// its ready; nothing where it hardly waited.
fn culprits(vm: &VmRow, blame: &[BlameRow]) -> String {
    if vm.ready_ratio < 0.001 {
        return String::new();
    }
    let most: Vec<String> = blame
        .iter()
        .filter(|row| row.vm_id == vm.vm_id && row.culprit_kind != "throttle")
        .take(2)
        .map(|row| format!("{} {:.0} %", row.culprit_name, 100.0 * row.share))
        .collect();
    most.join(", ")
}

fn csv(window: &Window, first: bool) {
    if first {
        say("ts_us,host,vm_id,vm_name,vcpus,run_ratio,ready_ratio,ready_max_ratio,pid,source");
    }
    for vm in &window.vms {
        let name = vm.vm_name.replace('"', "\"\"");
        say(&format!(
            "{},{},{},\"{name}\",{},{:.6},{:.6},{:.6},{},{}",
            vm.ts,
            vm.host,
            vm.vm_id,
            vm.vcpus,
            run_ratio(vm),
            vm.ready_ratio,
            vm.ready_max_ratio,
            vm.pid,
            vm.source
        ));
    }
}

fn object(vm: &VmRow, window: &Window) -> Value {
    let blame = window.blame.iter().filter(|row| row.vm_id == vm.vm_id);
    let blame: Vec<Value> = blame
        .map(|row| {
            json!({
                "kind": row.culprit_kind, "culprit": row.culprit, "name": row.culprit_name,
                "blame_ns": row.blame_ns, "share": row.share,
            })
        })
        .collect();
    let vcpus = window.vcpus.iter().filter(|row| row.vm_id == vm.vm_id);
    let states: Vec<Value> = vcpus
        .map(|row| {
            json!({
                "vcpu": row.vcpu, "run_ns": row.run_ns, "ready_ns": row.ready_ns,
                "throttled_ns": row.throttled_ns, "wait_ns": row.wait_ns,
            })
        })
        .collect();
    json!({
        "ts_us": vm.ts, "host": vm.host, "vm_id": vm.vm_id, "vm_name": vm.vm_name, "vcpus": vm.vcpus,
        "window_ns": vm.window_ns, "run_ns": vm.run_ns, "ready_ns": vm.ready_ns, "wait_ns": vm.wait_ns,
        "throttled_ns": vm.throttled_ns, "blame": blame, "vcpu_states": states,
        "run_ratio": run_ratio(vm), "ready_ratio": vm.ready_ratio, "ready_max_ratio": vm.ready_max_ratio,
        "pid": vm.pid, "source": vm.source,
    })
}

/// Share of the provisioned time.
#[expect(
    clippy::cast_precision_loss,
    reason = "ns of one window: below 2^53 for 100 vCPU-days"
)]
fn part(ns: i64, vm: &VmRow) -> f64 {
    ns as f64 / (vm.window_ns * vm.vcpus).max(1) as f64
}

fn run_ratio(vm: &VmRow) -> f64 {
    part(vm.run_ns, vm)
}
