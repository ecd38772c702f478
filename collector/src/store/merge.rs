//! Which files are brought together, and when.
//!
//! A file a flush, every ten minutes, is small: a table of many makes queries
//! open hundreds and commits slow. So an hour's files become one soon after
//! its end, and a day's once no more late rows are to be expected.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::common::ScalarValue;

use super::DataFile;
use super::parquet::generation;

/// Files of one merge: each is read at the same time as the others.
pub const MAX_INPUTS: usize = 12;
/// Bytes of the files of an hour, and of those of a day.
const HOUR_BYTES: u64 = 256 << 20;
const DAY_BYTES: u64 = 512 << 20;

const MINUTE_US: i64 = 60_000_000;
const HOUR_US: i64 = 60 * MINUTE_US;
const DAY_US: i64 = 24 * HOUR_US;
/// How long after an hour's end its rows have come, late ones apart.
const HOUR_IS_OVER_US: i64 = 15 * MINUTE_US;
/// The same of a day: agents keep rows for a day.
const DAY_IS_OVER_US: i64 = DAY_US;

/// Files whose rows go into one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merge {
    /// Day of all rows, `YYYY-MM-DD`.
    pub date: String,
    /// Paths relative to the table's directory.
    pub inputs: Vec<String>,
    /// Of the file that they become.
    pub generation: u8,
}

/// The next merge that a table needs at that time, µs since 1970 UTC; `None`
/// when it needs none. Each leaves fewer files behind, so they come to an end.
pub fn due(files: &[Arc<DataFile>], now_us: i64) -> Option<Merge> {
    let mut days: BTreeMap<&str, Vec<Candidate<'_>>> = BTreeMap::new();
    for file in files {
        if let Some((date, candidate)) = Candidate::of(file) {
            days.entry(date).or_default().push(candidate);
        }
    }
    days.iter()
        .find_map(|(date, files)| of_day(files, now_us).map(|(inputs, n)| merge(date, inputs, n)))
}

struct Candidate<'a> {
    path: &'a str,
    size: u64,
    generation: u8,
    /// Time of its last row.
    until_us: i64,
}

impl<'a> Candidate<'a> {
    /// With its day; `None` for a file without bounds or of another layout.
    fn of(file: &'a DataFile) -> Option<(&'a str, Self)> {
        let date = file.path.strip_prefix("date=")?.split_once('/')?.0;
        let (_, last) = file.bounds.columns.first()?.as_ref()?;
        let ScalarValue::TimestampMicrosecond(Some(until_us), _) = last else {
            return None;
        };
        let candidate = Self {
            path: &file.path,
            size: file.size,
            generation: generation(&file.path),
            until_us: *until_us,
        };
        Some((date, candidate))
    }
}

fn of_day<'a>(files: &[Candidate<'a>], now_us: i64) -> Option<(Vec<&'a str>, u8)> {
    let day = files.iter().map(|f| f.until_us).max()?.div_euclid(DAY_US);
    if now_us >= (day + 1) * DAY_US + DAY_IS_OVER_US {
        let fresh = files.iter().any(|f| f.generation < 3);
        return fresh
            .then(|| together(files.iter(), DAY_BYTES))
            .flatten()
            .map(|inputs| (inputs, 3));
    }
    let mut hours: BTreeMap<i64, Vec<&Candidate<'a>>> = BTreeMap::new();
    for file in files.iter().filter(|f| f.generation < 3) {
        let hour = file.until_us.div_euclid(HOUR_US);
        if now_us >= (hour + 1) * HOUR_US + HOUR_IS_OVER_US {
            hours.entry(hour).or_default().push(file);
        }
    }
    let of_hour = |files: Vec<&Candidate<'a>>| {
        let fresh = files.iter().any(|f| f.generation < 2);
        let many = fresh || files.len() >= MAX_INPUTS;
        many.then(|| together(files.into_iter(), HOUR_BYTES))
            .flatten()
    };
    hours
        .into_values()
        .find_map(of_hour)
        .map(|inputs| (inputs, 2))
}

/// The smallest of the files, as many as fit; two at least.
fn together<'a, 'f>(
    files: impl Iterator<Item = &'f Candidate<'a>>,
    most: u64,
) -> Option<Vec<&'a str>>
where
    'a: 'f,
{
    let mut files: Vec<_> = files.collect();
    files.sort_by_key(|f| (f.size, f.path));
    let mut bytes = 0;
    let fitting = files.iter().take(MAX_INPUTS).take_while(|f| {
        bytes += f.size;
        bytes <= most
    });
    let inputs: Vec<&str> = fitting.map(|f| f.path).collect();
    (inputs.len() >= 2).then_some(inputs)
}

