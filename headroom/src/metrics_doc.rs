//! `docs/METRICS.md` lists exactly what agent and collector declare.

use std::fmt::Write as _;

use headroom_core::exposition::{Metric, PROCESS};
use headroom_core::series::{HOST_SERIES, VM_SERIES};

fn table(metrics: &[&Metric]) -> String {
    let mut text =
        String::from("| metric | type | unit | labels | meaning |\n|---|---|---|---|---|\n");
    for m in metrics {
        let kind = format!("{:?}", m.kind).to_lowercase();
        let labels = m.labels.join(", ");
        let _ = writeln!(
            text,
            "| `{}` | {kind} | {} | {labels} | {} |",
            m.name,
            m.unit.symbol(),
            m.help
        );
    }
    text
}

#[test]
fn the_document_lists_every_metric() {
    let document = include_str!("../../docs/METRICS.md");
    let of = |all: &'static [headroom_core::series::Series]| -> Vec<&'static Metric> {
        all.iter().map(|s| &s.metric).collect()
    };
    for (what, metrics) in [
        ("VMs", of(VM_SERIES)),
        ("hosts", of(HOST_SERIES)),
        ("the agent", headroom_agent::metrics::AGENT.to_vec()),
        ("the collector", headroom_collector::METRICS.to_vec()),
        ("processes", PROCESS.iter().collect()),
    ] {
        let table = table(&metrics);
        assert!(
            document.contains(&table),
            "docs/METRICS.md: the table of {what} should be:\n\n{table}"
        );
    }
}
