//! The command's side of the terminal: lines, interrupts, flags.

use std::io::Write as _;
use std::time::Duration;

/// Prints one line to standard output. A closed pipe ends the program quietly,
/// as every filter does.
pub fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// Prints one line to standard error.
pub fn complain(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Resolves at SIGINT or SIGTERM.
pub async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut int), Ok(mut term)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) else {
        // Without handlers the signals end the process as they always do.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = int.recv() => {}
        _ = term.recv() => {}
    }
}

/// A duration flag such as `30s`.
///
/// # Errors
/// No number, or no unit of time.
pub fn duration(text: &str) -> Result<Duration, headroom_core::units::UnitError> {
    headroom_core::units::parse_duration(text)
}
