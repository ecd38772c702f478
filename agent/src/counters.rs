//! Files of the kernel that hold one figure a line, and pressure files.

/// Figures of a file of `name value` lines; a name that the file lacks has
/// none, so that what a kernel does not count is never taken for zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    names: &'static [&'static str],
    values: Vec<Option<u64>>,
}

impl Counters {
    /// The figures of these names. A `:` after a name, a unit after a value
    /// (`MemFree: 8 kB`) and the node before both (`Node 0 MemFree: 8 kB`) are
    /// left out.
    pub fn parse(names: &'static [&'static str], text: &str) -> Self {
        let mut values = vec![None; names.len()];
        for line in text.lines() {
            let of_node = line.strip_prefix("Node ").and_then(|l| l.split_once(' '));
            let line = of_node.map_or(line, |(_, line)| line);
            let mut words = line.split_ascii_whitespace();
            let name = words.next().unwrap_or_default();
            let name = name.strip_suffix(':').unwrap_or(name);
            if let Some(at) = names.iter().position(|n| *n == name) {
                values[at] = words.next().and_then(|v| v.parse().ok());
            }
        }
        Self { names, values }
    }

    /// The figure of a name.
    pub fn get(&self, name: &str) -> Option<u64> {
        let at = self.names.iter().position(|n| *n == name)?;
        self.values.get(at).copied().flatten()
    }

    /// The figure of a name that is in KiB, bytes.
    pub fn bytes(&self, name: &str) -> Option<u64> {
        self.get(name)?.checked_mul(1024)
    }

    /// The sum of those of these names that there are; `None` without any.
    pub fn sum(&self, names: &[&str]) -> Option<u64> {
        let mut found = names.iter().filter_map(|n| self.get(n)).peekable();
        found.peek()?;
        Some(found.sum())
    }

    /// How much a figure grew since `base`. One that fell (its cgroup was
    /// made anew) tells nothing.
    pub fn grown(&self, base: &Self, name: &str) -> Option<u64> {
        self.get(name)?.checked_sub(base.get(name)?)
    }
}

/// Totals of a pressure file, ns; `None` where the kernel does not account
/// pressure (built without PSI, or not switched on at boot).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// Time in which some task stalled.
    pub some_ns: Option<u64>,
    /// Time in which all tasks not idle stalled at once.
    pub full_ns: Option<u64>,
}

impl Pressure {
    /// Reads `some avg10=… total=MICROSECONDS` and the line of `full`.
    pub fn parse(text: &str) -> Self {
        let total = |kind: &str| {
            let line = text.lines().find_map(|l| l.strip_prefix(kind))?;
            let total = line
                .split_ascii_whitespace()
                .find_map(|w| w.strip_prefix("total="))?;
            total.parse::<u64>().ok()?.checked_mul(1000)
        };
        Self {
            some_ns: total("some "),
            full_ns: total("full "),
        }
    }

    /// What was added since `base`.
    pub fn since(&self, base: &Self) -> Self {
        let less = |now: Option<u64>, then: Option<u64>| now?.checked_sub(then?);
        Self {
            some_ns: less(self.some_ns, base.some_ns),
            full_ns: less(self.full_ns, base.full_ns),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_both_styles() {
        let c = Counters::parse(
            &["MemFree", "pswpout", "absent"],
            "MemFree:        17225072 kB\nMemFreeish: 4 kB\npswpout 12\n\n",
        );
        assert_eq!(
            (c.get("MemFree"), c.get("pswpout"), c.get("absent")),
            (Some(17_225_072), Some(12), None)
        );
        assert_eq!(c.sum(&["absent", "pswpout", "MemFree"]), Some(17_225_084));
        assert_eq!(c.sum(&["absent"]), None);
        let later = Counters::parse(&["MemFree", "pswpout"], "MemFree: 1 kB\npswpout 15\n");
        assert_eq!(
            (later.grown(&c, "pswpout"), later.grown(&c, "MemFree")),
            (Some(3), None)
        );
    }

    #[test]
    fn amounts_in_kib_of_the_host_and_of_a_node() {
        for text in ["MemTotal:  16384 kB\n", "Node 1 MemTotal:  16384 kB\n"] {
            let c = Counters::parse(&["MemTotal", "MemFree"], text);
            assert_eq!(
                (c.bytes("MemTotal"), c.bytes("MemFree")),
                (Some(16 << 20), None)
            );
        }
        let far = Counters::parse(&["MemTotal"], "MemTotal: 18446744073709551615 kB\n");
        assert_eq!(far.bytes("MemTotal"), None);
    }

    #[test]
    fn pressure_of_both_kinds() {
        let text = "some avg10=0.03 avg60=0.30 avg300=1.84 total=54612807\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=9\n";
        let p = Pressure::parse(text);
        assert_eq!((p.some_ns, p.full_ns), (Some(54_612_807_000), Some(9_000)));
        assert_eq!(Pressure::parse(""), Pressure::default());
        let since = Pressure::parse("some total=54612808\n").since(&p);
        assert_eq!((since.some_ns, since.full_ns), (Some(1_000), None));
    }
}
