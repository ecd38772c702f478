//! The log against a model: whatever happens to the disk, what was appended
//! successfully comes back, once, in order.

#![expect(
    clippy::cast_possible_truncation,
    reason = "sizes and offsets of files of a few kB"
)]

mod faults;

use std::collections::BTreeSet;
use std::path::Path;

use headroom_proto::v1::Batch;
use proptest::prelude::*;
use prost::Message as _;

use super::{Disk, Entry, Layout, RealDisk, Wal, read_only};
use crate::tests::harness::files;
use faults::{Faults, FaultyDisk};

fn entry(seq: u64) -> Entry {
    let batch = Batch {
        agent_id: "a".into(),
        epoch: 1,
        seq,
        host: "h".repeat(seq as usize % 40),
        ..Batch::default()
    };
    Entry {
        agent_id: "a".into(),
        epoch: 1,
        seq,
        payload: batch.encode_to_vec().into(),
    }
}

fn seq(payload: &[u8]) -> u64 {
    Batch::decode(payload).unwrap().seq
}

fn layout(dir: &Path, segment_size: u64) -> Layout {
    Layout {
        dir: dir.join("log"),
        quarantine: dir.join("quarantine"),
        segment_size,
    }
}

/// Opens the log and gives the numbers of the batches in it.
fn open(dir: &Path, segment_size: u64, disk: Box<dyn Disk>) -> (Wal, Vec<u64>, super::Recovery) {
    let mut seen = Vec::new();
    let (wal, recovery) = Wal::open(layout(dir, segment_size), disk, &mut |_, b| {
        seen.push(seq(&b))
    })
    .unwrap();
    (wal, seen, recovery)
}

fn seqs_read_only(dir: &Path) -> Vec<u64> {
    let mut seen = Vec::new();
    read_only(&dir.join("log"), &mut |_, b| seen.push(seq(&b))).unwrap();
    seen
}

/// Writes 1..=n one by one; gives the file and the size after each.
fn one_segment(dir: &Path, n: u64) -> (std::path::PathBuf, Vec<u64>) {
    let (mut wal, _, _) = open(dir, u64::MAX, Box::new(RealDisk));
    let ends = (1..=n).map(|seq| {
        wal.append(&[entry(seq)]).unwrap();
        wal.size().load(std::sync::atomic::Ordering::Relaxed)
    });
    let ends = ends.collect();
    (files(&dir.join("log"), ".wal")[0].clone(), ends)
}

#[test]
fn a_cut_at_any_point_loses_only_what_is_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let (path, ends) = one_segment(dir.path(), 12);
    let whole = std::fs::read(&path).unwrap();
    for cut in 0..=whole.len() {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let (mut wal, seen, recovery) = open(dir.path(), u64::MAX, Box::new(RealDisk));
        let expected: Vec<u64> = (1..=12)
            .filter(|seq| ends[*seq as usize - 1] <= cut as u64)
            .collect();
        assert_eq!(seen, expected, "cut at {cut}");
        let torn = cut > 0 && !ends.contains(&(cut as u64)) && recovery.quarantined == 0;
        assert!(
            !torn || is_checkpoint_end(&whole, cut),
            "cut at {cut} went unnoticed"
        );
        // And it can be written to again, in a new file.
        if cut % 50 == 0 {
            wal.append(&[entry(100)]).unwrap();
            let (_, seen, again) = open(dir.path(), u64::MAX, Box::new(RealDisk));
            assert_eq!(seen.last(), Some(&100));
            assert_eq!(seen.len(), expected.len() + 1);
            assert_eq!(again.quarantined, 0, "the tail was cut the first time");
        }
        for extra in files(&dir.path().join("log"), ".wal") {
            std::fs::remove_file(extra).unwrap();
        }
    }
}

/// A cut right behind the first or second copy of the checkpoint is clean.
fn is_checkpoint_end(whole: &[u8], cut: usize) -> bool {
    let first = 8 + super::record::decode(&whole[8..]).unwrap().unwrap().1;
    cut == 8
        || cut == first
        || cut == first + super::record::decode(&whole[first..]).unwrap().unwrap().1
}

