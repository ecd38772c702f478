//! Metrics of the collector itself.

use headroom_core::exposition::Metric;
use headroom_core::exposition::Type::{Counter, Gauge, Histogram, Info};
use headroom_core::metric::Unit::{Bytes, Count, None, Seconds};

macro_rules! metrics {
    ($($id:ident $name:literal $kind:ident $unit:ident [$($label:literal),*] $help:literal;)+) => {
        $(#[doc = $help] pub static $id: Metric = Metric {
            name: $name,
            kind: $kind,
            unit: $unit,
            labels: &[$($label),*],
            help: $help,
        };)+
        /// All metrics of the collector itself.
        pub static COLLECTOR: &[&Metric] = &[$(&$id),+];
    };
}

metrics! {
    INFO "headroom_collector_info" Info None ["version"] "The collector.";
    ACKED_ROWS "headroom_collector_acked_rows_total" Counter Count [] "Rows acked: durable and queryable.";
    ACKED_BATCHES "headroom_collector_acked_batches_total" Counter Count [] "Batches acked, those that came again left out.";
    REFUSED_ROWS "headroom_collector_refused_rows_total" Counter Count [] "Rows of refused batches, each time that they came.";
    REFUSED_BATCHES "headroom_collector_refused_batches_total" Counter Count [] "Batches refused for now; their senders keep them.";
    DUPLICATE_BATCHES "headroom_collector_duplicate_batches_total" Counter Count [] "Batches that came again, acked and not stored.";
    INVALID_BATCHES "headroom_collector_invalid_batches_total" Counter Count [] "Batches refused for ever.";
    UNKNOWN_ROWS "headroom_collector_unknown_rows_total" Counter Count [] "Rows of tables that this build does not know.";
    LATE_ROWS "headroom_collector_late_rows_total" Counter Count [] "Rows that were older than 24 h when they came.";
    REFUSING "headroom_collector_refusing" Gauge Count [] "1 while batches are refused, else 0.";
    AGENTS "headroom_collector_agents" Gauge Count [] "Agents with a batch in the last day, at most 16384.";
    LAST_BATCH "headroom_collector_agent_last_batch_timestamp_seconds" Gauge Seconds ["host", "agent_id"] "When the last batch of the agent was acked, since 1970 UTC.";
    HOT_ROWS "headroom_collector_hot_rows" Gauge Count [] "Rows in memory.";
    HOT_BYTES "headroom_collector_hot_bytes" Gauge Bytes [] "Memory of these.";
    LOG_BYTES "headroom_collector_log_bytes" Gauge Bytes [] "Size of the write-ahead log.";
    FILES "headroom_collector_files" Gauge Count ["table"] "Live Parquet files.";
    FILE_BYTES "headroom_collector_file_bytes" Gauge Bytes ["table"] "Size of these.";
    QUARANTINED "headroom_collector_quarantined_files_total" Counter Count [] "Damaged files and parts of the log that were set aside.";
    FLUSH "headroom_collector_flush_duration_seconds" Histogram Seconds [] "Time of bringing the rows in memory to Parquet.";
    FLUSH_FAILURES "headroom_collector_flush_failures_total" Counter Count [] "Flushes of these that failed in a part; its rows stay in memory and in the log.";
    MERGE "headroom_collector_merge_duration_seconds" Histogram Seconds [] "Time of bringing several Parquet files into one.";
    MERGE_FAILURES "headroom_collector_merge_failures_total" Counter Count [] "Merges of these that failed; the files stay as they were.";
    QUERIES "headroom_collector_queries_total" Counter Count ["door", "outcome"] "Queries by door and outcome: answered, invalid, timeout, memory, busy, failed.";
    RW_SAMPLES "headroom_remote_write_samples_total" Counter Count ["outcome"] "Samples of remote-write: sent, rejected by the receiver, dropped because there was no_room, stale: not newer than what was sent before.";
    RW_ROWS "headroom_remote_write_dropped_rows_total" Counter Count [] "Rows dropped because remote-write did not keep up; their time is missing in the counters sent.";
    RW_WAITING "headroom_remote_write_waiting_requests" Gauge Count [] "Requests of remote-write that wait.";
    RW_FAILURES "headroom_remote_write_failures_total" Counter Count [] "Attempts that failed and are repeated.";
}
