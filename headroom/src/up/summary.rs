//! What `headroom up --for` prints at its end.

use std::path::Path;

use crate::output::{self, Format, say};

const QUESTIONS: &[(&str, &str)] = &[
    (
        "hosts",
        "SELECT host, count(*) AS windows, round(avg(cast(busy_ns AS double) / window_ns), 2) AS busy_threads, \
         max(threads) AS threads, max(vms) AS vms, min(source) AS source FROM hosts GROUP BY host ORDER BY host",
    ),
    (
        "VMs that waited most",
        "SELECT vm_name, host, max(vcpus) AS vcpus, \
         round(100.0 * sum(ready_ns) / sum(window_ns * vcpus), 1) AS ready_pct, \
         round(100.0 * sum(run_ns) / sum(window_ns * vcpus), 1) AS run_pct, \
         round(100.0 * max(ready_max_ratio), 1) AS worst_vcpu_pct \
         FROM vms GROUP BY vm_id, vm_name, host ORDER BY ready_pct DESC LIMIT 10",
    ),
    (
        "recommendations",
        "SELECT made_at, kind, subject, round(confidence, 2) AS confidence, state FROM recommendations ORDER BY made_at DESC LIMIT 10",
    ),
];

/// Prints the summary; what can't be had is said in its place.
pub async fn print(data_dir: &Path) {
    let Some(client) = crate::sql::live(data_dir).await else {
        return output::complain("headroom: no summary: the collector does not answer");
    };
    for (title, sql) in QUESTIONS {
        say(&format!("\n{title}"));
        let shown = match client.sql(sql).await {
            Ok((_, batches)) if batches.iter().all(|b| b.num_rows() == 0) => {
                say("  none");
                Ok(())
            }
            Ok((schema, batches)) => output::print(&schema, &batches, Format::Table),
            Err(error) => Err(error.into()),
        };
        if let Err(error) = shown {
            output::complain(&format!("headroom: {title}: {error:#}"));
        }
    }
}
