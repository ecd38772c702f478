//! Hostile SQL against the built collector: it lives, reads no file, answers
//! in time, and goes on taking batches in.

mod texts;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::harness::*;
use crate::client::{self, Client};

/// What the collector is told.
const DEADLINE: Duration = Duration::from_secs(2);
/// How much later an answer may come (figure 16).
const GRACE: Duration = Duration::from_secs(1);
/// What stands in the file that must never be read.
const CANARY: &str = "canary-3f1c9a";

/// The built collector on a directory.
struct Binary(Child);

impl Binary {
    fn start(dir: &Path) -> Self {
        let config = dir.join("collector.toml");
        let text = format!(
            "[collector]\nlisten = \"127.0.0.1:0\"\ndata_dir = {:?}\ngroup_commit = \"5ms\"\n\
             query_timeout = \"2s\"\nquery_memory = \"64 MiB\"\nhot_limit = \"64 MiB\"\n",
            dir.join("data")
        );
        std::fs::write(&config, text).unwrap();
        let program = headroom_tests::headroom().with_file_name("headroom-collector");
        let child = Command::new(program)
            .arg("--config")
            .arg(config)
            .stdin(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }
}

impl Drop for Binary {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What happened to the texts.
#[derive(Default)]
struct Figures {
    texts: AtomicU64,
    refused: AtomicU64,
    limited: AtomicU64,
    answered: AtomicU64,
    file_reads: AtomicU64,
    late: AtomicU64,
    slowest_ms: AtomicU64,
}

impl Figures {
    async fn ask(&self, client: &Client, text: &texts::Text) {
        let shown: String = text.sql.chars().take(90).collect();
        let stalls = Stalls::start();
        let began = Instant::now();
        let answer = tokio::time::timeout(PATIENCE, client.sql(&text.sql)).await;
        let took = began.elapsed();
        let stalled = stalls.stop().await;
        let add = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
        add(&self.texts);
        if took > DEADLINE + GRACE + stalled {
            add(&self.late);
            println!("late: {took:?} (this machine stood still for {stalled:?}): {shown}");
        }
        if took > DEADLINE / 2 {
            println!("{took:.1?}: {shown}");
        }
        let ms = u64::try_from(took.as_millis()).unwrap();
        self.slowest_ms.fetch_max(ms, Ordering::Relaxed);
        let said = match answer.unwrap_or_else(|_| panic!("no answer: {shown}")) {
            Ok((_, rows)) => {
                assert!(!text.must_fail, "answered: {shown}");
                add(&self.answered);
                // Printing them all would take longer than asking.
                let first: Vec<_> = rows
                    .iter()
                    .take(4)
                    .map(|b| b.slice(0, b.num_rows().min(100)))
                    .collect();
                let table = arrow::util::pretty::pretty_format_batches(&first).unwrap();
                table.to_string()
            }
            Err(error) => {
                let error = error.to_string();
                assert!(
                    !error.is_empty() && !error.contains('\n'),
                    "{shown}: {error:?}"
                );
                let limit = ["did not end within", "more memory than", "too many queries"];
                add(if limit.iter().any(|l| error.contains(l)) {
                    &self.limited
                } else {
                    &self.refused
                });
                if error.contains("query failed") {
                    println!("failed: {shown}: {}", &error[..error.len().min(200)]);
                }
                error
            }
        };
        if said.contains(CANARY) || said.contains("root:x:0") {
            add(&self.file_reads);
            println!("file read: {shown}");
        }
    }

    fn get(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }
}

/// How long this machine did not let anybody run: an answer can't be blamed
/// for that.
struct Stalls {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<Duration>,
}

impl Stalls {
    fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            let (step, mut stalled) = (Duration::from_millis(20), Duration::ZERO);
            while !stopped.load(Ordering::Relaxed) {
                let began = Instant::now();
                tokio::time::sleep(step).await;
                stalled += began.elapsed().saturating_sub(step * 2);
            }
            stalled
        });
        Self { stop, task }
    }

    async fn stop(self) -> Duration {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap()
    }
}

/// Pushes batches one after the other until told to stop; gives their number
/// and the longest wait for an ack.
async fn keep_pushing(address: String, stop: Arc<AtomicBool>) -> (u64, Duration) {
    let mut sender = Sender::connect(&address).await;
    let (mut seq, mut longest) = (0, Duration::ZERO);
    while !stop.load(Ordering::Relaxed) {
        seq += 1;
        let began = Instant::now();
        sender.push_all(&[batch("a", 1, seq, 20)]).await;
        longest = longest.max(began.elapsed());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    (seq, longest)
}

/// A file next to the data whose text must never come out.
fn canary(dir: &Path) -> PathBuf {
    let path = dir.join("canary.csv");
    std::fs::write(&path, format!("a,b\n{CANARY},1\n")).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_sql_kills_nothing_reads_nothing_and_ends_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let texts = texts::all(&canary(dir.path()));
    assert!(texts.len() >= 200, "{}", texts.len());
    let mut collector = Binary::start(dir.path());
    let address = endpoint(&dir.path().join("data")).await;
    let stop = Arc::new(AtomicBool::new(false));
    let pushing = tokio::spawn(keep_pushing(address.clone(), Arc::clone(&stop)));
    let figures = Figures::default();
    let next = AtomicU64::new(0);
    // As many at once as there are query processes.
    let asker = || async {
        let client = client::connect(&address).await.unwrap();
        while let Some(text) =
            texts.get(usize::try_from(next.fetch_add(1, Ordering::Relaxed)).unwrap())
        {
            figures.ask(&client, text).await;
        }
    };
    let began = Instant::now();
    tokio::join!(asker(), asker());
    let deaths = i32::from(collector.0.try_wait().unwrap().is_some());
    stop.store(true, Ordering::Relaxed);
    let (acked, longest) = pushing.await.unwrap();
    let honest = client::connect(&address).await.unwrap();
    let (_, rows) = honest.sql("SELECT count(*) FROM vcpus").await.unwrap();
    assert_eq!(number(&rows), i64::try_from(acked * 20).unwrap());
    println!(
        "figure 16: {} texts in {:.1?}: {} refused, {} at a limit, {} answered; collector deaths {deaths}, \
         file reads {}, answers later than deadline + 1 s {}, slowest {} ms; {acked} batches acked meanwhile, \
         longest wait for an ack {longest:?}",
        Figures::get(&figures.texts),
        began.elapsed(),
        Figures::get(&figures.refused),
        Figures::get(&figures.limited),
        Figures::get(&figures.answered),
        Figures::get(&figures.file_reads),
        Figures::get(&figures.late),
        Figures::get(&figures.slowest_ms),
    );
    let bad = (
        deaths,
        Figures::get(&figures.file_reads),
        Figures::get(&figures.late),
    );
    assert_eq!(bad, (0, 0, 0), "deaths, file reads, late answers");
    assert!(acked > 0);
    assert!(!dir.path().join("out.csv").exists() && !dir.path().join("out.parquet").exists());
}
