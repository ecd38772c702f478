use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

/// Eight segments of 256 bytes.
const CAP: u64 = 2048;

/// Contents and rows of a batch by its number.
fn sample(number: u64) -> (Vec<u8>, u64) {
    let len = usize::try_from(number * 7 % 60).unwrap();
    let mut wire = number.to_le_bytes().to_vec();
    wire.extend(vec![u8::try_from(number % 251).unwrap(); len]);
    (wire, number % 9 + 1)
}

fn push(spool: &mut Spool, number: u64) -> Amount {
    let (wire, rows) = sample(number);
    let mut dropped = Amount::default();
    spool.append(&wire, rows, &mut dropped).unwrap();
    dropped
}

fn number(wire: &[u8]) -> u64 {
    u64::from_le_bytes(wire[..8].try_into().unwrap())
}

/// Reads and finishes everything; the numbers, and the rows lost on the way.
fn drain(spool: &mut Spool) -> (Vec<u64>, u64) {
    let (mut numbers, mut lost) = (Vec::new(), 0);
    loop {
        match spool.read() {
            Next::Batch { wire, rows } => {
                let number = number(&wire);
                assert_eq!((wire, rows), sample(number), "not what was written");
                numbers.push(number);
                spool.done().unwrap();
            }
            Next::Damaged(amount) => lost += amount.rows,
            Next::Empty => return (numbers, lost),
        }
    }
}

fn rows(numbers: impl IntoIterator<Item = u64>) -> u64 {
    numbers.into_iter().map(|n| sample(n).1).sum()
}

#[test]
fn goes_on_where_the_last_process_was() {
    let dir = tempfile::tempdir().unwrap();
    let (mut spool, left) = Spool::open(dir.path(), CAP).unwrap();
    assert_eq!(left, Left::default());
    for number in 0..12 {
        assert_eq!(push(&mut spool, number), Amount::default());
    }
    for _ in 0..5 {
        assert!(matches!(spool.read(), Next::Batch { .. }));
        spool.done().unwrap();
    }
    // The sixth is read, and not done.
    assert!(matches!(spool.read(), Next::Batch { .. }));
    drop(spool);
    let (mut spool, left) = Spool::open(dir.path(), CAP).unwrap();
    assert_eq!((left.waiting.batches, left.waiting.rows), (7, rows(5..12)));
    assert_eq!((left.dropped_rows, left.damaged_segments), (0, 0));
    push(&mut spool, 12);
    assert_eq!(drain(&mut spool), ((5..13).collect(), 0));
    drop(spool);
    let (_, left) = Spool::open(dir.path(), CAP).unwrap();
    assert_eq!(left, Left::default());
    let files = fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(files, 1, "only the cursor");
}

#[test]
fn the_held_batch_is_never_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let (mut spool, _) = Spool::open(dir.path(), CAP).unwrap();
    push(&mut spool, 0);
    assert!(matches!(spool.read(), Next::Batch { .. }));
    let mut dropped = Amount::default();
    for number in 1..500 {
        let now = push(&mut spool, number);
        dropped.add(now.batches, now.rows);
        assert!(spool.bytes() <= CAP);
    }
    assert!(dropped.rows > 0);
    drop(spool);
    let (mut spool, left) = Spool::open(dir.path(), CAP).unwrap();
    assert_eq!(left.dropped_rows, dropped.rows);
    let (numbers, lost) = drain(&mut spool);
    assert_eq!((numbers[0], numbers.last(), lost), (0, Some(&499), 0));
    assert_eq!(rows(numbers) + dropped.rows, rows(0..500));
}

#[test]
fn a_batch_larger_than_the_spool_drops_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let (mut spool, _) = Spool::open(dir.path(), CAP).unwrap();
    push(&mut spool, 2);
    let mut dropped = Amount::default();
    let error = spool.append(&[0; 4096], 1, &mut dropped).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert_eq!(dropped, Amount::default());
    push(&mut spool, 3);
    assert_eq!(drain(&mut spool).0, [2, 3]);
}

