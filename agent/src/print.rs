//! `--print ndjson`: the rows of each window on standard output, where there
//! is no collector or somebody only wants to look.

mod ndjson;

use std::io::{self, ErrorKind, Write as _};
use std::ops::ControlFlow;
use std::sync::mpsc::channel as stop_channel;
use std::time::Duration;

use anyhow::Context as _;

use crate::config::Config;
use crate::sampler::Sampler;
use crate::{clock, run};

/// Prints until SIGINT, SIGTERM, the end of `time`, or until nobody reads any
/// more; a last, shorter window comes at the end. Says on standard error
/// `attached` and by what, or why not. To be called first of all in `main`,
/// as [`crate::main_blocking`].
///
/// # Errors
/// Standard output cannot be written (a closed pipe is no error), the
/// capabilities cannot be dropped, or there is no thread to be had.
pub fn print_blocking(config: &Config, time: Option<Duration>) -> anyhow::Result<()> {
    let sampler = run::attach(config)?;
    let interval = config.interval;
    run::runtime()?.block_on(async {
        let interrupted = run::interrupted()?;
        announce(&sampler).context("writing to standard error")?;
        let (stop, stopped) = stop_channel();
        let (ended, end_of_output) = tokio::sync::oneshot::channel::<()>();
        let sampling = std::thread::Builder::new()
            .name("sampler".into())
            .spawn(move || {
                let mut written = Ok(());
                let emit = |sampler: &mut Sampler, end| {
                    written = emit(sampler, end);
                    match written {
                        Ok(()) => ControlFlow::Continue(()),
                        Err(_) => ControlFlow::Break(()),
                    }
                };
                run::sample(sampler, interval, emit, &stopped);
                drop(ended);
                written
            })
            .context("starting the sampling thread")?;
        tokio::select! {
            () = interrupted => {}
            () = over(time) => {}
            _ = end_of_output => {}
        }
        drop(stop);
        // Nothing else runs here, so blocking the runtime's thread is fine.
        let Ok(written) = sampling.join() else {
            anyhow::bail!("the sampling thread panicked");
        };
        match written {
            Err(e) if e.kind() != ErrorKind::BrokenPipe => {
                Err(e).context("writing to standard output")
            }
            _ => Ok(()),
        }
    })
}

async fn over(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}

fn announce(sampler: &Sampler) -> io::Result<()> {
    let mut err = io::stderr().lock();
    match sampler.degraded() {
        None => writeln!(err, "attached {}", sampler.source()),
        Some(reason) => writeln!(err, "not attached: {reason}"),
    }
}

/// One write a window, so that a reader sees whole windows.
fn emit(sampler: &mut Sampler, end: Duration) -> io::Result<()> {
    let mut lines = Vec::new();
    for chunk in sampler.window(clock::micros(end)).chunks() {
        ndjson::append(&chunk, &mut lines)?;
    }
    let mut out = io::stdout().lock();
    out.write_all(&lines)?;
    out.flush()
}