fn merge(date: &str, inputs: Vec<&str>, generation: u8) -> Merge {
    Merge {
        date: date.to_owned(),
        inputs: inputs.into_iter().map(str::to_owned).collect(),
        generation,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Bounds;

    fn file(name: &str, size: u64, until_us: i64) -> Arc<DataFile> {
        let at = ScalarValue::TimestampMicrosecond(Some(until_us), Some("UTC".into()));
        Arc::new(DataFile {
            path: format!("date=2026-03-01/part-{name}.parquet"),
            size,
            bounds: Arc::new(Bounds {
                rows: 1,
                columns: vec![Some((at.clone(), at))],
            }),
        })
    }

    const DAY: i64 = 20_513 * DAY_US;

    fn names(merge: &Merge) -> Vec<&str> {
        let name = |path: &'_ String| {
            let tail = path.rsplit_once("part-").unwrap().1.len();
            path.len() - tail
        };
        merge
            .inputs
            .iter()
            .map(|p| &p[name(p)..p.len() - 8])
            .collect()
    }

    #[test]
    fn an_hour_is_merged_when_it_is_over() {
        let files = [
            file("a", 10, DAY + 10 * MINUTE_US),
            file("b", 10, DAY + 50 * MINUTE_US),
            file("c", 10, DAY + 61 * MINUTE_US),
        ];
        assert_eq!(due(&files, DAY + 74 * MINUTE_US), None);
        let merge = due(&files, DAY + 75 * MINUTE_US).unwrap();
        assert_eq!((names(&merge), merge.generation), (vec!["a", "b"], 2));
        assert_eq!(merge.date, "2026-03-01");
        // The one of the next hour is alone.
        assert_eq!(due(&files[2..], DAY + 10 * HOUR_US), None);
    }

    #[test]
    fn a_late_file_joins_its_hour() {
        let files = [file("a-g2", 99, DAY), file("b", 1, DAY + 1)];
        let merge = due(&files, DAY + 5 * HOUR_US).unwrap();
        assert_eq!((names(&merge), merge.generation), (vec!["b", "a-g2"], 2));
        let merged = [file("c-g2", 100, DAY), file("d-g2", 100, DAY)];
        assert_eq!(due(&merged, DAY + 5 * HOUR_US), None);
    }

    #[test]
    fn a_day_is_merged_when_nothing_late_can_come() {
        let files = [
            file("a-g2", 10, DAY + HOUR_US),
            file("b-g2", 10, DAY + 2 * HOUR_US),
            file("c-g3", 10, DAY + 3 * HOUR_US),
        ];
        assert_eq!(due(&files, DAY + 2 * DAY_US - 1), None);
        let merge = due(&files, DAY + 2 * DAY_US).unwrap();
        assert_eq!(merge.inputs.len(), 3);
        assert_eq!(merge.generation, 3);
        assert_eq!(due(&files[2..], DAY + 9 * DAY_US), None);
    }

    #[test]
    fn no_more_than_fit() {
        let many: Vec<_> = (0..20)
            .map(|n| file(&format!("{n:02}"), 1, DAY + n))
            .collect();
        assert_eq!(
            due(&many, DAY + DAY_US - 1).unwrap().inputs.len(),
            MAX_INPUTS
        );
        let large = [file("a", HOUR_BYTES, DAY), file("b", 1, DAY)];
        assert_eq!(due(&large, DAY + DAY_US - 1), None);
    }

    /// Whatever came, merging ends, and no file is left out for ever.
    #[test]
    fn merging_comes_to_an_end() {
        let mut files: Vec<_> = (0..400)
            .map(|n| {
                file(
                    &format!("{n:03}"),
                    1 + u64::try_from(n % 7).unwrap(),
                    DAY + n * 3 * MINUTE_US,
                )
            })
            .collect();
        let mut merges = 0;
        for now_us in [DAY + DAY_US, DAY + 2 * DAY_US, DAY + 3 * DAY_US] {
            while let Some(merge) = due(&files, now_us) {
                merges += 1;
                assert!(merges < 400);
                let (inputs, rest): (Vec<_>, Vec<_>) = files
                    .into_iter()
                    .partition(|f| merge.inputs.contains(&f.path));
                let until = |f: &Arc<DataFile>| Candidate::of(f).unwrap().1.until_us;
                let made = file(
                    &format!("m{merges}-g{}", merge.generation),
                    inputs.iter().map(|f| f.size).sum(),
                    inputs.iter().map(until).max().unwrap(),
                );
                files = rest;
                files.push(made);
            }
        }
        assert_eq!(files.len(), 1);
        assert!(files[0].path.ends_with("-g3.parquet"));
    }
}
