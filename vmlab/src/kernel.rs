//! Debian's kernels: image and modules, fetched once.

mod apt;

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::LabError;
use crate::cache::Cache;
use crate::kernel::apt::Apt;

/// A line of kernels that the agent must work on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Series {
    /// Debian 12's; the oldest supported.
    V6_1,
    /// Debian 13's.
    V6_12,
}

impl Series {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::V6_1, Self::V6_12];

    /// As in the names of packages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
        }
    }

    /// Where to look, in this order. Security suites come first: they hold the
    /// newest builds and their lists are a tenth of the others'.
    const fn suites(self) -> &'static [&'static str] {
        match self {
            Self::V6_1 => &["bookworm-security", "bookworm"],
            Self::V6_12 => &[
                "bookworm-security",
                "bookworm-backports",
                "trixie-security",
                "trixie",
            ],
        }
    }

    /// A package's version as numbers, if it is an image of this series. The
    /// cloud flavour has what a VM needs at a third of the size.
    fn version(self, package: &str) -> Option<Vec<u64>> {
        let version = package.strip_prefix("linux-image-")?;
        let version = version.strip_suffix("-cloud-amd64")?;
        version.strip_prefix(self.name())?.strip_prefix('.')?;
        let numbers = version.split(|c: char| !c.is_ascii_digit());
        Some(numbers.filter_map(|n| n.parse().ok()).collect())
    }

    fn newest(self, packages: impl IntoIterator<Item = String>) -> Option<String> {
        let known = packages
            .into_iter()
            .filter_map(|p| Some((self.version(&p)?, p)));
        known.max().map(|(_, package)| package)
    }
}

impl FromStr for Series {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|s| s.name() == text);
        found.ok_or_else(|| format!("{text:?} is no kernel of the lab: 6.1 or 6.12"))
    }
}

/// An unpacked kernel.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// As `uname -r` gives it.
    pub release: String,
    /// The bootable image.
    pub image: PathBuf,
    /// Its `/lib/modules/RELEASE`.
    pub modules: PathBuf,
}

impl Kernel {
    /// The newest in the cache; the newest of Debian where there is none.
    pub(crate) fn obtain(series: Series, cache: &Cache) -> Result<Self, LabError> {
        let dir = cache.dir();
        let entries = fs::read_dir(dir).map_err(|e| LabError::io("list the cache", dir, e))?;
        let names = entries.filter_map(|e| e.ok()?.file_name().into_string().ok());
        let package = match series.newest(names) {
            Some(package) => package,
            None => fetch(series, dir).map_err(|e| LabError::Fetch(Box::new(e)))?,
        };
        Ok(Self::unpacked(&package, &dir.join(&package)))
    }

    fn unpacked(package: &str, dir: &Path) -> Self {
        let release = package.trim_start_matches("linux-image-").to_owned();
        Self {
            image: dir.join(format!("boot/vmlinuz-{release}")),
            modules: dir.join("lib/modules").join(&release),
            release,
        }
    }
}

/// The package's name; it is unpacked under that name. A suite that is gone or
/// away does not matter as long as another one has the kernel.
fn fetch(series: Series, dir: &Path) -> Result<String, LabError> {
    let mut failed = None;
    for suite in series.suites() {
        match fetch_from(series, suite, dir) {
            Ok(Some(package)) => return Ok(package),
            Ok(None) => {}
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    Err(failed.unwrap_or_else(|| LabError::NoKernel {
        series: series.name(),
        suites: series.suites().join(", "),
    }))
}

fn fetch_from(series: Series, suite: &str, dir: &Path) -> Result<Option<String>, LabError> {
    let apt = Apt::open(&dir.join("apt"), suite)?;
    let newest = series.newest(apt.packages("linux-image-")?);
    if let Some(package) = &newest {
        apt.unpack(package, &dir.join(package))?;
    }
    Ok(newest)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names as Debian's suites list them.
    const NAMES: [&str; 9] = [
        "linux-image-6.1.0-9-cloud-amd64",
        "linux-image-6.1.0-56-cloud-amd64",
        "linux-image-6.1.0-56-rt-amd64",
        "linux-image-6.1.0-60-cloud-amd64-unsigned",
        "linux-image-6.12-cloud-amd64",
        "linux-image-6.12.9+deb12-cloud-amd64",
        "linux-image-6.12.117+deb12-cloud-amd64",
        "linux-image-6.12.118+deb12-rt-amd64",
        "linux-image-6.16.3+deb13-cloud-amd64",
    ];

    #[test]
    fn the_newest_by_number_of_the_right_series_and_flavour() {
        let newest = |series: Series| series.newest(NAMES.map(str::to_owned));
        assert_eq!(newest(Series::V6_1).as_deref(), Some(NAMES[1]));
        assert_eq!(newest(Series::V6_12).as_deref(), Some(NAMES[6]));
        assert_eq!(Series::V6_12.newest(["lock".to_owned()]), None);
    }

    #[test]
    fn series_are_named_as_kernels_are() {
        for series in Series::ALL {
            assert_eq!(series.name().parse(), Ok(series));
        }
        assert!("5.10".parse::<Series>().unwrap_err().contains("6.12"));
    }
}
