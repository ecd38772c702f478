//! The two loads: a ping-pong, and reads of a disk.

use std::io;

use headroom_abi::tag;

use crate::bench::BenchError;
use crate::bench::disk::Disk;
use crate::bench::pingpong::PingPong;
use crate::probe::{Probes, Slot};

/// Samples of one variant in a row; then the next variant has its turn.
pub const SAMPLES_PER_ROUND: u32 = 2;
/// Round trips in a sample: 2 ms, short enough to fit between disturbances.
const OPERATIONS: u32 = 1000;
/// Reads in a sample: some 5 ms.
const READS: u32 = 200;

/// Both loads, on one CPU.
pub struct Game {
    pingpong: PingPong,
    disk: Option<Disk>,
    cpu: usize,
}

impl Game {
    /// Pins the calling thread, from which alone it can be played, and starts
    /// both; why there is no disk, if so.
    ///
    /// # Errors
    /// No ping-pong.
    pub fn start(cpu: usize) -> Result<(Self, Option<io::Error>), BenchError> {
        let pingpong =
            PingPong::start(cpu).map_err(|source| BenchError::PingPong { cpu, source })?;
        let (disk, reason) = match Disk::start() {
            Ok(disk) => (Some(disk), None),
            Err(error) => (None, Some(error)),
        };
        let game = Self {
            pingpong,
            disk,
            cpu,
        };
        Ok((game, reason))
    }

    /// Makes the two threads vCPUs of two VMs. Never released: all of it goes
    /// with the probes.
    ///
    /// # Errors
    /// They can't be registered.
    pub fn register(&self, probes: &mut Probes) -> Result<[Slot; 2], BenchError> {
        let [own, other] = self.pingpong.tids();
        Ok([
            probes.register(own, tag::of(1, tag::role::VCPU))?,
            probes.register(other, tag::of(2, tag::role::VCPU))?,
        ])
    }

    /// Samples of the ping-pong, after a warm-up.
    ///
    /// # Errors
    /// As for [`Game::pingpong`].
    pub fn play(&mut self, times: &mut Vec<f64>) -> Result<(), BenchError> {
        self.pingpong(OPERATIONS / 2)?;
        for _ in 0..SAMPLES_PER_ROUND {
            times.push(self.pingpong(OPERATIONS)?);
        }
        Ok(())
    }

    /// Samples of reads, after a warm-up; none without a disk.
    ///
    /// # Errors
    /// As for [`Game::reads`].
    pub fn read(&mut self, times: &mut Vec<f64>) -> Result<(), BenchError> {
        if self.disk.is_none() {
            return Ok(());
        }
        self.reads(READS / 2)?;
        for _ in 0..SAMPLES_PER_ROUND {
            times.push(self.reads(READS)?);
        }
        Ok(())
    }

    /// Whether there is a disk.
    pub const fn has_disk(&self) -> bool {
        self.disk.is_some()
    }

    /// Time of one of `operations` of the ping-pong, ns.
    ///
    /// # Errors
    /// The other thread is gone.
    pub fn pingpong(&mut self, operations: u32) -> Result<f64, BenchError> {
        let time = self.pingpong.run(operations);
        let time = time.map_err(|source| BenchError::PingPong {
            cpu: self.cpu,
            source,
        })?;
        Ok(time.as_secs_f64() * 1e9 / f64::from(operations))
    }

    /// Time of one of `reads`, ns.
    ///
    /// # Errors
    /// There is no disk, or it is gone.
    pub fn reads(&mut self, reads: u32) -> Result<f64, BenchError> {
        let disk = self.disk.as_mut();
        let time = disk.map_or(Err(io::ErrorKind::NotConnected.into()), |d| d.run(reads));
        let time = time.map_err(|source| BenchError::Disk { source })?;
        Ok(time.as_secs_f64() * 1e9 / f64::from(reads))
    }
}
