use std::fs;
use std::time::{Duration, Instant};

use super::*;
use crate::query::{Limits, QueryEngine, child};
use crate::store::tests::{Opened, open};
use crate::tests::harness::{PATIENCE, batch, number};

fn program(count: usize) -> Program {
    Program {
        args: child::tests::ARGS.iter().map(ToString::to_string).collect(),
        count,
        hot: 64 << 20,
    }
}

fn apart(opened: &Opened, timeout: Duration) -> QueryEngine {
    let limits = Limits {
        memory: 128 << 20,
        timeout,
    };
    QueryEngine::apart(Arc::clone(&opened.store) as _, limits, program(1)).unwrap()
}

async fn count(engine: &QueryEngine) -> i64 {
    let (_, rows) = engine.collect("SELECT count(*) FROM vcpus").await.unwrap();
    number(&rows)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_sees_what_is_in_memory_and_in_files_and_follows_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = open(dir.path()).await;
    let engine = apart(&opened, PATIENCE);
    assert_eq!(count(&engine).await, 0);
    for seq in 1..=40 {
        opened.push(&batch("a", 1, seq, 3));
        if seq % 13 == 0 {
            opened.flush_and_trim().await.unwrap();
        }
        assert_eq!(count(&engine).await, 3 * i64::try_from(seq).unwrap());
    }
    let sql = crate::tests::harness::ALL_VCPUS;
    let (schema, rows) = engine.collect(sql).await.unwrap();
    assert!(rows.iter().all(|b| b.schema() == schema));
    let shown = arrow::util::pretty::pretty_format_batches(&rows).unwrap();
    assert_eq!(shown.to_string(), opened.rows().await);
    for sql in [
        "SHOW TABLES",
        "DESCRIBE vcpus",
        "SELECT * FROM recommendations, block_io",
    ] {
        engine
            .collect(sql)
            .await
            .unwrap_or_else(|e| panic!("{sql}: {e}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_file_is_set_aside_and_the_rest_answered() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = open(dir.path()).await;
    for seq in 1..=3 {
        opened.push(&batch("a", 1, seq, 3));
        opened.flush_and_trim().await.unwrap();
    }
    let engine = apart(&opened, PATIENCE);
    assert_eq!(count(&engine).await, 9);
    let vcpus = dir.path().join("tables/vcpus");
    let files = crate::tests::harness::files(&vcpus, ".parquet");
    // One with another size, one of the right size with damage inside.
    fs::write(&files[0], b"PAR1").unwrap();
    let mut bytes = fs::read(&files[1]).unwrap();
    let end = bytes.len() - 8;
    bytes[4..end].fill(0xff);
    fs::write(&files[1], bytes).unwrap();
    assert_eq!(count(&engine).await, 3);
    assert_eq!(opened.store.quarantined(), 2);
    assert_eq!(count(&engine).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_deadline_and_a_reader_that_leaves_end_a_process() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = open(dir.path()).await;
    opened.push(&batch("a", 1, 1, 50));
    let engine = apart(&opened, Duration::from_secs(2));
    let endless = format!(
        "SELECT count(DISTINCT t0.ts) FROM {}",
        (0..9)
            .map(|i| format!("vcpus t{i}"))
            .collect::<Vec<_>>()
            .join(",")
    );
    let began = Instant::now();
    let error = engine.collect(&endless).await.unwrap_err();
    assert!(matches!(error, QueryError::Timeout(_)), "{error}");
    assert!(began.elapsed() >= Duration::from_secs(2));
    // The next one gets a process of its own.
    assert_eq!(count(&engine).await, 50);
    // One that nobody waits for holds up the next no longer than a start takes.
    for _ in 0..3 {
        let left = tokio::time::timeout(Duration::from_millis(50), engine.collect(&endless)).await;
        assert!(left.is_err());
    }
    assert_eq!(count(&engine).await, 50);
}

async fn one_question(children: &Children) {
    let (started, start) = oneshot::channel();
    let (to, _pieces) = mpsc::channel(8);
    let permits = Arc::new(tokio::sync::Semaphore::new(1));
    let question = Question {
        text: "SELECT 1".into(),
        deadline: tokio::time::Instant::now() + PATIENCE,
        timeout: PATIENCE,
        started,
        to,
        permit: permits.acquire_owned().await.unwrap(),
    };
    tokio::join!(children.answer(question), start)
        .1
        .unwrap()
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_has_limits_no_files_and_no_environment() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path()).await;
    let rows = Arc::clone(&opened.store) as _;
    let children = Children::start(rows, program(1), 128 << 20).unwrap();
    let pid = children.lock()[0].id().unwrap();
    // It is told its limits with the first question.
    one_question(&children).await;
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    assert!(
        limits
            .lines()
            .any(|l| l.starts_with("Max file size             0"))
    );
    let space = children.setup.space.to_string();
    assert!(
        limits
            .lines()
            .any(|l| l.starts_with("Max address space") && l.contains(&space))
    );
    assert!(
        limits
            .lines()
            .any(|l| l.starts_with("Max core file size        0"))
    );
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap();
    assert!(
        !environment.windows(5).any(|w| w == b"PATH="),
        "inherited environment"
    );
    for fd in fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten() {
        let Ok(to) = fs::read_link(fd.path()) else {
            continue;
        };
        assert!(!to.starts_with(dir.path()), "{} is open", to.display());
    }
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    for line in status
        .lines()
        .filter(|l| l.starts_with("VmPeak") || l.starts_with("VmRSS"))
    {
        println!("query process: {line}");
    }
    // It ends with the socket.
    drop(children);
    tokio::time::timeout(PATIENCE, async {
        while fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|c| !c.is_empty()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap();
}

/// What a process of its own costs a small query. Printed, not judged: the
/// machine may be busy.
#[tokio::test(flavor = "multi_thread")]
async fn the_cost_of_isolation_is_printed() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = open(dir.path()).await;
    for seq in 1..=120 {
        for agent in ["a", "b", "c", "d"] {
            opened.push(&batch(agent, 1, seq, 4));
        }
        if seq == 90 {
            opened.flush_and_trim().await.unwrap();
        }
    }
    let limits = Limits {
        memory: 128 << 20,
        timeout: PATIENCE,
    };
    let here = QueryEngine::new(Arc::clone(&opened.store) as _, limits).unwrap();
    let apart = apart(&opened, PATIENCE);
    // One VM, the last 15 of 20 minutes.
    let sql = "SELECT ts, vcpu, ready_ratio FROM vcpus WHERE vm_id = 'vm-b' \
        AND ts > TIMESTAMP '2026-01-01T00:05:00Z' ORDER BY ts, vcpu";
    let mut took = [Vec::new(), Vec::new()];
    for round in 0..40 {
        let mut rows = [0, 0];
        for (i, engine) in [&here, &apart].into_iter().enumerate() {
            let began = Instant::now();
            let (_, batches) = engine.collect(sql).await.unwrap();
            // The first ones warm up.
            if round >= 5 {
                took[i].push(began.elapsed());
            }
            rows[i] = batches.iter().map(|b| b.num_rows()).sum();
        }
        assert_eq!(rows, [360, 360]);
    }
    let [here, apart] = took.map(|mut t| {
        t.sort_unstable();
        t[t.len() / 2]
    });
    println!("one VM, last 15 min, p50: {here:?} on a thread, {apart:?} in a process");
}