#[test]
fn without_the_cursor_everything_comes_again() {
    let dir = tempfile::tempdir().unwrap();
    let (mut spool, _) = Spool::open(dir.path(), CAP).unwrap();
    for number in 0..8 {
        push(&mut spool, number);
    }
    spool.read();
    spool.done().unwrap();
    drop(spool);
    fs::write(dir.path().join("cursor"), [0xff; 128]).unwrap();
    let (mut spool, left) = Spool::open(dir.path(), CAP).unwrap();
    assert_eq!((left.dropped_rows, left.damaged_rows), (0, 0));
    assert_eq!(drain(&mut spool).0, (0..8).collect::<Vec<_>>());
}

/// A spool of several segments and what is in each file.
struct Image {
    dir: tempfile::TempDir,
    files: Vec<(String, Vec<u8>)>,
    batches: u64,
}

impl Image {
    fn make(batches: u64) -> Self {
        // In memory if there is: 10 000 spools sync 40 000 times.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let dir = dir.unwrap();
        let (mut spool, _) = Spool::open(dir.path(), CAP).unwrap();
        for number in 0..batches {
            assert_eq!(push(&mut spool, number), Amount::default());
        }
        let mut files: Vec<(String, Vec<u8>)> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let name = entry.file_name().into_string().unwrap();
                (name, fs::read(entry.path()).unwrap())
            })
            .collect();
        files.sort();
        Self {
            dir,
            files,
            batches,
        }
    }

    fn segments(&self) -> impl Iterator<Item = &(String, Vec<u8>)> {
        self.files.iter().filter(|(name, _)| name.ends_with(".seg"))
    }

    /// Batches that end at or before byte `at` of that segment.
    fn before(&self, name: &str, at: usize) -> u64 {
        let mut count = 0;
        for (segment, bytes) in self.segments() {
            let mut end = MAGIC.len();
            while end < bytes.len() {
                end += HEADER + sample(count).0.len();
                if segment == name && end > at {
                    return count;
                }
                count += 1;
            }
            if segment == name {
                return count;
            }
        }
        count
    }

    /// The files as they were, but for one.
    fn restore(&self, changed: &str, bytes: &[u8]) {
        fs::remove_dir_all(self.dir.path()).unwrap();
        fs::create_dir(self.dir.path()).unwrap();
        for (name, original) in &self.files {
            let bytes = if name == changed { bytes } else { original };
            fs::write(self.dir.path().join(name), bytes).unwrap();
        }
    }

    /// Opens it and reads everything: what came before the damage is there,
    /// what comes is what was written, and every row is accounted for.
    fn check(&self, before: u64) -> u64 {
        let (mut spool, left) = Spool::open(self.dir.path(), CAP).unwrap();
        let (numbers, lost) = drain(&mut spool);
        assert!(
            numbers
                .iter()
                .take_while(|n| **n < before)
                .eq(&(0..before).collect::<Vec<_>>())
        );
        assert!(numbers.is_sorted());
        let missing = rows(0..self.batches) - rows(numbers);
        // A file that ends between two batches looks like one whose end was
        // dropped.
        assert_eq!(left.damaged_rows + lost + left.dropped_rows, missing);
        drop(spool);
        let (_, again) = Spool::open(self.dir.path(), CAP).unwrap();
        let behind = Left {
            dropped_rows: left.dropped_rows,
            ..Left::default()
        };
        assert_eq!(again, behind);
        missing
    }
}

#[test]
fn cut_at_every_byte() {
    let image = Image::make(24);
    assert!(image.segments().count() >= 4);
    let mut cuts = 0;
    for (name, bytes) in image.segments() {
        for at in 0..bytes.len() {
            image.restore(name, &bytes[..at]);
            let before = image.before(name, at);
            assert!(image.check(before) > 0);
            cuts += 1;
        }
    }
    println!("{cuts} cuts: 0 panics, 0 rows lost before the cut");
}

