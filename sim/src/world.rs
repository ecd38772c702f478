//! One seed from its start to its verdict.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, anyhow};
use headroom_collector::config::{Config, Raw};
use turmoil::Sim;

use crate::book::{Agent, Book, Found, host};
use crate::chance;
use crate::disk::SimDisk;
use crate::hosts;
use crate::net::COLLECTOR;
use crate::plan::{Fault, HEALED, Plan, Way};
use crate::tables::SimTables;
use crate::trace::Trace;
use crate::verdict::{Verdict, verdict};

/// Step of simulated time.
const TICK: Duration = Duration::from_millis(10);
/// Longest time from the healing until every agent has shipped all it has.
const DRAIN: Duration = Duration::from_secs(300);

/// What is taken away to show that it would be caught.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Without {
    /// Syncs of the log do nothing.
    Fsync,
    /// A batch that comes again is stored again.
    Dedupe,
    /// Segments of the log do not begin with the marks.
    Marks,
    /// Commits of tables do not say up to which position they reach.
    Position,
}

/// A simulation under way.
pub struct World<'a> {
    sim: Sim<'a>,
    plan: Plan,
    book: Book,
    disk: SimDisk,
    tables: SimTables,
    trace: Trace,
    /// When the collector comes back.
    collector_up: Option<Duration>,
    /// When each agent comes back.
    agents_up: Vec<Option<Duration>>,
    crashes: u64,
    partitions: u64,
}

