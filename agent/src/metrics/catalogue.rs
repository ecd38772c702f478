//! Metrics of the agent itself.

use headroom_core::exposition::Metric;
use headroom_core::exposition::Type::{self, Counter, Gauge, Info};
use headroom_core::metric::Unit::{self, Bytes, Count, None, Seconds};

/// All of them.
pub static AGENT: &[&Metric] = &[
    &INFO,
    &PROBE_UP,
    &WINDOWS,
    &MISSED,
    &LAST_WINDOW,
    &MADE_ROWS,
    &ACKED_ROWS,
    &DROPPED_ROWS,
    &WAITING_ROWS,
    &WAITING_BATCHES,
    &BUFFER_BYTES,
    &SPOOL_BYTES,
    &SPOOL_UP,
    &SPOOL_FAILURES,
];

const fn metric(
    name: &'static str,
    kind: Type,
    unit: Unit,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric {
        name,
        kind,
        unit,
        labels,
        help,
    }
}

macro_rules! metrics {
    ($($id:ident $name:literal $kind:ident $unit:ident [$($label:literal),*] $help:literal;)+) => {
        $(#[doc = $help] pub static $id: Metric = metric($name, $kind, $unit, &[$($label),*], $help);)+
    };
}

metrics! {
    INFO "headroom_agent_info" Info None ["host", "agent_id", "source", "version"] "The agent, and what measures its CPUs: tp_btf, raw_tp or schedstat.";
    PROBE_UP "headroom_probe_up" Gauge Count ["host", "family", "reason"] "1 if the family of probes measures, else 0; the reason says what it lacks.";
    WINDOWS "headroom_agent_windows_total" Counter Count [] "Windows closed.";
    MISSED "headroom_agent_missed_windows_total" Counter Count [] "Windows that were not closed in their time; theirs is in the next one.";
    LAST_WINDOW "headroom_agent_last_window_timestamp_seconds" Gauge Seconds [] "End of the last window, since 1970 UTC.";
    MADE_ROWS "headroom_agent_rows_total" Counter Count [] "Rows made and handed to the sender.";
    ACKED_ROWS "headroom_agent_acked_rows_total" Counter Count [] "Rows that the collector acked.";
    DROPPED_ROWS "headroom_agent_dropped_rows_total" Counter Count ["cause"] "Rows lost: no_room in the spool (since the spool was made), rejected by the collector for ever, damaged on the disk.";
    WAITING_ROWS "headroom_agent_waiting_rows" Gauge Count [] "Rows that wait for their ack, in memory and on the disk.";
    WAITING_BATCHES "headroom_agent_waiting_batches" Gauge Count [] "Batches of these.";
    BUFFER_BYTES "headroom_agent_buffer_bytes" Gauge Bytes [] "Memory of batches that wait.";
    SPOOL_BYTES "headroom_agent_spool_bytes" Gauge Bytes [] "Size of the spool's files.";
    SPOOL_UP "headroom_agent_spool_up" Gauge Count [] "1 if the spool can be written, else 0: then batches are in memory only.";
    SPOOL_FAILURES "headroom_agent_spool_failures_total" Counter Count [] "Operations of the spool that failed.";
}
