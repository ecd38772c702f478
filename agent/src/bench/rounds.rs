//! The variants, each in its turn.

use std::collections::VecDeque;
use std::path::Path;

use crate::bench::game::Game;
use crate::bench::peer::{Peer, Spec};
use crate::bench::report::LeftOut;
use crate::bench::{BenchError, ProbesOptions, bpftrace};
use crate::probe::{EmptyPrograms, Probes};
use crate::sampler::chain;

/// Times of an operation, ns, of the ping-pong and of the disk, with one thing
/// attached.
#[derive(Default)]
pub struct Times {
    pub pingpong: Vec<f64>,
    pub reads: Vec<f64>,
}

impl Times {
    fn take(&mut self, game: &mut Game) -> Result<(), BenchError> {
        game.play(&mut self.pingpong)?;
        game.read(&mut self.reads)
    }
}

/// By what was attached.
#[derive(Default)]
pub struct Samples {
    pub nothing: Times,
    pub floor: Times,
    pub unregistered: Times,
    pub registered: Times,
    pub runqlat: Times,
    pub runqlat_biolatency: Times,
    pub biolatency: Times,
    pub bpftrace: Times,
}

impl Samples {
    /// One round.
    ///
    /// # Errors
    /// Ours can't be attached, or a load failed. A peer that fails is left out
    /// from then on, with its samples.
    pub fn round(
        &mut self,
        game: &mut Game,
        options: &ProbesOptions,
        peers: &mut Peers,
    ) -> Result<(), BenchError> {
        self.nothing.take(game)?;
        let empty = EmptyPrograms::attach()?;
        game.play(&mut self.floor.pingpong)?;
        drop(empty);
        let mut probes = Probes::attach(&options.probes)?;
        game.play(&mut self.unregistered.pingpong)?;
        let _slots = game.register(&mut probes)?;
        self.registered.take(game)?;
        drop(probes);
        let runqlat = peers.runqlat.start();
        if runqlat.is_some() {
            game.play(&mut self.runqlat.pingpong)?;
        }
        let biolatency = peers.biolatency.start();
        if biolatency.is_some() && runqlat.is_some() {
            self.runqlat_biolatency.take(game)?;
        }
        peers.runqlat.stop(runqlat);
        if biolatency.is_some() {
            self.biolatency.take(game)?;
        }
        peers.biolatency.stop(biolatency);
        let bpftrace = peers.bpftrace.start();
        if bpftrace.is_some() {
            self.bpftrace.take(game)?;
        }
        peers.bpftrace.stop(bpftrace);
        Ok(())
    }

    /// Forgets what was measured of peers that failed since.
    pub fn without(&mut self, peers: &Peers) {
        if peers.runqlat.failure.is_some() {
            self.runqlat = Times::default();
        }
        if peers.biolatency.failure.is_some() {
            self.biolatency = Times::default();
        }
        if peers.runqlat.failure.is_some() || peers.biolatency.failure.is_some() {
            self.runqlat_biolatency = Times::default();
        }
        if peers.bpftrace.failure.is_some() {
            self.bpftrace = Times::default();
        }
    }
}

/// The peers of this host.
pub struct Peers {
    runqlat: Candidate,
    biolatency: Candidate,
    bpftrace: Candidate,
}

impl Peers {
    /// By the options.
    pub fn of(options: &ProbesOptions) -> Self {
        let (runqlat, biolatency) = (&options.runqlat, &options.biolatency);
        Self {
            runqlat: Candidate::new("runqlat", runqlat, [Spec::runqlat(runqlat)]),
            biolatency: Candidate::new("biolatency", biolatency, [Spec::biolatency(biolatency)]),
            bpftrace: Candidate::new(
                "bpftrace",
                &options.bpftrace,
                bpftrace::specs(&options.bpftrace),
            ),
        }
    }

    /// Those that gave no figures.
    pub fn left_out(&self) -> impl Iterator<Item = LeftOut> {
        [&self.runqlat, &self.biolatency, &self.bpftrace]
            .into_iter()
            .filter_map(|peer| {
                peer.failure.as_ref().map(|reason| LeftOut {
                    what: peer.name.to_owned(),
                    reason: reason.clone(),
                })
            })
    }
}

/// A peer that may be missing or fail.
struct Candidate {
    name: &'static str,
    /// The ways to start it that are left, the first one to be tried next.
    specs: VecDeque<Spec>,
    /// What each way came to.
    reasons: Vec<String>,
    /// Why it gives no figures.
    failure: Option<String>,
}

impl Candidate {
    fn new(name: &'static str, program: &Path, specs: impl Into<VecDeque<Spec>>) -> Self {
        let missing = !program.exists();
        Self {
            name,
            specs: specs.into(),
            reasons: Vec::new(),
            failure: missing.then(|| format!("{} is not installed", program.display())),
        }
    }

    /// Starts it in the first way that works here.
    fn start(&mut self) -> Option<Peer> {
        while self.failure.is_none() {
            let Some(spec) = self.specs.front() else {
                self.failure = Some(self.reasons.join("; "));
                break;
            };
            match Peer::start(spec) {
                Ok(peer) => {
                    // The figures are of one way.
                    self.specs.truncate(1);
                    return Some(peer);
                }
                Err(error) => {
                    self.specs.pop_front();
                    self.reasons.push(chain(&error));
                }
            }
        }
        None
    }

    fn stop(&mut self, peer: Option<Peer>) {
        if let Some(Err(error)) = peer.map(Peer::stop) {
            self.failure = Some(chain(&error));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::peer::Ready;

    fn shell(script: &str) -> Spec {
        Spec {
            program: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
            ready: Ready::Line("attached"),
        }
    }

    #[test]
    fn the_second_way_is_kept_if_it_works() {
        let specs = [
            shell("echo ERROR: no tracefs >&2; exit 1"),
            shell("echo attached; exec sleep 100"),
        ];
        let mut peer = Candidate::new("x", Path::new("/bin/sh"), specs);
        for _ in 0..2 {
            let running = peer.start();
            assert!(running.is_some());
            peer.stop(running);
        }
        assert_eq!((peer.reasons.len(), peer.failure), (1, None));
    }

    #[test]
    fn all_ways_that_fail_are_told() {
        let specs = [shell("echo one >&2; exit 1"), shell("echo two >&2; exit 1")];
        let mut peer = Candidate::new("x", Path::new("/bin/sh"), specs);
        assert!(peer.start().is_none());
        let failure = peer.failure.unwrap();
        assert!(
            failure.contains("one") && failure.contains("two"),
            "{failure}"
        );
        let gone = Path::new("/nonexistent/peer");
        assert!(Candidate::new("x", gone, []).failure.is_some());
    }
}
