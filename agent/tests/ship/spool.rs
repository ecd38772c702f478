//! The spool under the queue: restarts, outages, a disk that can't be used.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use headroom_agent::ship::{Keeper, Next, Queue, Spool};
use headroom_proto::v1::Batch;
use prost::Message as _;
use tokio::task::JoinHandle;

use super::server::{Server, Shared};
use super::{any_port, batch, shipper, until};

const FINISH: Duration = Duration::from_secs(60);

/// A queue over a spool in that directory, as of one process.
fn start(dir: &Path, cap: u64) -> (Arc<Queue>, Keeper) {
    let queue = Arc::new(Queue::new(1 << 20));
    let keeper = Keeper::start(&queue, dir.to_owned(), cap).expect("keeper");
    (queue, keeper)
}

/// Pushes, never more at once than the memory takes.
async fn push(queue: &Arc<Queue>, batches: impl Iterator<Item = Batch>) -> u64 {
    let mut rows = 0;
    for batch in batches {
        rows += batch.chunks.iter().map(|c| u64::from(c.rows)).sum::<u64>();
        queue.push(batch);
        until("room in memory", || queue.stats().bytes < 1 << 19).await;
    }
    rows
}

/// Ships all that is left and ends.
async fn drain(queue: &Queue, task: JoinHandle<()>, keeper: Keeper) {
    queue.close();
    let shipped = tokio::time::timeout(FINISH, task).await;
    shipped.expect("shipped").expect("task");
    assert!(keeper.finish(FINISH).await);
}