impl World<'_> {
    /// The hosts of a seed, none of them running yet.
    ///
    /// # Errors
    /// The configuration does not hold.
    pub fn new(
        seed: u64,
        dir: &Path,
        without: Option<Without>,
        events: bool,
    ) -> anyhow::Result<Self> {
        let (plan, trace, book) = (Plan::of(seed), Trace::new(events), Book::default());
        let (disk, tables) = (SimDisk::new(&trace), SimTables::new(&trace));
        disk.change(|f| {
            f.lying = without == Some(Without::Fsync);
            f.forgetful = without == Some(Without::Marks);
        });
        tables.change(|f| f.forgetful = without == Some(Without::Position));
        let collector = hosts::Collector {
            config: config(&plan, dir.join("collector"))?,
            disk: disk.clone(),
            tables: tables.clone(),
            dedupe: without != Some(Without::Dedupe),
            book: book.clone(),
            trace: trace.clone(),
        };
        let mut sim = turmoil::Builder::new()
            .rng_seed(seed)
            .epoch(SystemTime::UNIX_EPOCH)
            .tick_duration(TICK)
            .simulation_duration(HEALED + DRAIN * 2)
            .min_message_latency(Duration::from_millis(1))
            .max_message_latency(Duration::from_millis(plan.latency_ms))
            .tcp_capacity(4096)
            .enable_random_order()
            .build();
        sim.host(COLLECTOR, move || hosts::collector(collector.clone()));
        for number in 0..plan.agents {
            book.lock().agents.push(Agent::default());
            let agent = hosts::Agent {
                number,
                dir: dir.join(host(number)),
                spool: plan.spool,
                every: Duration::from_millis(plan.every_ms),
                book: book.clone(),
                trace: trace.clone(),
            };
            sim.host(host(number), move || hosts::agent(agent.clone()));
        }
        Ok(Self {
            agents_up: vec![None; plan.agents],
            sim,
            plan,
            book,
            disk,
            tables,
            trace,
            collector_up: None,
            crashes: 0,
            partitions: 0,
        })
    }

    /// Lets the faults happen, heals, waits until all is shipped, pulls the
    /// plug once more, and looks.
    ///
    /// # Errors
    /// A host's software failed, or the agents do not get rid of their rows.
    pub fn run(mut self) -> anyhow::Result<Verdict> {
        let faults = std::mem::take(&mut self.plan.faults);
        for (at, fault) in faults {
            self.until(at)?;
            self.apply(fault)?;
        }
        self.until(HEALED)?;
        self.heal();
        self.drain()?;
        let before = self.book.lock().observe()?;
        self.end_collector(true)?;
        self.ready()?;
        let after = self.book.lock().observe()?;
        self.conclude(&before, &after)
    }

    fn step(&mut self) -> anyhow::Result<()> {
        let now = self.sim.elapsed();
        self.trace.at(now);
        if self.disk.frozen() && self.collector_up.is_none() {
            self.end_collector(chance::one_in(3))?;
        }
        if self.collector_up.is_some_and(|at| at <= now) {
            self.collector_up = None;
            self.disk.thaw();
            self.sim.bounce(COLLECTOR);
        }
        for agent in 0..self.plan.agents {
            if self.agents_up[agent].is_some_and(|at| at <= now) {
                self.agents_up[agent] = None;
                self.sim.bounce(host(agent));
            }
        }
        self.sim.step().map_err(|e| anyhow!("a host failed: {e}"))?;
        Ok(())
    }

    fn until(&mut self, time: Duration) -> anyhow::Result<()> {
        while self.sim.elapsed() < time {
            self.step()?;
        }
        Ok(())
    }

    fn apply(&mut self, fault: Fault) -> anyhow::Result<()> {
        self.trace.at(self.sim.elapsed());
        self.trace
            .note(format_args!("fault"), format_args!("{fault:?}"));
        match fault {
            Fault::Collector { power } => self.end_collector(power)?,
            Fault::DieIn(operations) => self.disk.change(|f| f.die_in = operations),
            Fault::Agent(agent) => self.end_agent(agent),
            Fault::Cut(agent, way) => self.cut(&host(agent), way),
            Fault::Repair(agent, way) => self.repair(&host(agent), way),
            Fault::Hold(agent) => self.sim.hold(host(agent), COLLECTOR),
            Fault::Release(agent) => self.sim.release(host(agent), COLLECTOR),
            Fault::Disk(writes, syncs) => {
                self.disk.change(|f| (f.writes, f.syncs) = (writes, syncs))
            }
            Fault::Tables(commits, syncs) => {
                self.tables
                    .change(|f| (f.commits, f.syncs) = (commits, syncs));
            }
            Fault::Slow(longest) => chance::set_pace(longest),
        }
        Ok(())
    }

    fn cut(&mut self, agent: &str, way: Way) {
        self.partitions += 1;
        match way {
            Way::Both => self.sim.partition(agent, COLLECTOR),
            Way::There => self.sim.partition_oneway(agent, COLLECTOR),
            Way::Back => self.sim.partition_oneway(COLLECTOR, agent),
        }
    }

    fn repair(&self, agent: &str, way: Way) {
        match way {
            Way::Both => self.sim.repair(agent, COLLECTOR),
            Way::There => self.sim.repair_oneway(agent, COLLECTOR),
            Way::Back => self.sim.repair_oneway(COLLECTOR, agent),
        }
    }

    fn end_collector(&mut self, power: bool) -> anyhow::Result<()> {
        if self.collector_up.is_some() {
            return Ok(());
        }
        self.crashes += 1;
        let rows = self.book.lock().observe()?.len();
        self.trace.note(
            format_args!("{COLLECTOR}"),
            format_args!("ends with {rows} rows, power cut: {power}"),
        );
        self.sim.crash(COLLECTOR);
        self.book.lock().collector_ends();
        self.tables.end(power);
        if power {
            self.disk.lose_power().context("losing power")?;
        }
        let down = Duration::from_millis(chance::within(50..=3_000).into());
        self.collector_up = Some(self.sim.elapsed() + down);
        Ok(())
    }

    fn end_agent(&mut self, agent: usize) {
        if self.agents_up[agent].is_some() {
            return;
        }
        self.crashes += 1;
        self.book.lock().agent_ends(agent);
        self.sim.crash(host(agent));
        let down = Duration::from_millis(chance::within(50..=5_000).into());
        self.agents_up[agent] = Some(self.sim.elapsed() + down);
    }

    fn heal(&mut self) {
        self.disk.change(|f| f.die_in = 0);
        self.book.lock().over = true;
    }

    fn drain(&mut self) -> anyhow::Result<()> {
        let limit = self.sim.elapsed() + DRAIN;
        while (0..self.plan.agents)
            .any(|a| self.agents_up[a].is_some() || self.sim.is_host_running(host(a)))
        {
            anyhow::ensure!(
                self.sim.elapsed() < limit,
                "agents still have rows {} s after the healing",
                DRAIN.as_secs()
            );
            self.step()?;
        }
        Ok(())
    }

    /// Waits for a collector that answers.
    fn ready(&mut self) -> anyhow::Result<()> {
        let limit = self.sim.elapsed() + DRAIN;
        while !self.book.lock().ready {
            anyhow::ensure!(
                self.sim.elapsed() < limit,
                "the collector does not come back"
            );
            self.step()?;
        }
        Ok(())
    }

    fn conclude(&self, before: &Found, after: &Found) -> anyhow::Result<Verdict> {
        let mut book = self.book.lock();
        let seen = std::mem::take(&mut book.seen);
        let mut verdict = verdict(&book, &seen, before, after)?;
        verdict.crashes = self.crashes;
        verdict.partitions = self.partitions;
        self.trace
            .note(format_args!("end"), format_args!("{verdict:?}"));
        verdict.digest = self.trace.digest();
        Ok(verdict)
    }
}

fn config(plan: &Plan, data_dir: PathBuf) -> anyhow::Result<Config> {
    Ok(Config {
        data_dir,
        flush: plan.flush,
        segment_size: plan.segment,
        group_commit: plan.group_commit,
        hot_limit: plan.hot_limit,
        ..Raw::default().validate()?
    })
}
