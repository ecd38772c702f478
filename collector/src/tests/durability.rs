//! Ends of the process, full disks and damaged files.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::harness::*;
use crate::config::Raw;
use headroom_proto::v1;

/// Variable that turns [`child`] into a collector on that directory.
const CHILD_DIR: &str = "HEADROOM_TEST_COLLECTOR_DIR";

/// Not a test: the process that the tests below kill.
#[tokio::test(flavor = "multi_thread")]
async fn child() {
    if let Ok(dir) = std::env::var(CHILD_DIR) {
        let raw = Raw {
            flush: "100ms".into(),
            segment_size: "64 KiB".into(),
            ..raw(Path::new(&dir))
        };
        crate::run(raw.validate().unwrap(), std::future::pending())
            .await
            .unwrap();
    }
}

fn spawn(dir: &Path, abort_at: Option<crate::store::Step>) -> Child {
    let _ = std::fs::remove_file(dir.join("endpoint"));
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "tests::durability::child", "--test-threads=1"])
        .env(CHILD_DIR, dir);
    if let Some(step) = abort_at {
        command.env("HEADROOM_TEST_ABORT_AT", format!("{step:?}"));
    }
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Sends batches until the connection breaks or `enough` were acked; gives
/// the last one acked.
async fn push_until_broken(dir: &Path, acked: u64, enough: u64) -> u64 {
    let mut sender = Sender::connect(&endpoint(dir).await).await;
    let mut last = acked;
    // Several on their way at any time, so that the end hits some.
    for seq in acked + 1..=acked + 8 {
        sender.send(&batch("a", 1, seq, 3)).await;
    }
    while last < acked + enough {
        let Some(ack) = sender.next_ack().await else {
            return last;
        };
        assert_eq!((ack.refused.as_str(), ack.seq), ("", last + 1));
        last = ack.seq;
        if sender.offer(&batch("a", 1, last + 8, 3)).await.is_none() {
            return last;
        }
    }
    last
}

/// Every acked batch is there, once, whole.
async fn check(dir: &Path, acked: u64) {
    let collector = Collector::start(raw(dir)).await;
    let events = collector.number("SELECT count(*) FROM events").await;
    let distinct = collector
        .number("SELECT count(DISTINCT subject) FROM events")
        .await;
    assert_eq!(events, distinct, "a batch is there twice");
    assert_eq!(
        collector.number("SELECT count(*) FROM vcpus").await,
        3 * events
    );
    let lost = format!(
        "SELECT {acked} - count(*) FROM events WHERE CAST(split_part(subject, '/', 3) AS BIGINT) <= {acked}"
    );
    assert_eq!(collector.number(&lost).await, 0, "acked batches are lost");
    assert_eq!(
        collector.client().await.status().await.unwrap().quarantined,
        0
    );
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_under_load_ten_times_loses_and_doubles_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut acked = 0;
    let mut slowest = Duration::ZERO;
    for round in 0..10 {
        let began = Instant::now();
        let mut child = spawn(dir.path(), None);
        endpoint(dir.path()).await;
        slowest = slowest.max(began.elapsed());
        acked = push_until_broken(dir.path(), acked, 20 + 7 * round).await;
        // SIGKILL, in the middle of what is on its way.
        child.kill().unwrap();
        child.wait().unwrap();
    }
    println!("acked {acked} batches over 10 kills, slowest start {slowest:?}");
    check(dir.path(), acked).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn abort_at_each_step_of_a_flush_loses_and_doubles_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut acked = 0;
    for step in crate::store::tests::STEPS {
        let mut child = spawn(dir.path(), Some(step));
        // The flush after 100 ms ends it.
        acked = push_until_broken(dir.path(), acked, u64::MAX >> 1).await;
        assert!(!child.wait().unwrap().success(), "{step:?}");
    }
    assert!(acked > 0);
    check(dir.path(), acked).await;
}

/// A small file system of its own.
struct SmallDisk {
    dir: PathBuf,
    _under: tempfile::TempDir,
}

impl SmallDisk {
    fn mount(mib: u32) -> Result<Self, String> {
        let under = tempfile::tempdir().unwrap();
        let dir = under.path().join("disk");
        std::fs::create_dir(&dir).unwrap();
        let output = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"])
            .arg(&dir)
            .output();
        match output {
            Ok(o) if o.status.success() => Ok(Self { dir, _under: under }),
            Ok(o) => Err(String::from_utf8_lossy(&o.stderr).trim().to_string()),
            Err(e) => Err(e.to_string()),
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.dir).status();
    }
}

