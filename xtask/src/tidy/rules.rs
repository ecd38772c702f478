//! The rules, on names and contents alone.

use std::fmt;

/// Lines of a source file.
const MAX_FILE: usize = 500;
/// Lines of a function, its signature included.
const MAX_FUNCTION: usize = 70;

/// Crate roots that may hold unsafe code, and why.
const UNSAFE_ROOTS: [(&str, &str); 3] = [
    ("agent/src/lib.rs", "maps BPF arrays into memory"),
    ("ebpf/probes/src/main.rs", "reads kernel memory"),
    (
        "lab/payload/src/lib.rs",
        "holds the lab guest's machine code",
    ),
];

/// Dependencies of the simulation, and itself.
const SIMULATORS: [&str; 3] = ["mad-turmoil", "turmoil", "headroom-sim"];

/// Places of one machine: neither sources nor the BPF object may name them.
const PLACES: [&str; 3] = ["/work/", "/root/", "/home/"];
/// The rules name what they forbid.
const RULES: &str = "xtask/src/tidy/rules";

/// Something to put right.
#[derive(Debug, PartialEq, Eq)]
pub struct Finding {
    file: String,
    line: usize,
    problem: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.problem)
    }
}

/// Checks one file.
pub fn check_file(name: &str, bytes: &[u8], hostname: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut find = |line, problem: String| {
        findings.push(Finding {
            file: name.to_owned(),
            line,
            problem,
        });
    };
    if name == "mod.rs" || name.ends_with("/mod.rs") {
        find(1, "a module is foo.rs with foo/, not mod.rs".to_owned());
    }
    let text = String::from_utf8_lossy(bytes);
    if name.ends_with(".rs") {
        let lines = text.lines().count();
        if lines > MAX_FILE {
            find(1, format!("{lines} lines, {MAX_FILE} at most: split it"));
        }
        for (line, length) in long_functions(&text) {
            find(
                line,
                format!("a function of {length} lines, {MAX_FUNCTION} at most: split it"),
            );
        }
    }
    if !name.starts_with(RULES) {
        for (line, word) in forbidden(&text, hostname) {
            find(line, format!("{word} is of one machine only"));
        }
    }
    findings
}

/// Checks that a crate forbids unsafe code, in its manifest or its root.
pub fn check_crate(root: &str, manifest: &str, source: &str) -> Option<Finding> {
    let forbids = manifest.contains("unsafe_code = \"forbid\"")
        || source.contains("#![forbid(unsafe_code)]")
        || UNSAFE_ROOTS.iter().any(|(excepted, _)| *excepted == root);
    (!forbids).then(|| Finding {
        file: root.to_owned(),
        line: 1,
        problem: "no #![forbid(unsafe_code)]".to_owned(),
    })
}

/// Checks that only the simulation links what takes over a whole process's
/// time and randomness.
pub fn check_manifest(name: &str, manifest: &str) -> Option<Finding> {
    // The root's only names the version.
    if ["Cargo.toml", "sim/Cargo.toml"].contains(&name) {
        return None;
    }
    let taker = |line: &str| SIMULATORS.iter().any(|word| line.starts_with(word));
    let at = manifest.lines().position(taker)?;
    Some(Finding {
        file: name.to_owned(),
        line: at + 1,
        problem: "replaces the clock of the process: for sim alone".to_owned(),
    })
}

/// First line and length of each function that is too long. Relies on rustfmt:
/// a function ends at the brace that stands below its first character.
fn long_functions(text: &str) -> Vec<(usize, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut long = Vec::new();
    for (start, line) in lines
        .iter()
        .enumerate()
        .filter(|(_, line)| begins_function(line))
    {
        let indent = &line[..line.len() - line.trim_start().len()];
        let closing = format!("{indent}}}");
        let end = lines[start..].iter().position(|l| {
            *l == closing
                || l.ends_with(';') && l.starts_with(indent) && !l[indent.len()..].starts_with(' ')
        });
        let length = end.map_or(0, |end| end + 1);
        if length > MAX_FUNCTION {
            long.push((start + 1, length));
        }
    }
    long
}

fn begins_function(line: &str) -> bool {
    let words = line.split_whitespace();
    let modifier = |w: &&str| {
        matches!(
            *w,
            "pub" | "const" | "async" | "unsafe" | "extern" | "\"C\""
        ) || w.starts_with("pub(")
    };
    words
        .skip_while(modifier)
        .take(2)
        .collect::<Vec<_>>()
        .first()
        == Some(&"fn")
}

fn forbidden<'a>(text: &'a str, hostname: &'a str) -> Vec<(usize, &'a str)> {
    // A short name ("vm") is a word of the trade.
    let hostname = (hostname.len() > 5 && hostname != "localhost").then_some(hostname);
    let words: Vec<&str> = PLACES.into_iter().chain(hostname).collect();
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for word in &words {
            if line.contains(word) {
                found.push((number + 1, *word));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests;
