//! Many seeds, each in a process of its own, and the controls.
//!
//! `HEADROOM_SIM_SEEDS` is the number of seeds, 200 unless set;
//! `HEADROOM_SIM_FIRST` the first one, 1 unless set.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

const SEEDS: u64 = 200;
/// Every so many seeds one is run twice.
const TWICE: u64 = 20;

/// What a seed printed, by name; `None` if it printed no verdict.
type Outcome = Result<BTreeMap<String, String>, String>;

fn seed(seed: u64, without: Option<&str>) -> Outcome {
    static RUNS: AtomicU64 = AtomicU64::new(0);
    let run = RUNS.fetch_add(1, Ordering::Relaxed);
    // Memory, where there is some: the files are not what is measured.
    let shm = Path::new("/dev/shm");
    let base = if shm.is_dir() {
        shm.into()
    } else {
        std::env::temp_dir()
    };
    let dir = base.join(format!("headroom-sim-{}-{run}", std::process::id()));
    let mut command = Command::new(env!("CARGO_BIN_EXE_headroom-sim"));
    command
        .arg("--seed")
        .arg(seed.to_string())
        .arg("--dir")
        .arg(&dir);
    if let Some(part) = without {
        command.args(["--without", part]);
    }
    let output = command.output().unwrap();
    let _ = std::fs::remove_dir_all(&dir);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let fields: BTreeMap<String, String> = text
        .split_whitespace()
        .filter_map(|word| word.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    if fields.contains_key("digest") {
        return Ok(fields);
    }
    Err(format!("{text}{}", String::from_utf8_lossy(&output.stderr)))
}

fn number(outcome: &BTreeMap<String, String>, name: &str) -> u64 {
    outcome[name].parse().unwrap()
}

fn wrong(outcome: &BTreeMap<String, String>) -> u64 {
    ["lost", "duplicated", "miscounted"]
        .iter()
        .map(|name| number(outcome, name))
        .sum()
}

fn from_env(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap())
}

/// Runs all, as many at once as there are CPUs.
fn run_all(seeds: Vec<u64>) -> Vec<(u64, Outcome)> {
    let (todo, done) = (Mutex::new(seeds), Mutex::new(Vec::new()));
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let Some(next) = todo.lock().unwrap().pop() else {
                        return;
                    };
                    let outcome = seed(next, None);
                    done.lock().unwrap().push((next, outcome));
                }
            });
        }
    });
    done.into_inner().unwrap()
}

#[test]
fn no_seed_loses_or_doubles_a_row_and_each_can_be_repeated() {
    let began = Instant::now();
    let first = from_env("HEADROOM_SIM_FIRST", 1);
    let count = from_env("HEADROOM_SIM_SEEDS", SEEDS);
    let mut seeds: Vec<u64> = (first..first + count).collect();
    seeds.extend((first..first + count).step_by(usize::try_from(TWICE).unwrap()));
    let mut digests = BTreeMap::<u64, Vec<String>>::new();
    let mut sums = BTreeMap::<String, u64>::new();
    let mut bad = Vec::new();
    for (seed, outcome) in run_all(seeds) {
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(text) => {
                bad.push(format!("seed {seed}: {text}"));
                continue;
            }
        };
        if wrong(&outcome) > 0 {
            bad.push(format!("seed {seed}: {outcome:?}"));
        }
        let known = digests.entry(seed).or_default();
        known.push(outcome["digest"].clone());
        // The second run adds nothing to the sums.
        for (name, value) in outcome.iter().filter(|_| known.len() == 1) {
            let value = value.parse::<u64>().unwrap_or(0);
            *sums.entry(name.clone()).or_default() += value;
        }
    }
    sums.remove("seed");
    sums.remove("digest");
    let seconds = began.elapsed().as_secs();
    println!("simulation: {count} seeds in {seconds} s: {sums:?}");
    assert!(bad.is_empty(), "{}", bad.join("\n"));
    let twice: Vec<_> = digests.values().filter(|d| d.len() > 1).collect();
    assert!(
        twice.iter().all(|d| d[0] == d[1]),
        "not repeatable: {digests:?}"
    );
    println!(
        "simulation: {} seeds ran twice, digests identical",
        twice.len()
    );
    // A simulation in which nothing happens proves nothing.
    for name in [
        "acked_rows",
        "crashes",
        "partitions",
        "repeated",
        "refused",
        "dropped_rows",
    ] {
        assert!(
            count < SEEDS || sums[name] > 0,
            "no {name} in {count} seeds"
        );
    }
}

#[test]
fn what_is_taken_away_is_missed() {
    for (part, sign) in [
        ("fsync", "lost"),
        ("dedupe", "duplicated"),
        ("marks", "duplicated"),
        ("position", "duplicated"),
    ] {
        let caught = (1..=SEEDS).find_map(|number_of| {
            let outcome = seed(number_of, Some(part)).unwrap();
            let rows = number(&outcome, sign);
            (rows > 0).then_some((number_of, rows))
        });
        let (at, rows) =
            caught.unwrap_or_else(|| panic!("{SEEDS} seeds without {part}, not missed"));
        println!("simulation: without {part}: seed {at} has {rows} rows {sign}");
    }
}
