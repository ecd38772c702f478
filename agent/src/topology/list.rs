//! The kernel's lists of numbers, such as `0-3,8,10-11`.

use std::path::Path;

use crate::files;

/// Numbers a list may name at most: beyond NR_CPUS of any build (8192).
const MAX: usize = 1 << 16;

/// Numbers of a list, in order. `None` for what is no list, or a far too long
/// one; an empty text is an empty list.
#[must_use]
pub fn parse(text: &str) -> Option<Vec<u32>> {
    let mut all = Vec::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        let length = usize::try_from(last.checked_sub(first)?).ok()?;
        if all.len().saturating_add(length) >= MAX {
            return None;
        }
        all.extend(first..=last);
    }
    Some(all)
}

/// Numbers of the list in a file; `None` also where it cannot be read.
#[must_use]
pub fn read(path: impl AsRef<Path>) -> Option<Vec<u32>> {
    parse(&files::text(path)?)
}

/// The list of some sorted numbers.
#[must_use]
pub fn format(numbers: &[u32]) -> String {
    let run = |run: &[u32]| match run {
        [first, .., last] => format!("{first}-{last}"),
        [one] => one.to_string(),
        [] => String::new(),
    };
    let runs = numbers.chunk_by(|a, b| a.checked_add(1) == Some(*b));
    runs.map(run).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        assert_eq!(parse("0-3,8,10-11\n"), Some(vec![0, 1, 2, 3, 8, 10, 11]));
        assert_eq!(parse("\n"), Some(vec![]));
        for bad in ["x", "3-1", "-1", "1-", "0-4294967295", "0-70000"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        assert_eq!(format(&[0, 1, 2, 3, 8, 10, 11]), "0-3,8,10-11");
        assert_eq!(format(&[]), "");
        assert_eq!(format(&[u32::MAX]), "4294967295");
    }
}
