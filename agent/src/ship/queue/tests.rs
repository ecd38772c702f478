use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

/// A batch of `rows` rows and about `bytes` bytes, named by `made_at_us`.
fn batch(name: i64, rows: u32, bytes: usize) -> v1::Batch {
    let chunk = v1::Chunk {
        table: "x".repeat(bytes),
        rows,
        columns: Vec::new(),
    };
    v1::Batch {
        made_at_us: name,
        chunks: vec![chunk],
        ..v1::Batch::default()
    }
}

fn head(queue: &Queue) -> Option<v1::Batch> {
    queue.lock().head()
}

#[test]
fn drops_the_oldest_that_was_never_sent_and_counts_it() {
    let queue = Queue::new(10_000);
    for name in 0..4 {
        queue.push(batch(name, 10, 2_000));
    }
    assert_eq!(head(&queue).unwrap().made_at_us, 0);
    for name in 4..8 {
        queue.push(batch(name, 10, 2_000));
    }
    assert_eq!(queue.stats().dropped_rows, 40);
    let mut order = Vec::new();
    while let Some(b) = head(&queue) {
        order.push((b.seq, b.made_at_us));
        assert!(queue.acked(0, b.seq));
    }
    // 0 was on its way; 1 to 4 went, with their numbers.
    assert_eq!(order, [(1, 0), (6, 5), (7, 6), (8, 7)]);
    assert_eq!(
        (
            queue.stats().bytes,
            queue.stats().batches,
            queue.stats().acked_rows
        ),
        (0, 0, 40)
    );
}

#[test]
fn a_batch_beyond_the_limit_is_dropped_itself() {
    let queue = Queue::new(1_000);
    queue.push(batch(1, 3, 100));
    assert!(head(&queue).is_some());
    queue.push(batch(2, 5, 5_000));
    assert_eq!((queue.stats().dropped_rows, queue.stats().batches), (5, 1));
}

#[test]
fn an_ack_of_another_number_changes_nothing() {
    let queue = Queue::new(1_000);
    queue.push(batch(1, 1, 10));
    assert!(!queue.acked(0, 1), "not handed out yet");
    let b = head(&queue).unwrap();
    assert!(!queue.acked(0, b.seq + 1) && queue.rejected(0, b.seq + 1).is_none());
    assert_eq!(queue.rejected(0, b.seq), Some(1));
    assert_eq!(queue.stats().rejected_rows, 1);
}

#[tokio::test]
async fn ends_when_closed_and_empty() {
    let queue = Queue::new(1_000);
    queue.push(batch(1, 1, 10));
    queue.close();
    let b = queue.head().await.unwrap();
    assert_eq!(queue.head().await.unwrap().seq, b.seq);
    assert!(queue.acked(0, b.seq));
    assert!(queue.head().await.is_none());
}

#[derive(Clone, Debug)]
enum Step {
    Push { rows: u32, bytes: usize },
    Send,
    Ack,
    Reject,
}

proptest! {
    /// Against a model: every row is in the queue, acked, rejected or dropped;
    /// order and numbers hold, memory is bounded.
    #[test]
    fn no_row_is_unaccounted(steps in prop::collection::vec(prop_oneof![
        4 => (1u32..50, 0usize..900).prop_map(|(rows, bytes)| Step::Push { rows, bytes }),
        2 => Just(Step::Send), 2 => Just(Step::Ack), 1 => Just(Step::Reject)], 1..200))
    {
        let queue = Queue::new(4_000);
        let (mut pushed, mut name, mut sent) = (0u64, 0i64, None::<(u64, i64)>);
        let mut seen = VecDeque::new();
        for step in steps {
            match step {
                Step::Push { rows, bytes } => {
                    name += 1;
                    pushed += u64::from(rows);
                    queue.push(batch(name, rows, bytes));
                }
                Step::Send => {
                    let head = head(&queue).map(|b| (b.seq, b.made_at_us));
                    if sent.is_some() {
                        prop_assert_eq!(head, sent);
                    } else if let Some(new) = head {
                        seen.push_back(new);
                    }
                    sent = head;
                }
                Step::Ack => if let Some((seq, _)) = sent.take() {
                    prop_assert!(queue.acked(0, seq));
                },
                Step::Reject => if let Some((seq, _)) = sent.take() {
                    prop_assert!(queue.rejected(0, seq).is_some());
                },
            }
            let s = queue.stats();
            prop_assert!(s.bytes <= 4_000);
            prop_assert_eq!(s.rows + s.acked_rows + s.rejected_rows + s.dropped_rows, pushed);
        }
        for (seq, name) in &seen {
            prop_assert_eq!(i64::try_from(*seq).unwrap(), *name);
        }
        prop_assert!(seen.iter().zip(seen.iter().skip(1)).all(|(a, b)| a.1 < b.1));
    }
}
