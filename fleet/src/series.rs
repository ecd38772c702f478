//! Demand over time: a compiled-in sample of real series, or a file's.

use std::collections::BTreeMap;

/// Real CPU use of VMs; the file's head names source and licence.
const SAMPLE: &str = include_str!("../data/azure_vm_cpu.txt");
/// Step of the sample, s.
const SAMPLE_STEP: f64 = 300.0;

/// A file of series that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SeriesError {
    /// A line that is none.
    #[error(
        "line {0}: expected series_id,timestamp,value with a time in Unix seconds and percent as value"
    )]
    Line(usize),
    /// No series of two values or more.
    #[error("no series with two values or more, at least 1 s apart")]
    Empty,
}

/// Equally spaced series of CPU use as fractions of the VM's vCPUs.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    step: f64,
    values: Vec<Vec<f64>>,
}

impl Series {
    /// The compiled-in sample: 24 VMs, 7 days, 5 min.
    #[must_use]
    pub fn sample() -> Self {
        let fraction = |b: u8| f64::from(b.saturating_sub(b'#')) / 90.0;
        let lines = SAMPLE.lines().filter(|l| !l.starts_with("# "));
        Self {
            step: SAMPLE_STEP,
            values: lines.map(|l| l.bytes().map(fraction).collect()).collect(),
        }
    }

    /// Reads `series_id,timestamp,value` with Unix seconds and percent; an
    /// empty value repeats the one before. The step is the first series' own.
    ///
    /// # Errors
    /// A line that is none, or no usable series.
    pub fn from_csv(text: &str) -> Result<Self, SeriesError> {
        let mut values = BTreeMap::<&str, Vec<f64>>::new();
        let (mut first, mut step) = (None, None);
        for (i, line) in text.lines().enumerate().skip(1) {
            let bad = || SeriesError::Line(i + 1);
            let mut fields = line.split(',').map(str::trim);
            let (Some(id), Some(time), Some(value)) = (fields.next(), fields.next(), fields.next())
            else {
                return Err(bad());
            };
            let time: f64 = time.parse().map_err(|_| bad())?;
            let (of, began) = *first.get_or_insert((id, time));
            if of == id && time > began && step.is_none() {
                step = Some(time - began);
            }
            let series = values.entry(id).or_default();
            let value = match value {
                "" => series.last().copied().unwrap_or(0.0),
                v => v.parse::<f64>().map_err(|_| bad())? / 100.0,
            };
            series.push(value.clamp(0.0, 1.0));
        }
        let values: Vec<_> = values.into_values().filter(|v| v.len() > 1).collect();
        let step = step.filter(|s| *s >= 1.0).ok_or(SeriesError::Empty)?;
        if values.is_empty() {
            return Err(SeriesError::Empty);
        }
        Ok(Self { step, values })
    }

    /// Number of series.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Value of a series at a time in s, between two values in proportion; it
    /// begins again at its end.
    #[must_use]
    pub fn at(&self, series: usize, seconds: f64) -> f64 {
        let Some(values) = self.values.get(series) else {
            return 0.0;
        };
        let at = (seconds / self.step).max(0.0);
        let index = crate::model::whole(at.floor()).unsigned_abs();
        let of = |i: u64| {
            let i = usize::try_from(i % values.len().max(1) as u64).unwrap_or(0);
            values.get(i).copied().unwrap_or(0.0)
        };
        let part = at - at.floor();
        of(index) * (1.0 - part) + of(index + 1) * part
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_is_24_machines_of_a_week() {
        let sample = Series::sample();
        assert_eq!(sample.len(), 24);
        assert!(sample.values.iter().all(|v| v.len() == 2016));
        let all = sample.values.iter().flatten();
        assert!(all.clone().all(|v| (0.0..=1.0).contains(v)));
        assert!(all.copied().fold(0.0, f64::max) > 0.8, "busy ones too");
    }

    #[test]
    fn a_file_gives_its_step_and_its_values_in_between() {
        let series = Series::from_csv("series_id,timestamp,value\na,0,10\na,60,30\na,120,\n");
        let series = series.unwrap();
        assert!((series.at(0, 30.0) - 0.2).abs() < 1e-9);
        assert!((series.at(0, 120.0) - 0.3).abs() < 1e-9, "repeated");
        assert!((series.at(0, 180.0) - 0.1).abs() < 1e-9, "begins again");
        assert_eq!(
            Series::from_csv("h\na,x,1\n").unwrap_err(),
            SeriesError::Line(2)
        );
        assert_eq!(Series::from_csv("h\n").unwrap_err(), SeriesError::Empty);
    }
}