#[test]
fn ten_thousand_flipped_bits() {
    use rand::{Rng as _, SeedableRng as _};
    let image = Image::make(24);
    let files: Vec<_> = image.segments().cloned().collect();
    let mut rng = rand::rngs::StdRng::seed_from_u64(9);
    let mut lost = 0;
    for _ in 0..10_000 {
        let (name, bytes) = &files[rng.random_range(0..files.len())];
        let (at, bit) = (rng.random_range(0..bytes.len()), rng.random_range(0..8));
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << bit;
        image.restore(name, &damaged);
        let before = image.before(name, at);
        let missing = image.check(before);
        assert!(missing > 0, "byte {at} of {name} is not covered");
        lost += missing;
    }
    println!("10000 flips: 0 panics, 0 rows lost before the flip, {lost} after it");
}

#[test]
fn a_flipped_bit_of_the_cursor_loses_nothing() {
    let image = Image::make(24);
    let cursor = image.files.iter().find(|(name, _)| name == "cursor");
    let bytes = cursor.unwrap().1.clone();
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        image.restore("cursor", &damaged);
        assert_eq!(image.check(image.batches), 0);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Push,
    Read,
    Done,
    Sync,
    Reopen,
    DropFromMemory(u64),
}

#[derive(Default)]
struct Model {
    waiting: VecDeque<u64>,
    held: Option<u64>,
    dropped_rows: u64,
    damaged_rows: u64,
    number: u64,
}

impl Model {
    fn step(&mut self, spool: &mut Spool, step: &Step) -> Result<(), TestCaseError> {
        match step {
            Step::Push => {
                let dropped = push(spool, self.number);
                let gone = self
                    .waiting
                    .drain(..usize::try_from(dropped.batches).unwrap());
                prop_assert_eq!(rows(gone), dropped.rows);
                self.dropped_rows += dropped.rows;
                self.waiting.push_back(self.number);
                self.number += 1;
            }
            Step::Read if self.held.is_none() => match spool.read() {
                Next::Batch { wire, .. } => {
                    self.held = self.waiting.pop_front();
                    prop_assert_eq!(Some(number(&wire)), self.held);
                }
                Next::Empty => prop_assert!(self.waiting.is_empty()),
                Next::Damaged(amount) => prop_assert!(false, "{amount:?}"),
            },
            Step::Done => {
                self.held = None;
                spool.done().unwrap();
            }
            Step::Sync => spool.sync().unwrap(),
            Step::DropFromMemory(rows) => {
                spool.dropped_from_memory(*rows).unwrap();
                self.dropped_rows += rows;
            }
            Step::Read | Step::Reopen => {}
        }
        prop_assert!(spool.bytes() <= CAP);
        Ok(())
    }

    /// What a new process has to find.
    fn reopened(&mut self, left: &Left) -> Result<(), TestCaseError> {
        if let Some(held) = self.held.take() {
            self.waiting.push_front(held);
        }
        prop_assert_eq!(left.waiting.batches, self.waiting.len() as u64);
        prop_assert_eq!(left.waiting.rows, rows(self.waiting.iter().copied()));
        prop_assert_eq!(left.dropped_rows, self.dropped_rows);
        prop_assert_eq!(left.damaged_rows, self.damaged_rows);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn as_the_model(steps in prop::collection::vec(prop_oneof![
        10 => Just(Step::Push), 6 => Just(Step::Read), 6 => Just(Step::Done),
        1 => Just(Step::Sync), 2 => Just(Step::Reopen),
        1 => (1u64..9).prop_map(Step::DropFromMemory)], 1..300))
    {
        let dir = tempfile::tempdir().unwrap();
        let (mut spool, _) = Spool::open(dir.path(), CAP).unwrap();
        let mut model = Model::default();
        for step in steps {
            if matches!(step, Step::Reopen) {
                drop(spool);
                let (next, left) = Spool::open(dir.path(), CAP).unwrap();
                spool = next;
                model.reopened(&left)?;
            }
            model.step(&mut spool, &step)?;
        }
        let held: Vec<u64> = model.held.take().into_iter().collect();
        spool.done().unwrap();
        let rest = drain(&mut spool).0;
        prop_assert!(held.iter().all(|h| rest.iter().all(|r| r > h)));
        prop_assert_eq!(rest, Vec::from(model.waiting));
    }
}
