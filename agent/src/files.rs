//! Small files of the kernel. `None` where one is missing, hidden or gone.

use std::path::Path;
use std::str::FromStr;

/// A file's text. Bytes that are no UTF-8, as in names that tasks give
/// themselves, are replaced.
pub fn text(path: impl AsRef<Path>) -> Option<String> {
    let bytes = std::fs::read(path).ok()?;
    let text = String::from_utf8(bytes);
    Some(text.unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

/// The same without the line's end, for a file of one line.
pub fn line(path: impl AsRef<Path>) -> Option<String> {
    let mut text = text(path)?;
    text.truncate(text.trim_end_matches('\n').len());
    Some(text)
}

/// The number that is all a file holds.
pub fn number<T: FromStr>(path: impl AsRef<Path>) -> Option<T> {
    text(path)?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_holds() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("comm"), b"a\xff b\n").unwrap();
        std::fs::write(path("size"), " 42\n").unwrap();
        assert_eq!(text(path("comm")).as_deref(), Some("a\u{fffd} b\n"));
        assert_eq!(line(path("comm")).as_deref(), Some("a\u{fffd} b"));
        assert_eq!(number(path("size")), Some(42u64));
        assert_eq!(number::<u8>(path("comm")), None);
        assert_eq!((text(path("none")), line(path("none"))), (None, None));
    }
}
