//! `cargo xtask vm`: one scenario of the VM lab, for looking at. The tests of
//! headroom-vmlab run them all and compare.

use std::io::{self, Write as _};
use std::time::Instant;

use headroom_vmlab::{Lab, Report, Scenario, Series};

/// Flags of `cargo xtask vm`.
#[derive(clap::Args)]
#[command(after_help = "example: cargo xtask vm --kernel 6.1 --scenario nested --rows vcpus")]
pub struct Args {
    /// Debian's kernel: 6.1 or 6.12
    #[arg(long, default_value = "6.12")]
    kernel: Series,
    /// load, nested, numa, numa4, remote, quota, block, memory, noisy or scarce; without: only build
    /// the binaries and fetch the kernel
    #[arg(long)]
    scenario: Option<Scenario>,
    /// Print the agent's rows of this table too; "all" for every table
    #[arg(long, value_name = "TABLE")]
    rows: Option<String>,
}

/// Runs the scenario and prints what it brought back.
///
/// # Errors
/// The lab can't be prepared, or the scenario could not be carried out.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let began = Instant::now();
    let lab = Lab::prepare(args.kernel)?;
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "prepared {} after {:.1?}",
        lab.release(),
        began.elapsed()
    )?;
    let Some(scenario) = args.scenario else {
        return Ok(());
    };
    let began = Instant::now();
    let report = lab.run(scenario)?;
    print(&report, args.rows.as_deref(), &mut out)?;
    writeln!(
        out,
        "{} on {}: {:.1?}, disturbed for {:.0} % of its time",
        scenario.name(),
        report.kernel,
        began.elapsed(),
        report.disturbance * 100.0
    )?;
    Ok(())
}

fn print(report: &Report, rows: Option<&str>, out: &mut impl io::Write) -> io::Result<()> {
    for run in &report.runs {
        for line in run.said() {
            writeln!(out, "agent {}: {line}", run.name())?;
        }
        let wanted = |table: &str| rows.is_some_and(|r| r == "all" || r == table);
        let rows = run.all();
        for row in rows
            .iter()
            .filter(|r| r["table"].as_str().is_some_and(wanted))
        {
            writeln!(out, "{row}")?;
        }
        writeln!(
            out,
            "agent {}: exit code {:?}, {} rows",
            run.name(),
            run.exit_code(),
            rows.len()
        )?;
    }
    for (name, value) in report.truths() {
        writeln!(out, "truth {name}: {value}")?;
    }
    Ok(())
}
