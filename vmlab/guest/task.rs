//! Threads as `/proc` shows them, and waiting.

use std::fs;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_setaffinity};

/// Now, µs since 1970 UTC.
pub fn now_us() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// Asks every 5 ms until there is an answer; fails after `limit`.
pub fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut ask: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if Instant::now() > end {
            bail!("waited {limit:?} for {what}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Thread of a process by its exact name.
pub fn by_name(pid: u32, name: &str) -> anyhow::Result<Option<u32>> {
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        let tid = entry?.file_name().to_string_lossy().into_owned();
        let comm = fs::read_to_string(format!("/proc/{pid}/task/{tid}/comm"));
        if comm.is_ok_and(|c| c.trim() == name) {
            return Ok(Some(tid.parse()?));
        }
    }
    Ok(None)
}

/// Time on a CPU and time waiting for one, ns since the thread began.
pub fn schedstat(tid: u32) -> anyhow::Result<(u64, u64)> {
    let text = fs::read_to_string(format!("/proc/{tid}/schedstat"))?;
    let mut fields = text.split_whitespace();
    let mut next = || fields.next().context("schedstat is short");
    Ok((next()?.parse()?, next()?.parse()?))
}

/// Context switches of a thread, those it asked for and the others.
pub fn switches(tid: u32) -> anyhow::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{tid}/status"))?;
    let of = |name: &str| -> anyhow::Result<u64> {
        let value = text.lines().find_map(|line| line.strip_prefix(name));
        Ok(value.with_context(|| name.to_owned())?.trim().parse()?)
    };
    Ok(of("voluntary_ctxt_switches:")? + of("nonvoluntary_ctxt_switches:")?)
}

/// CPU that the thread ran on last.
pub fn processor(tid: u32) -> anyhow::Result<usize> {
    let text = fs::read_to_string(format!("/proc/{tid}/stat"))?;
    // Behind the name, which may hold spaces: the 3rd field is the first.
    let rest = text.rsplit_once(')').context("stat without a name")?.1;
    let field = rest.split_whitespace().nth(39 - 3);
    Ok(field.context("stat is short")?.parse()?)
}

/// Lets a thread run on that CPU only; one that sleeps is there once it wakes.
pub fn pin(tid: u32, cpu: usize) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    let raw = i32::try_from(tid).ok().and_then(Pid::from_raw);
    sched_setaffinity(raw.with_context(|| format!("thread {tid}"))?.into(), &set)
        .with_context(|| format!("put thread {tid} on CPU {cpu}"))
}

/// Lets a thread run on that CPU only, and waits until it has run there.
pub fn put_on(tid: u32, cpu: usize) -> anyhow::Result<()> {
    pin(tid, cpu)?;
    let mut ran_before = None;
    wait_for(
        "a thread to run on its CPU",
        Duration::from_secs(60),
        || {
            if processor(tid)? != cpu {
                return Ok(None);
            }
            let (run, _) = schedstat(tid)?;
            let before = *ran_before.get_or_insert(run);
            Ok((run > before).then_some(()))
        },
    )
}
