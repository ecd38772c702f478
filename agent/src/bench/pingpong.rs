//! Two threads on one CPU that wake each other in turn through pipes: two
//! wake-ups and two switches an operation, as `perf bench sched pipe -T`.
//!
//! Threads rather than processes: a switch between address spaces would only
//! make the unattached operation longer, and our share of it smaller.

use std::io::{self, PipeReader, PipeWriter, Read, Write, pipe};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, gettid, sched_setaffinity};

/// The pair: the thread that made it, and another that answers.
pub struct PingPong {
    // Closed first on drop, which ends the other thread.
    ping: Option<PipeWriter>,
    pong: PipeReader,
    other: Option<JoinHandle<io::Result<()>>>,
    tids: [u32; 2],
}

impl PingPong {
    /// Pins the calling thread and starts the other beside it.
    ///
    /// # Errors
    /// No such CPU for this process, or no pipes or threads left.
    pub fn start(cpu: usize) -> io::Result<Self> {
        // The other thread inherits the CPU.
        pin(cpu)?;
        let (theirs, ping) = pipe()?;
        let (pong, answers) = pipe()?;
        let (send, receive) = mpsc::channel();
        let other = thread::Builder::new()
            .name("pong".to_owned())
            .spawn(move || {
                // Nobody listens only if the maker is gone.
                let _ = send.send(tid());
                answer(theirs, answers)
            })?;
        let theirs = receive.recv().map_err(io::Error::other)?;
        Ok(Self {
            ping: Some(ping),
            pong,
            other: Some(other),
            tids: [tid(), theirs],
        })
    }

    /// Both threads.
    pub const fn tids(&self) -> [u32; 2] {
        self.tids
    }

    /// Plays, from the thread that made the pair.
    ///
    /// # Errors
    /// The other thread is gone.
    pub fn run(&mut self, operations: u32) -> io::Result<Duration> {
        let ping = self.ping.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        let mut byte = [0];
        let start = Instant::now();
        for _ in 0..operations {
            ping.write_all(&byte)?;
            self.pong.read_exact(&mut byte)?;
        }
        Ok(start.elapsed())
    }
}

impl Drop for PingPong {
    fn drop(&mut self) {
        self.ping = None;
        if let Some(other) = self.other.take() {
            // Its only error is the pipe closed by the line above.
            drop(other.join());
        }
    }
}

fn answer(mut ping: PipeReader, mut pong: PipeWriter) -> io::Result<()> {
    let mut byte = [0];
    while ping.read(&mut byte)? == 1 {
        pong.write_all(&byte)?;
    }
    Ok(())
}

fn pin(cpu: usize) -> io::Result<()> {
    if cpu >= CpuSet::MAX_CPU {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut set = CpuSet::new();
    set.set(cpu);
    Ok(sched_setaffinity(None, &set)?)
}

fn tid() -> u32 {
    gettid().as_raw_nonzero().get().unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ping_is_answered() {
        // A thread of its own, for it gets pinned.
        let played = thread::spawn(|| {
            let mut pair = PingPong::start(0).unwrap();
            let [ours, theirs] = pair.tids();
            assert_ne!(ours, theirs);
            pair.run(1000).unwrap()
        });
        assert!(played.join().unwrap() > Duration::ZERO);
    }

    #[test]
    fn a_cpu_that_is_not_there_is_an_error() {
        assert!(PingPong::start(CpuSet::MAX_CPU).is_err());
    }
}
