//! Who was where, and when.

use headroom_core::batch::Chunk;

use super::{HOUR, LATER, SECOND, host, open, roll, send, vm, wire};
use crate::tests::harness::T0;

const STAYS: &str = "SELECT host, CAST(valid_from AS VARCHAR) AS a, \
     coalesce(CAST(valid_to AS VARCHAR), 'still') AS b \
     FROM placement WHERE vm_id = 'vm-a' ORDER BY valid_from";

const WANTED: [&str; 3] = [
    "h1 2026-01-01T00:59:00Z 2026-01-01T01:01:00Z",
    "h1 2026-01-01T01:01:40Z 2026-01-01T01:05:00Z",
    "h2 2026-01-01T01:05:00Z still",
];

/// Rows of a printed answer, a blank between the cells.
fn told(table: &str) -> Vec<String> {
    let cells = |line: &str| line.split('|').map(str::trim).collect::<Vec<_>>().join(" ");
    let lines = table.lines().skip(3).filter(|l| l.starts_with('|'));
    lines.map(|l| cells(l).trim().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn stays_follow_a_vm_over_hosts_gaps_and_full_hours() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = open(dir.path()).await;
    // Ends of 10 s windows, `from` and `to` in tens of seconds.
    let at = |from: i64, to: i64| (from + 1..=to).map(|n| T0 + n * 10 * SECOND);
    // On h1 over the full hour with three windows missing; away for four;
    // there again; then on h2, where it stays.
    let first = at(354, 358).chain(at(361, 366)).chain(at(370, 390));
    let mut rows: Vec<_> = first.map(|ts| vm("h1", "vm-a", ts)).collect();
    rows.extend(at(390, 400).map(|ts| vm("h2", "vm-a", ts)));
    rows.extend(at(354, 360).map(|ts| vm("h1", "vm-left", ts)));
    send(&mut opened, 1, &rows);
    let hosts = at(354, 400).flat_map(|ts| [host("h1", ts), host("h2", ts)]);
    let hosts: Vec<_> = hosts.collect();
    opened.push(&wire("a", 1, 2, vec![Chunk::of(&hosts)]));
    assert_eq!(told(&opened.answer(STAYS).await), WANTED, "from memory");
    opened.flush_and_trim().await.unwrap();
    // The first hour alone is rolled up.
    assert!(roll(&opened, T0 + HOUR + 16 * 60 * SECOND).await > 0);
    assert_eq!(told(&opened.answer(STAYS).await), WANTED, "half rolled up");
    roll(&opened, LATER).await;
    assert_eq!(told(&opened.answer(STAYS).await), WANTED, "rolled up");
    let who = "SELECT vm_id FROM placement WHERE host = 'h1' \
        AND valid_from <= TIMESTAMP '2026-01-01T00:59:30Z' \
        AND (valid_to IS NULL OR valid_to > TIMESTAMP '2026-01-01T00:59:30Z') ORDER BY vm_id";
    assert_eq!(told(&opened.answer(who).await), ["vm-a", "vm-left"]);
    let now = "SELECT vm_id, host FROM placement WHERE valid_to IS NULL";
    assert_eq!(told(&opened.answer(now).await), ["vm-a h2"]);
}