#[test]
fn ten_thousand_bit_flips_lose_at_most_the_record_they_hit() {
    let dir = tempfile::tempdir().unwrap();
    let (path, ends) = one_segment(dir.path(), 12);
    let whole = std::fs::read(&path).unwrap();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..10_000 {
        // xorshift: the same flips in every run.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let bit = (state % (whole.len() as u64 * 8)) as usize;
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&path, &bytes).unwrap();
        let seen = seqs_read_only(dir.path());
        let hit = ends
            .iter()
            .position(|end| (bit / 8) < *end as usize)
            .unwrap() as u64
            + 1;
        let in_head = (bit / 8) < whole_head(&whole);
        let expected: Vec<u64> = (1..=12).filter(|seq| in_head || *seq != hit).collect();
        assert_eq!(seen, expected, "bit {bit}");
    }
}

fn whole_head(whole: &[u8]) -> usize {
    let first = 8 + super::record::decode(&whole[8..]).unwrap().unwrap().1;
    first + super::record::decode(&whole[first..]).unwrap().unwrap().1
}

#[test]
fn damaged_bytes_are_kept_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let (path, ends) = one_segment(dir.path(), 5);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[ends[2] as usize - 1] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let (_, seen, recovery) = open(dir.path(), u64::MAX, Box::new(RealDisk));
    assert_eq!((seen, recovery.quarantined), (vec![1, 2, 4, 5], 1));
    let copies = std::fs::read_dir(dir.path().join("quarantine"))
        .unwrap()
        .count();
    assert_eq!(copies, 1);
}

#[test]
fn one_flip_in_the_checkpoint_forgets_no_batch() {
    let dir = tempfile::tempdir().unwrap();
    let (mut wal, _, _) = open(dir.path(), u64::MAX, Box::new(RealDisk));
    let lsns = wal.append(&[entry(1), entry(2)]).unwrap();
    wal.trim(lsns[1]).unwrap();
    drop(wal);
    let path = files(&dir.path().join("log"), ".wal")[0].clone();
    let whole = std::fs::read(&path).unwrap();
    for bit in 0..whole.len() * 8 {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&path, &bytes).unwrap();
        let recovery = read_only(&dir.path().join("log"), &mut |_, _| {}).unwrap();
        assert_eq!(
            recovery.marks.seen("a", 1, 2),
            super::Seen::Duplicate,
            "bit {bit}"
        );
    }
}

#[test]
fn trimming_frees_space_and_keeps_the_marks() {
    let dir = tempfile::tempdir().unwrap();
    let (mut wal, _, _) = open(dir.path(), 500, Box::new(RealDisk));
    let mut last = 0;
    for seq in 1..=50 {
        last = wal.append(&[entry(seq)]).unwrap()[0];
    }
    assert!(files(&dir.path().join("log"), ".wal").len() > 3);
    wal.trim(last - 1).unwrap();
    let (_, seen, _) = open(dir.path(), 500, Box::new(RealDisk));
    assert!(seen.contains(&50), "what is not committed stays");
    wal.trim(last).unwrap();
    assert_eq!(files(&dir.path().join("log"), ".wal").len(), 1);
    let (wal, seen, _) = open(dir.path(), 500, Box::new(RealDisk));
    assert!(seen.is_empty());
    assert_eq!(wal.marks().seen("a", 1, 50), super::Seen::Duplicate);
}

#[test]
fn a_failed_sync_is_never_acked_from_the_same_file() {
    let dir = tempfile::tempdir().unwrap();
    let faults = Faults::default();
    let (mut wal, _, _) = open(dir.path(), u64::MAX, Box::new(FaultyDisk::new(&faults)));
    wal.append(&[entry(1)]).unwrap();
    faults.fail_syncs(1);
    wal.append(&[entry(2)]).expect("rewritten to a new segment");
    assert_eq!(files(&dir.path().join("log"), ".wal").len(), 2);
    // Both the old and the new file fail: nothing may be acked.
    faults.fail_syncs(2);
    wal.append(&[entry(3)]).unwrap_err();
    wal.append(&[entry(3)]).expect("the disk is well again");
    drop(wal);
    faults.lose_power();
    let (_, seen, _) = open(dir.path(), u64::MAX, Box::new(RealDisk));
    assert_eq!(seen, [1, 2, 3]);
}

