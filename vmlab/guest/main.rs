//! The first process of a lab machine: mounts what a Linux system has, loads
//! the modules, carries out one scenario, tells what happened over the second
//! serial port, and powers the machine off.
//!
//! Under the name of a VMM it is a stand-in for one instead, see [`standin`].
#![forbid(unsafe_code)]

mod agent;
mod cgroup;
mod figures;
mod init;
mod recorder;
mod scenario;
mod standin;
mod task;
mod topology;
mod trace;
mod vm;
mod wire;

use std::env;
use std::process::ExitCode;

fn main() -> ExitCode {
    let program = env::args().next().unwrap_or_default();
    let outcome = if program == standin::PROGRAM {
        standin::run()
    } else if std::process::id() == 1 {
        init::run()
    } else {
        Err(anyhow::anyhow!(
            "this is the first process of the VM lab's machines; use: cargo xtask vm"
        ))
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            init::console(&format!("{error:#}"));
            ExitCode::from(2)
        }
    }
}