fn epoch(batch: Batch, epoch: u64) -> Batch {
    Batch { epoch, ..batch }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_in_an_outage_loses_nothing() {
    let dir = tempfile::tempdir().expect("tempdir");
    let store = Shared::default();
    let server = Server::start(&store, any_port()).await;
    let address = server.address;
    server.kill().await;
    let mut pushed = 0;
    for run in 1..=3 {
        let (queue, keeper) = start(dir.path(), 1 << 30);
        let task = shipper(&queue, address);
        pushed += push(&queue, (0..50).map(|n| epoch(batch(n, 3), run))).await;
        queue.close();
        assert!(keeper.finish(FINISH).await);
        let stats = queue.stats();
        assert_eq!((stats.rows, queue.memory_batches() as u64), (pushed, 0));
        task.abort();
    }
    let server = Server::start(&store, address).await;
    let (queue, keeper) = start(dir.path(), 1 << 30);
    let task = shipper(&queue, address);
    queue.push(epoch(batch(50, 3), 4));
    drain(&queue, task, keeper).await;
    let expected: Vec<(u64, u64)> = (1..=3)
        .flat_map(|run| (1..=50).map(move |seq| (run, seq)))
        .chain([(4, 1)])
        .collect();
    assert_eq!(store.lock().expect("store").order, expected);
    let (mut spool, left) = Spool::open(dir.path(), 1 << 30).expect("open");
    assert_eq!((left.waiting.batches, left.dropped_rows), (0, 0));
    assert_eq!(spool.read(), Next::Empty);
    server.kill().await;
}

/// A day's outage in small: the spool takes a part of what is pushed, over
/// several restarts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_longer_than_the_spool() {
    const CAP: u64 = 64 << 10;
    let dir = tempfile::tempdir().expect("tempdir");
    let store = Shared::default();
    let server = Server::start(&store, any_port()).await;
    let address = server.address;
    server.kill().await;
    let (mut pushed, mut last) = (0, 0);
    for run in 1..=4 {
        let (queue, keeper) = start(dir.path(), CAP);
        let task = shipper(&queue, address);
        let rows = |n: i64| u32::try_from(n % 7 + 1).expect("rows");
        pushed += push(&queue, (0..1000).map(|n| epoch(batch(n, rows(n)), run))).await;
        queue.close();
        assert!(keeper.finish(FINISH).await);
        let stats = queue.stats();
        assert!(stats.disk_bytes <= CAP);
        assert!(stats.dropped_rows > last, "of all runs");
        assert_eq!(stats.rows + stats.dropped_rows, pushed);
        last = stats.dropped_rows;
        task.abort();
    }
    let server = Server::start(&store, address).await;
    let (queue, keeper) = start(dir.path(), CAP);
    let task = shipper(&queue, address);
    drain(&queue, task, keeper).await;
    let stored = store.lock().expect("store").rows();
    let dropped = queue.stats().dropped_rows;
    println!("{pushed} rows pushed = {stored} stored + {dropped} counted as dropped");
    assert_eq!(stored + dropped, pushed);
    let newest = store.lock().expect("store").order.last().copied();
    assert_eq!(newest, Some((4, 1000)));
    server.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_disk_it_is_a_queue_in_memory() {
    let dir = tempfile::tempdir().expect("tempdir");
    let file = dir.path().join("spool");
    std::fs::write(&file, "a file in the way").expect("file");
    let store = Shared::default();
    let server = Server::start(&store, any_port()).await;
    let (queue, keeper) = start(&file, 1 << 30);
    let task = shipper(&queue, server.address);
    for name in 0..20 {
        queue.push(batch(name, 2));
    }
    until("all stored", || queue.stats().acked_rows == 40).await;
    assert!(queue.spool_problem().is_some());
    drain(&queue, task, keeper).await;
    super::assert_complete(&store, 20);
    server.kill().await;
}

/// Random pushes, acks and restarts: every row is acked, dropped or waiting,
/// and what is acked comes in order.
#[tokio::test]
async fn no_row_is_unaccounted_over_restarts() {
    const CAP: u64 = 32 << 10;
    for _ in 0..10 {
        let dir = tempfile::tempdir().expect("tempdir");
        let (mut pushed, mut acked, mut run) = (0, 0, 1);
        let (mut queue, mut keeper) = start(dir.path(), CAP);
        let mut last = (0, 0);
        for _ in 0..400 {
            match rand::random_range(0..100) {
                0..60 => {
                    let rows = rand::random_range(1..9);
                    queue.push(epoch(batch(0, rows), run));
                    pushed += u64::from(rows);
                }
                60..97 => {
                    until("opened or written", || !queue.is_opening()).await;
                    if queue.stats().batches == 0 {
                        continue;
                    }
                    let head = queue.head().await.expect("a batch");
                    assert!(last < (head.epoch, head.seq), "{last:?}");
                    last = (head.epoch, head.seq);
                    acked += u64::from(head.chunks[0].rows);
                    assert!(queue.acked(last.0, last.1));
                }
                _ => {
                    assert!(keeper.finish(FINISH).await);
                    (queue, keeper) = start(dir.path(), CAP);
                    run += 1;
                }
            }
        }
        assert!(keeper.finish(FINISH).await);
        let stats = queue.stats();
        assert_eq!(stats.rows + acked + stats.dropped_rows, pushed);
        let (_, left) = Spool::open(dir.path(), CAP).expect("open");
        assert_eq!(
            (left.waiting.rows, left.dropped_rows),
            (stats.rows, stats.dropped_rows)
        );
    }
}

/// A file system of its own, so that it can be full.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().expect("tempdir");
        let mut command = Command::new("mount");
        let command = command.args(["-t", "tmpfs", "-o", "size=128k", "none"]);
        let mounted = command.arg(dir.path()).stderr(Stdio::null()).status();
        mounted
            .is_ok_and(|status| status.success())
            .then(|| Self(dir))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_costs_no_row() {
    let Some(disk) = Tmpfs::mount() else {
        println!("skip: no tmpfs can be mounted");
        return;
    };
    let store = Shared::default();
    let server = Server::start(&store, any_port()).await;
    let address = server.address;
    server.kill().await;
    let (queue, keeper) = start(&disk.0.path().join("spool"), 1 << 30);
    let task = shipper(&queue, address);
    for name in 0..800 {
        queue.push(batch(name, 3));
    }
    until("the disk is full", || queue.spool_problem().is_some()).await;
    let full = queue.stats();
    assert!(full.disk_bytes > 64 << 10 && queue.memory_batches() > 0);
    assert_eq!((full.rows, full.dropped_rows), (2_400, 0));
    let server = Server::start(&store, address).await;
    until("all stored", || queue.stats().acked_rows == 2_400).await;
    // There is room again: what comes now goes to the disk.
    until("the spool works again", || {
        queue.push(batch(1_000, 1));
        queue.spool_problem().is_none()
    })
    .await;
    drain(&queue, task, keeper).await;
    let batches = store.lock().expect("store").order.len() as u64;
    super::assert_complete(&store, batches);
    println!(
        "disk full at {} B: {} rows stored, 0 lost",
        full.disk_bytes,
        store.lock().expect("store").rows()
    );
    server.kill().await;
}

/// The agent's own binary with a window a second and no probes.
struct Agent {
    child: Child,
}

impl Agent {
    fn start(data_dir: &Path, address: &str) -> Self {
        let config = data_dir.join("agent.toml");
        let text = format!(
            "[agent]\ncollector = \"{address}\"\ninterval = \"1s\"\ndata_dir = {data_dir:?}\n\
             attach = \"off\"\nspool_size = \"64 MiB\"\n"
        );
        std::fs::write(&config, text).expect("config");
        let child = Command::new(env!("CARGO_BIN_EXE_headroom-agent"))
            .arg("--config")
            .arg(&config)
            .env("HEADROOM_LOG", "warn")
            .stdout(Stdio::null())
            .spawn()
            .expect("agent");
        Self { child }
    }

    /// kill -9.
    fn kill(mut self) {
        self.child.kill().expect("kill");
        self.child.wait().expect("wait");
    }

    /// Memory in use now and the most so far, kB.
    fn memory(&self) -> (u64, u64) {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).expect("status");
        let field = |name: &str| {
            let line = status.lines().find(|l| l.starts_with(name)).expect("field");
            let number = line.split_whitespace().nth(1).expect("number");
            number.parse().expect("kB")
        };
        (field("VmRSS:"), field("VmHWM:"))
    }
}

