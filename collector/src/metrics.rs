//! What the collector counts of itself, and the page of it.

mod catalogue;
mod work;

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use headroom_core::exposition::{Form, Metric, Page, Usage};
use headroom_core::metric::TABLES;

pub use catalogue::COLLECTOR;
pub use work::{Doors, Sent, Work};

use crate::http::Door;
use catalogue as c;
use work::{OUTCOMES, Timings};

/// The page of this moment.
pub fn page(door: &Door, form: Form) -> String {
    let mut page = Page::new(form);
    page.family(&c::INFO)
        .sample(&[env!("CARGO_PKG_VERSION")], 1.0);
    ingest(&mut page, door);
    senders(&mut page, door);
    rows(&mut page, door);
    timings(
        &mut page,
        &c::FLUSH,
        &c::FLUSH_FAILURES,
        &door.store.work.flushes,
    );
    timings(
        &mut page,
        &c::MERGE,
        &c::MERGE_FAILURES,
        &door.store.work.merges,
    );
    let mut queries = page.family(&c::QUERIES);
    for (name, counts) in door.doors.all() {
        for (outcome, count) in OUTCOMES.iter().zip(counts) {
            queries.sample(&[name, outcome], count.load(Relaxed) as f64);
        }
    }
    if let Some(sent) = &door.sent {
        remote_write(&mut page, sent);
    }
    usage().write(&mut page, door.started);
    page.finish()
}

fn ingest(page: &mut Page, door: &Door) {
    let counters = &door.counters;
    let numbers: [(&'static Metric, &AtomicU64); 8] = [
        (&c::ACKED_ROWS, &counters.acked_rows),
        (&c::ACKED_BATCHES, &counters.acked_batches),
        (&c::REFUSED_ROWS, &counters.refused_rows),
        (&c::REFUSED_BATCHES, &counters.refused_batches),
        (&c::DUPLICATE_BATCHES, &counters.duplicate_batches),
        (&c::INVALID_BATCHES, &counters.invalid_batches),
        (&c::UNKNOWN_ROWS, &counters.unknown_rows),
        (&c::LATE_ROWS, &counters.late_rows),
    ];
    for (metric, number) in numbers {
        page.single(metric, Some(number.load(Relaxed) as f64));
    }
    let refusing = u8::from(!counters.refusing().is_empty());
    page.single(&c::REFUSING, Some(f64::from(refusing)));
}

fn senders(page: &mut Page, door: &Door) {
    let senders = door.counters.senders.list();
    page.single(&c::AGENTS, Some(senders.len() as f64));
    let mut last = page.family(&c::LAST_BATCH);
    for sender in &senders {
        last.sample(&[&sender.host, &sender.agent_id], sender.last);
    }
}

fn rows(page: &mut Page, door: &Door) {
    let snapshot = door.store.snapshot();
    let (rows, bytes) = snapshot.hot();
    page.single(&c::HOT_ROWS, Some(rows as f64));
    page.single(&c::HOT_BYTES, Some(bytes as f64));
    page.single(&c::LOG_BYTES, Some(door.log_bytes.load(Relaxed) as f64));
    let mut files = page.family(&c::FILES);
    for (table, rows) in TABLES.iter().zip(&snapshot.tables) {
        files.sample(&[table.name], rows.files.len() as f64);
    }
    let mut sizes = page.family(&c::FILE_BYTES);
    for (table, rows) in TABLES.iter().zip(&snapshot.tables) {
        let size: u64 = rows.files.iter().map(|f| f.size).sum();
        sizes.sample(&[table.name], size as f64);
    }
    let quarantined = door.log_quarantined + door.store.quarantined();
    page.single(&c::QUARANTINED, Some(quarantined as f64));
}

fn timings(page: &mut Page, spans: &'static Metric, failures: &'static Metric, work: &Timings) {
    let (counts, sum, failed) = work.read();
    let mut family = page.family(spans);
    let mut below = 0;
    for (le, count) in work::LE.iter().zip(counts) {
        below += count;
        family.part("_bucket", &[], Some(le), below as f64);
    }
    family.part("_sum", &[], None, sum);
    family.part("_count", &[], None, below as f64);
    page.single(failures, Some(failed as f64));
}

fn remote_write(page: &mut Page, sent: &Sent) {
    let mut samples = page.family(&c::RW_SAMPLES);
    for (outcome, number) in sent.samples() {
        samples.sample(&[outcome], number as f64);
    }
    page.single(&c::RW_ROWS, Some(sent.rows.load(Relaxed) as f64));
    page.single(&c::RW_WAITING, Some(sent.waiting.load(Relaxed) as f64));
    page.single(&c::RW_FAILURES, Some(sent.failures.load(Relaxed) as f64));
}

fn usage() -> Usage {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    Usage::of(&read("/proc/self/stat"), &read("/proc/self/status"))
}
