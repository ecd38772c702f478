//! What others may send: garbage and invalid batches.

use std::time::Instant;

use super::harness::*;
use headroom_core::batch::Chunk;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

#[tokio::test(flavor = "multi_thread")]
async fn garbage_and_silence_on_the_port_do_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(raw(dir.path())).await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let mut held = Vec::new();
    let mut state = 7u64;
    for i in 0..300 {
        let mut bytes: Vec<u8> = Vec::new();
        if i % 2 == 0 {
            bytes.extend_from_slice(preface);
        }
        for _ in 0..200 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            bytes.push((state >> 56) as u8);
        }
        let mut socket = TcpStream::connect(&collector.address).await.unwrap();
        let _ = socket.write_all(&bytes).await;
        if i % 3 == 0 {
            held.push(socket);
        }
    }
    // Connections that never say anything.
    for _ in 0..100 {
        held.push(TcpStream::connect(&collector.address).await.unwrap());
    }
    let mut sender = collector.sender().await;
    sender.push_all(&batches("a", 1..=5, 2)).await;
    assert_eq!(collector.number("SELECT count(*) FROM vcpus").await, 10);
    drop(sender);
    // With all of them open it still ends.
    let began = Instant::now();
    collector.stop().await;
    assert!(began.elapsed() < PATIENCE);
    drop(held);
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_batches_are_refused_and_the_stream_lives_on() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(raw(dir.path())).await;
    let mut sender = collector.sender().await;
    let good = |seq| batch("a", 1, seq, 2);
    sender.push_all(&[good(1)]).await;
    let with = |change: fn(&mut headroom_proto::v1::Batch)| {
        let mut bad = good(2);
        change(&mut bad);
        bad
    };
    let far = vcpu_row("a", i64::MAX, 0);
    let mut no_hist = vcpu_row("a", T0, 0);
    no_hist.ready_hist = Some(vec![0xff; 30]);
    let days: Vec<_> = (0..40)
        .map(|d| vcpu_row("a", T0 + d * 86_400_000_000, 0))
        .collect();
    let invalid = [
        (with(|b| b.agent_id.clear()), "agent_id"),
        (with(|b| b.agent_id = "x".repeat(1000)), "agent_id"),
        (with(|b| b.schema_version = 99), "schema version 99"),
        (with(|b| b.seq = 0), "epoch or seq"),
        (with(|b| b.chunks[0].rows = 3), "number of values"),
        (
            with(|b| b.chunks[0].rows = u32::MAX),
            "more than the 100000 allowed",
        ),
        (with(|b| b.chunks[0].columns.clear()), "is missing"),
        (
            wire("a", 1, 2, vec![Chunk::of(&[far])]),
            "outside 1970 to 2200",
        ),
        (wire("a", 1, 2, vec![Chunk::of(&[no_hist])]), "ready_hist"),
        (wire("a", 1, 2, vec![Chunk::of(&days)]), "span 40 days"),
    ];
    for (batch, problem) in &invalid {
        let ack = sender.push(batch).await;
        assert!(
            ack.refused.contains(problem),
            "{problem}: {:?}",
            ack.refused
        );
        assert_eq!(ack.retry_after_ms, 0);
    }
    // A gap is fine: the sender may have dropped the oldest.
    sender.push_all(&[good(2), good(7)]).await;
    assert_eq!(collector.number("SELECT count(*) FROM vcpus").await, 6);
    // A message beyond the limit ends this stream only.
    let mut huge = good(8);
    huge.host = "h".repeat(headroom_proto::MAX_MESSAGE_BYTES + 1);
    assert!(sender.try_push(&huge).await.is_none());
    collector.sender().await.push_all(&[good(8)]).await;
    collector.stop().await;
}