fn spool_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("agent/spool")
}

/// Names of the batches in a spool; reads a copy, since reading it for sending
/// is for its owner.
fn names(dir: &Path) -> BTreeSet<(u64, u64)> {
    let copy = tempfile::tempdir().expect("tempdir");
    for entry in std::fs::read_dir(dir).expect("spool") {
        let entry = entry.expect("entry");
        // A file may be finished and removed in between.
        let _ = std::fs::copy(entry.path(), copy.path().join(entry.file_name()));
    }
    let (mut spool, _) = Spool::open(copy.path(), 64 << 20).expect("open");
    let mut names = BTreeSet::new();
    while let Next::Batch { wire, .. } = spool.read() {
        let batch = Batch::decode(&wire[..]).expect("batch");
        names.insert((batch.epoch, batch.seq));
        spool.done().expect("done");
    }
    names
}

/// Over ten kills, with the collector there in some of the runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_killed_ten_times() {
    let dir = tempfile::tempdir().expect("tempdir");
    let store = Shared::default();
    let mut server = Some(Server::start(&store, any_port()).await);
    let address = server.as_ref().expect("server").address;
    let stored = || store.lock().expect("store").order.len();
    let mut spooled = BTreeSet::new();
    for run in 0..10 {
        let there = run % 3 == 2;
        match (there, server.take()) {
            (true, _) => server = Some(Server::start(&store, address).await),
            (false, Some(old)) => old.kill().await,
            (false, None) => {}
        }
        let before = (spooled.len(), stored());
        let agent = Agent::start(dir.path(), &address.to_string());
        match there {
            true => until("more stored", || stored() > before.1).await,
            false => {
                let spool = spool_dir(dir.path());
                until("more in the spool", || {
                    spool.exists() && names(&spool).difference(&spooled).count() > 0
                })
                .await;
            }
        }
        // At any moment of its work.
        tokio::time::sleep(Duration::from_millis(rand::random_range(0..1_500))).await;
        agent.kill();
        spooled.extend(names(&spool_dir(dir.path())));
    }
    if server.is_none() {
        server = Some(Server::start(&store, address).await);
    }
    let agent = Agent::start(dir.path(), &address.to_string());
    until("all stored", || {
        let store = store.lock().expect("store");
        spooled.iter().all(|name| store.batches.contains_key(name))
    })
    .await;
    agent.kill();
    let store = store.lock().expect("store");
    println!(
        "{} batches in the spool over 10 kills: 0 lost, {} came again and were told by their name",
        spooled.len(),
        store.duplicates
    );
    // As the collector's high-water marks need it.
    assert!(store.order.is_sorted(), "{:?}", store.order);
    drop(server);
}

#[tokio::test]
async fn starting_with_a_full_spool_takes_no_memory() {
    let dir = tempfile::tempdir().expect("tempdir");
    let nobody = "127.0.0.1:9";
    let empty = tempfile::tempdir().expect("tempdir");
    let (mut spool, _) = Spool::open(&spool_dir(dir.path()), 64 << 20).expect("open");
    let mut filler = batch(1, 20);
    filler.chunks[0].table = "x".repeat(12_000);
    let mut dropped = Default::default();
    while spool.bytes() < 60 << 20 {
        filler.seq += 1;
        let wire = filler.encode_to_vec();
        spool.append(&wire, 20, &mut dropped).expect("append");
    }
    drop(spool);
    let ready = |agent: &Agent, data_dir: &Path| {
        let config = data_dir.join("agent/epoch").exists();
        config && std::fs::read_to_string(format!("/proc/{}/stat", agent.child.id())).is_ok()
    };
    let mut figures = Vec::new();
    for data_dir in [empty.path(), dir.path()] {
        let agent = Agent::start(data_dir, nobody);
        let spool = spool_dir(data_dir);
        let files = || std::fs::read_dir(&spool).map_or(0, Iterator::count);
        let at_start = files();
        // A segment of its own: the spool is open and a window is in it.
        until("a window in the spool", || {
            ready(&agent, data_dir) && files() > at_start.max(1)
        })
        .await;
        figures.push(agent.memory());
        agent.kill();
    }
    let ((steady, empty_peak), (full, full_peak)) = (figures[0], figures[1]);
    println!(
        "spool empty: {steady} kB, peak {empty_peak}; spool of 60 MiB: {full} kB, peak {full_peak}"
    );
    assert!(
        full_peak * 2 <= steady * 3,
        "{full_peak} kB at start, {steady} kB steady"
    );
}
