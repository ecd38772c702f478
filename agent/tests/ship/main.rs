//! Shipping through every failure of the other side: nothing lost, nothing
//! twice, in order.
#![expect(clippy::expect_used, reason = "helpers of tests")]

mod server;
mod spool;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use headroom_agent::ship::{Queue, channel, ship};
use headroom_proto::v1::{Batch, Chunk};
use server::{Fault, Server, Shared};
use tokio::task::JoinHandle;

const EPOCH: u64 = 1_763_692_900_000_000;

/// A batch of `rows` rows, named by `made_at_us`.
fn batch(name: i64, rows: u32) -> Batch {
    let chunk = Chunk {
        table: "x".repeat(200),
        rows,
        columns: Vec::new(),
    };
    Batch {
        agent_id: "a".into(),
        epoch: EPOCH,
        made_at_us: name,
        chunks: vec![chunk],
        ..Batch::default()
    }
}

fn shipper(queue: &Arc<Queue>, address: SocketAddr) -> JoinHandle<()> {
    let queue = queue.clone();
    let channel = channel(&address.to_string()).expect("address");
    tokio::spawn(async move { ship(&queue, channel).await })
}

fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

async fn until(what: &str, done: impl Fn() -> bool) {
    let wait = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait)
        .await
        .unwrap_or_else(|_| panic!("waited 60 s: {what}"));
}

/// Everything stored, once, by ascending number without gaps, in the order it
/// was pushed.
fn assert_complete(store: &Shared, batches: u64) {
    let store = store.lock().expect("store");
    let expected: Vec<(u64, u64)> = (1..=batches).map(|seq| (EPOCH, seq)).collect();
    assert_eq!(store.order, expected);
    let names: Vec<i64> = store.batches.values().map(|b| b.made_at_us).collect();
    assert!(names.is_sorted(), "{names:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_connections_and_refusals() {
    let store = Shared::default();
    let faults = [
        Some(Fault::DropBefore),
        None,
        Some(Fault::DropAfter),
        Some(Fault::Refuse(20)),
        Some(Fault::Refuse(1)),
        None,
        None,
        Some(Fault::DropAfter),
        Some(Fault::DropAfter),
        Some(Fault::DropBefore),
    ];
    store
        .lock()
        .unwrap()
        .faults
        .extend(faults.iter().cycle().take(30));
    let server = Server::start(&store, any_port()).await;
    let queue = Arc::new(Queue::new(1 << 20));
    let task = shipper(&queue, server.address);
    for name in 0..100 {
        queue.push(batch(name, 3));
    }
    queue.close();
    tokio::time::timeout(Duration::from_secs(60), task)
        .await
        .unwrap()
        .unwrap();
    assert_complete(&store, 100);
    assert_eq!(
        store.lock().unwrap().duplicates,
        9,
        "each DropAfter brings its batch again"
    );
    let stats = queue.stats();
    assert_eq!(
        (
            stats.acked_rows,
            stats.dropped_rows,
            stats.rows,
            stats.bytes
        ),
        (300, 0, 0, 0)
    );
    server.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_restarts() {
    let store = Shared::default();
    let mut server = Server::start(&store, any_port()).await;
    let address = server.address;
    let queue = Arc::new(Queue::new(1 << 20));
    let task = shipper(&queue, address);
    for round in 0..5 {
        for n in 0..20 {
            queue.push(batch(round * 20 + n, 1));
        }
        // Some of the round, not all: the rest goes to the next server.
        let some = usize::try_from(round * 20 + 5).unwrap();
        until("some batches stored", || {
            store.lock().unwrap().order.len() >= some
        })
        .await;
        server.kill().await;
        server = Server::start(&store, address).await;
    }
    queue.close();
    tokio::time::timeout(Duration::from_secs(60), task)
        .await
        .unwrap()
        .unwrap();
    assert_complete(&store, 100);
    assert_eq!(queue.stats().acked_rows, 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_longer_than_the_buffer() {
    let store = Shared::default();
    let server = Server::start(&store, any_port()).await;
    let address = server.address;
    server.kill().await;
    let queue = Arc::new(Queue::new(20_000));
    let task = shipper(&queue, address);
    let mut pushed = 0;
    for name in 0..1_000 {
        let rows = u32::try_from(name % 7 + 1).unwrap();
        queue.push(batch(name, rows));
        pushed += u64::from(rows);
        assert!(queue.stats().bytes <= 20_000);
    }
    let dropped = queue.stats().dropped_rows;
    assert!(dropped > 0);
    let server = Server::start(&store, address).await;
    queue.close();
    tokio::time::timeout(Duration::from_secs(60), task)
        .await
        .unwrap()
        .unwrap();
    let stored = store.lock().unwrap().rows();
    assert_eq!(stored + dropped, pushed, "every row is stored or counted");
    assert_eq!(queue.stats().dropped_rows, dropped);
    let order = store.lock().unwrap().order.clone();
    assert!(order.is_sorted() && order.len() < 1_000, "{order:?}");
    // The newest are those that are kept.
    let last = store
        .lock()
        .unwrap()
        .batches
        .values()
        .last()
        .unwrap()
        .made_at_us;
    assert_eq!(last, 999);
    server.kill().await;
}

#[tokio::test]
async fn an_invalid_batch_does_not_block_the_others() {
    let store = Shared::default();
    store
        .lock()
        .unwrap()
        .faults
        .extend([None, Some(Fault::Invalid), None]);
    let server = Server::start(&store, any_port()).await;
    let queue = Arc::new(Queue::new(1 << 20));
    for name in 0..4 {
        queue.push(batch(name, 10));
    }
    queue.close();
    let task = shipper(&queue, server.address);
    tokio::time::timeout(Duration::from_secs(60), task)
        .await
        .unwrap()
        .unwrap();
    let names: Vec<i64> = store
        .lock()
        .unwrap()
        .batches
        .values()
        .map(|b| b.made_at_us)
        .collect();
    assert_eq!(names, [0, 2, 3]);
    assert_eq!(
        (queue.stats().rejected_rows, queue.stats().acked_rows),
        (10, 30)
    );
    server.kill().await;
}