/// What a test does to a log.
#[derive(Clone, Debug)]
enum Action {
    Append(u8),
    FailWrites(u8),
    FailSyncs(u8),
    Trim,
    PowerLoss,
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let action = prop_oneof![
        6 => (1u8..5).prop_map(Action::Append),
        1 => (1u8..4).prop_map(Action::FailWrites),
        1 => (1u8..4).prop_map(Action::FailSyncs),
        1 => Just(Action::Trim),
        1 => Just(Action::PowerLoss),
    ];
    prop::collection::vec(action, 1..40)
}

/// Runs the actions; gives the batches that were acked and are lost, and
/// those that came back twice.
fn play(actions: &[Action], faults: &Faults) -> (BTreeSet<u64>, BTreeSet<u64>) {
    let dir = tempfile::tempdir().unwrap();
    let (mut acked, mut committed, mut twice) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let (mut wal, _, _) = open(dir.path(), 300, Box::new(FaultyDisk::new(faults)));
    let (mut next, mut last) = (1, 0);
    for action in actions.iter().chain([&Action::PowerLoss]) {
        match action {
            Action::Append(n) => {
                // A sender repeats what was not acked.
                let group: Vec<Entry> = (next..next + u64::from(*n)).map(entry).collect();
                if let Ok(lsns) = wal.append(&group) {
                    acked.extend(next..next + u64::from(*n));
                    next += u64::from(*n);
                    last = *lsns.last().unwrap();
                }
            }
            Action::FailWrites(n) => faults.fail_writes(*n),
            Action::FailSyncs(n) => faults.fail_syncs(*n),
            Action::Trim => {
                committed.clone_from(&acked);
                let _ = wal.trim(last);
            }
            Action::PowerLoss => {
                drop(wal);
                faults.lose_power();
                let (fresh, seen, _) = open(dir.path(), 300, Box::new(FaultyDisk::new(faults)));
                wal = fresh;
                let unique: BTreeSet<u64> = seen.iter().copied().collect();
                if unique.len() < seen.len() {
                    twice.extend(unique.iter().copied());
                }
                let lost: BTreeSet<u64> = acked
                    .iter()
                    .copied()
                    .filter(|s| !unique.contains(s) && !committed.contains(s))
                    .collect();
                if !lost.is_empty() {
                    return (lost, twice);
                }
                // Written but not acked: the marks answer its repetition.
                let known = unique.iter().next_back().copied().unwrap_or(0);
                acked.extend(next..=known);
                next = next.max(known + 1);
            }
        }
    }
    (BTreeSet::new(), twice)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn acked_batches_survive_faults_and_power_losses(actions in actions()) {
        let (lost, twice) = play(&actions, &Faults::default());
        prop_assert!(lost.is_empty(), "lost {lost:?}");
        prop_assert!(twice.is_empty(), "twice {twice:?}");
    }

    #[test]
    fn decoding_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = super::record::decode(&bytes);
    }
}

#[test]
fn control_a_sync_that_does_nothing_is_caught() {
    let faults = Faults::default();
    faults.lie_about_syncs();
    let (lost, _) = play(&[Action::Append(3), Action::PowerLoss], &faults);
    assert_eq!(lost, BTreeSet::from([1, 2, 3]));
}

#[test]
fn what_a_killed_process_wrote_is_durable_once_it_was_read_back() {
    let (dir, faults) = (tempfile::tempdir().unwrap(), Faults::default());
    let disk = || Box::new(FaultyDisk::new(&faults));
    // Killed before its syncs came to the disk.
    faults.lie_about_syncs();
    let (mut wal, _, _) = open(dir.path(), u64::MAX, disk());
    wal.append(&[entry(1), entry(2)]).unwrap();
    drop(wal);
    faults.sync_again();
    let (_, seen, _) = open(dir.path(), u64::MAX, disk());
    assert_eq!(seen, [1, 2]);
    faults.lose_power();
    let (_, seen, _) = open(dir.path(), u64::MAX, disk());
    assert_eq!(
        seen,
        [1, 2],
        "acked as repetitions since, so not to be lost"
    );
}
