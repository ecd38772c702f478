//! `/proc/cpuinfo` (`arch/x86/kernel/cpu/proc.c`, `arch/arm64/kernel/cpuinfo.c`).

use std::collections::{BTreeMap, HashMap};

/// What it says of one CPU.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Info {
    /// Model name.
    pub model: Option<String>,
    /// Vendor, family, model, stepping.
    pub generation: Option<String>,
    /// Revision of the microcode.
    pub microcode: Option<String>,
    /// Base frequency, MHz.
    pub mhz_base: Option<f64>,
}

/// Each online CPU, by number.
pub fn parse(text: &str) -> BTreeMap<u32, Info> {
    let mut all = BTreeMap::new();
    for block in text.split("\n\n") {
        let fields: HashMap<&str, &str> = block
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(key, value)| (key.trim(), value.trim()))
            .filter(|(_, value)| !value.is_empty())
            .collect();
        if let Some(cpu) = fields.get("processor").and_then(|n| n.parse().ok()) {
            all.insert(cpu, info(&fields));
        }
    }
    all
}

fn info(fields: &HashMap<&str, &str>) -> Info {
    let model = fields.get("model name").copied();
    let all = |keys: &[&str]| {
        let values: Option<Vec<&str>> = keys.iter().map(|k| fields.get(k).copied()).collect();
        values.map(|values| values.join(" "))
    };
    let x86 = all(&["vendor_id", "cpu family", "model", "stepping"]);
    let arm = || all(&["CPU implementer", "CPU variant", "CPU part", "CPU revision"]);
    Info {
        model: model.map(str::to_owned),
        generation: x86.or_else(arm),
        microcode: fields.get("microcode").map(|m| (*m).to_owned()),
        mhz_base: model.and_then(named_mhz).or_else(|| steady_mhz(fields)),
    }
}

/// `… CPU @ 2.60GHz` in an Intel model name is the base frequency.
fn named_mhz(model: &str) -> Option<f64> {
    let ghz: f64 = model
        .rsplit_once("@ ")?
        .1
        .strip_suffix("GHz")?
        .parse()
        .ok()?;
    Some(ghz * 1000.0)
}

/// `cpu MHz` is the present frequency where the CPU counts its cycles
/// (`aperfmperf`), else the TSC's, which is the base frequency. A frequency
/// that moves would be a change of the topology each time.
fn steady_mhz(fields: &HashMap<&str, &str>) -> Option<f64> {
    let moves = fields
        .get("flags")
        .is_none_or(|flags| flags.split(' ').any(|flag| flag == "aperfmperf"));
    let mhz: f64 = fields.get("cpu MHz")?.parse().ok()?;
    (!moves && mhz > 0.0).then_some(mhz)
}