/// Tries again, in order, until all are acked, as an agent does.
async fn deliver(collector: &Collector, batches: &[v1::Batch]) -> u64 {
    let mut sender = collector.sender().await;
    let mut refused = 0;
    let began = Instant::now();
    let mut open: Vec<&v1::Batch> = batches.iter().collect();
    while !open.is_empty() {
        assert!(
            began.elapsed() < PATIENCE,
            "{} batches still refused",
            open.len()
        );
        let mut left = Vec::new();
        for group in open.chunks(16) {
            for b in group {
                sender.send(b).await;
            }
            for b in group {
                let ack = sender.ack().await;
                assert_eq!(ack.seq, b.seq);
                if !ack.refused.is_empty() {
                    assert!(ack.retry_after_ms > 0, "{}", ack.refused);
                    refused += 1;
                    left.push(*b);
                }
            }
        }
        open = left;
        if !open.is_empty() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    refused
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_and_resumes_and_loses_nothing() {
    let disk = match SmallDisk::mount(8) {
        Ok(disk) => disk,
        Err(reason) => return skip("mount", &format!("no small file system to fill: {reason}")),
    };
    let raw = Raw {
        flush: "300ms".into(),
        segment_size: "64 KiB".into(),
        ..raw(&disk.dir)
    };
    let collector = Collector::start(raw).await;
    let mut sender = collector.sender().await;
    sender.push_all(&batches("a", 1..=20, 3)).await;
    let filler = disk.dir.join("filler");
    fill(&filler);
    let mut acked = BTreeSet::new();
    let mut seq = 21;
    let began = Instant::now();
    // A sender that goes on until it is refused.
    let refusal = loop {
        assert!(began.elapsed() < PATIENCE, "never refused");
        let ack = sender.push(&batch("a", 1, seq, 50)).await;
        if !ack.refused.is_empty() {
            break ack;
        }
        acked.insert(seq);
        seq += 1;
        fill(&filler);
    };
    assert!(refusal.retry_after_ms > 0);
    assert!(
        refusal.refused.contains("log can't be written"),
        "{}",
        refusal.refused
    );
    // It lives, answers, and says so.
    assert!(collector.number("SELECT count(*) FROM vcpus").await >= 60);
    let status = collector.client().await.status().await.unwrap();
    assert!(!status.refusing.is_empty());
    // Long enough for several flushes to fail.
    tokio::time::sleep(Duration::from_secs(1)).await;
    std::fs::remove_file(&filler).unwrap();
    let freed = Instant::now();
    deliver(
        &collector,
        &[batch("a", 1, seq, 50), batch("a", 1, seq + 1, 50)],
    )
    .await;
    println!("resumed {:?} after space was freed", freed.elapsed());
    assert!(freed.elapsed() < Duration::from_secs(10));
    assert_eq!(
        collector.client().await.status().await.unwrap().refusing,
        ""
    );
    drop(sender);
    let rows = |c: String| c.lines().count();
    let before = collector.text(ALL_VCPUS).await;
    assert_eq!(rows(before.clone()), 4 + 20 * 3 + (acked.len() + 2) * 50);
    collector.stop().await;
    let collector = Collector::start(super::harness::raw(&disk.dir)).await;
    assert_eq!(collector.text(ALL_VCPUS).await, before);
    collector.stop().await;
}

/// Takes all space that is left.
fn fill(path: &Path) {
    use std::io::Write as _;
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .unwrap();
    for size in [1 << 16, 1 << 12] {
        while file.write_all(&vec![0; size]).is_ok() {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_memory_limit_senders_wait_and_nothing_is_lost_or_doubled() {
    let dir = tempfile::tempdir().unwrap();
    let raw = Raw {
        hot_limit: "256 KiB".into(),
        ..raw(dir.path())
    };
    let collector = Collector::start(raw).await;
    let refused = deliver(&collector, &batches("a", 1..=60, 20)).await;
    assert!(refused > 0, "the limit was never met");
    assert_eq!(
        collector.number("SELECT count(*) FROM vcpus").await,
        60 * 20
    );
    assert_eq!(
        collector
            .number("SELECT count(DISTINCT subject) FROM events")
            .await,
        60
    );
    assert_eq!(collector.number("SELECT count(*) FROM events").await, 60);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_parquet_is_set_aside_and_the_rest_answers() {
    let dir = tempfile::tempdir().unwrap();
    // Four files of ten batches.
    for part in 0..4u64 {
        let collector = Collector::start(raw(dir.path())).await;
        collector
            .sender()
            .await
            .push_all(&batches("a", part * 10 + 1..=part * 10 + 10, 2))
            .await;
        collector.stop().await;
    }
    let parquet = files(&dir.path().join("tables/vcpus"), ".parquet");
    assert_eq!(parquet.len(), 4);
    let collector = Collector::start(raw(dir.path())).await;
    let count = "SELECT count(*) FROM (SELECT DISTINCT * FROM vcpus)";
    assert_eq!(collector.number(count).await, 80);
    let quarantined = || async { collector.client().await.status().await.unwrap().quarantined };
    // Torn.
    let size = parquet[0].metadata().unwrap().len();
    std::fs::OpenOptions::new()
        .write(true)
        .open(&parquet[0])
        .unwrap()
        .set_len(size / 2)
        .unwrap();
    assert_eq!(
        (collector.number(count).await, quarantined().await),
        (60, 1)
    );
    // Zero bytes.
    std::fs::write(&parquet[1], []).unwrap();
    assert_eq!(
        (collector.number(count).await, quarantined().await),
        (40, 2)
    );
    // Right size and ending, rubbish between.
    let mut bytes = std::fs::read(&parquet[2]).unwrap();
    let middle = bytes.len() - 12;
    bytes[4..middle].fill(0xa5);
    std::fs::write(&parquet[2], bytes).unwrap();
    assert_eq!(
        (collector.number(count).await, quarantined().await),
        (20, 3)
    );
    assert_eq!(
        std::fs::read_dir(dir.path().join("quarantine"))
            .unwrap()
            .count(),
        3
    );
    collector.stop().await;
    // The table's log has forgotten them too.
    let collector = Collector::start(raw(dir.path())).await;
    assert_eq!(collector.number(count).await, 20);
    assert_eq!(
        collector.client().await.status().await.unwrap().quarantined,
        0
    );
    collector.stop().await;
}
