//! The loop: history, forecasts, gate, delivery.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use headroom_core::batch::Chunk;
use headroom_core::rows::ForecastRow;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::clock::{self, Micros};
use crate::config::{Config, WebhookConfig};
use crate::gate::{Decision, Gate, Outlook};
use crate::history::{self, History, Metric, Series, SqlClient, Subject};
use crate::model::{self, Options, Selection};
use crate::notify::{Deliverer, Outbox, Schedule, Secret, check_url};
use crate::push::Pusher;

/// Steps of a forecast that are stored: 1000 VMs × 2 metrics × 30 rows each
/// 30 s are 2000 rows/s, a fifth of what their telemetry takes.
const STORED_STEPS: usize = 30;
/// Pause between two looks at the outbox.
const DELIVERY_PAUSE: Duration = Duration::from_millis(500);

/// Forecasts until `shutdown`. A collector that is away is waited for.
///
/// # Errors
/// A state directory that cannot be used, or a secret that is none.
pub async fn run(
    config: Config,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    // A second installation of the same provider is no error.
    drop(rustls::crypto::ring::default_provider().install_default());
    let dir = &config.state_dir;
    std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    let outbox = Arc::new(Mutex::new(Outbox::open(&dir.join("outbox"))?));
    let wake = Arc::new(Notify::new());
    let delivery = deliver(
        deliverer(&config.webhook, dir, Arc::clone(&outbox))?,
        Arc::clone(&wake),
    );
    let mut service = Service::new(&config, outbox, wake)?;
    tracing::info!(collector = config.collector, every = ?config.every, horizon = ?config.horizon, "forecaster started");
    let mut ticks = tokio::time::interval(config.every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            _ = ticks.tick() => {}
        }
        // A tick in flight is given up at shutdown: what must not be lost is
        // in the outbox before anything else knows of it.
        tokio::select! {
            () = &mut shutdown => break,
            () = service.tick() => {}
        }
    }
    delivery.abort();
    tracing::info!(
        dropped_rows = service.pusher.dropped_rows(),
        "forecaster stopped"
    );
    Ok(())
}

/// Forecasts every series that has enough points. Choosing a model anew costs
/// milliseconds, so the stalest choices are renewed first and only until
/// `budget` is spent; the others are used again.
#[must_use]
pub fn forecast_all(
    series: Vec<Series>,
    choices: &mut Choices,
    horizon: usize,
    budget: Duration,
) -> Vec<Outlook> {
    let started = Instant::now();
    let made_at = clock::now();
    let mut order: Vec<(u64, Series)> = series.into_iter().map(|s| (choices.age(&s), s)).collect();
    order.sort_by_key(|(turn, _)| *turn);
    choices.turn += 1;
    let mut known = HashMap::with_capacity(order.len());
    let mut outlooks = Vec::with_capacity(order.len());
    for (_, series) in order {
        let options = Options {
            horizon,
            season: None,
            upper: upper(&series),
        };
        let key = key(&series);
        let reusable = choices
            .known
            .remove(&key)
            .filter(|c| c.step == series.step && c.horizon == horizon);
        let choice = match reusable {
            Some(choice) if started.elapsed() > budget => Some(choice),
            _ => model::select(&series.values, &options)
                .ok()
                .map(|selection| Choice {
                    selection,
                    turn: choices.turn,
                    step: series.step,
                    horizon,
                }),
        };
        let Some(choice) = choice else { continue };
        if let Ok(prediction) = model::predict(&choice.selection, &series.values, &options) {
            outlooks.push(Outlook {
                series,
                selection: choice.selection.clone(),
                prediction,
                made_at,
            });
        }
        known.insert(key, choice);
    }
    choices.known = known;
    outlooks
}

/// The models chosen so far, by series.
#[derive(Debug, Default)]
pub struct Choices {
    turn: u64,
    known: HashMap<(String, Metric), Choice>,
}

#[derive(Debug)]
struct Choice {
    selection: Selection,
    turn: u64,
    step: Micros,
    horizon: usize,
}

impl Choices {
    /// Turn of the series' choice; 0 where it has none.
    fn age(&self, series: &Series) -> u64 {
        self.known.get(&key(series)).map_or(0, |c| c.turn)
    }
}

fn key(series: &Series) -> (String, Metric) {
    (series.subject.key(), series.metric)
}

/// A VM cannot ask for more than its vCPUs, nor be ready for more than all time.
fn upper(series: &Series) -> Option<f64> {
    match (series.metric, &series.subject) {
        (Metric::ReadyRatio, _) => Some(1.0),
        (Metric::DemandVcpus, Subject::Vm(vm)) => u32::try_from(vm.vcpus).ok().map(f64::from),
        (Metric::DemandVcpus, Subject::Host(_)) => None,
    }
}

struct Service {
    history: History,
    choices: Choices,
    gate: Gate,
    pusher: Pusher,
    outbox: Arc<Mutex<Outbox>>,
    wake: Arc<Notify>,
    budget: Duration,
    failing: bool,
}

impl Service {
    fn new(config: &Config, outbox: Arc<Mutex<Outbox>>, wake: Arc<Notify>) -> anyhow::Result<Self> {
        let channel = history::channel(&config.collector)?;
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host = Some(host.trim())
            .filter(|h| !h.is_empty())
            .unwrap_or("unknown");
        Ok(Self {
            history: History::new(
                SqlClient::new(channel.clone()),
                config.max_points,
                config.horizon,
            ),
            choices: Choices::default(),
            gate: Gate::open(config.gate.clone(), &config.state_dir)?,
            pusher: Pusher::new(channel, &config.state_dir, host)?,
            outbox,
            wake,
            budget: config.every / 2,
            failing: false,
        })
    }

    /// One round; a failure is logged when it begins and when it ends.
    async fn tick(&mut self) {
        match self.try_tick().await {
            Ok(()) if std::mem::take(&mut self.failing) => {
                tracing::info!("collector answers again")
            }
            Ok(()) => {}
            Err(error) if !std::mem::replace(&mut self.failing, true) => {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "forecast round failed, retrying each time"
                );
            }
            Err(error) => {
                tracing::debug!(error = format!("{error:#}"), "forecast round failed again")
            }
        }
    }

    async fn try_tick(&mut self) -> anyhow::Result<()> {
        let started = Instant::now();
        self.history
            .refresh(clock::now())
            .await
            .context("reading history")?;
        let (series, horizon, budget) = (self.history.series(), self.history.steps(), self.budget);
        let mut choices = std::mem::take(&mut self.choices);
        let forecast = tokio::task::spawn_blocking(move || {
            let outlooks = forecast_all(series, &mut choices, horizon, budget);
            (outlooks, choices)
        });
        let (outlooks, choices) = forecast.await.context("forecasting")?;
        self.choices = choices;
        self.decide(&outlooks)?;
        let stored = self.store(&outlooks).await;
        tracing::debug!(series = outlooks.len(), horizon, elapsed = ?started.elapsed(), "forecast round");
        stored
    }

    fn decide(&mut self, outlooks: &[Outlook]) -> anyhow::Result<()> {
        let now = clock::now();
        for decision in self.gate.evaluate(outlooks, now) {
            match decision {
                Decision::Propose(made) => {
                    tracing::info!(
                        id = made.id,
                        kind = made.kind,
                        subject = made.subject,
                        confidence = made.confidence,
                        "recommendation made"
                    );
                    Deliverer::propose(&self.outbox, made)?;
                }
                Decision::Withdraw { id, reason } => {
                    tracing::info!(id, reason, "recommendation withdrawn");
                    Deliverer::withdraw(&self.outbox, &id, &reason, now)?;
                }
            }
        }
        self.gate.save()?;
        self.wake.notify_one();
        Ok(())
    }

    async fn store(&mut self, outlooks: &[Outlook]) -> anyhow::Result<()> {
        let states = crate::notify::lock(&self.outbox).unstored();
        let forecasts: Vec<ForecastRow> = outlooks.iter().flat_map(rows).collect();
        let chunks = [Chunk::of(&forecasts), Chunk::of(&states)];
        let seq = self
            .pusher
            .push(chunks.into_iter().filter(|c| c.rows() > 0).collect());
        let flushed = self.pusher.flush().await;
        if seq.is_some_and(|s| self.pusher.settled(s)) {
            crate::notify::lock(&self.outbox).stored(&states, clock::now())?;
        }
        flushed.context("storing forecasts")
    }
}

/// Rows of a forecast: its last step and every n-th before.
fn rows(outlook: &Outlook) -> Vec<ForecastRow> {
    let (p, steps) = (&outlook.prediction, outlook.prediction.p50.len());
    let row = |i: usize| ForecastRow {
        made_at: outlook.made_at,
        ts: outlook.at(i),
        subject: outlook.series.subject.key(),
        metric: outlook.series.metric.name().into(),
        p05: p.p05[i],
        p10: p.p10[i],
        p50: p.p50[i],
        p90: p.p90[i],
        p95: p.p95[i],
        model: p.model.into(),
        skill: outlook.selection.skill,
    };
    (0..steps)
        .rev()
        .step_by(steps.div_ceil(STORED_STEPS).max(1))
        .map(row)
        .collect()
}

fn deliverer(
    config: &WebhookConfig,
    dir: &std::path::Path,
    outbox: Arc<Mutex<Outbox>>,
) -> anyhow::Result<Deliverer> {
    // Made even without a receiver, so that one can be set up beforehand.
    let secret = match &config.secret_file {
        Some(file) => Secret::read(file)?,
        None => Secret::read_or_make(&dir.join("webhook.secret"))?,
    };
    let deliverer = Deliverer::new(outbox, dir, Schedule::default());
    Ok(match &config.url {
        Some(url) => deliverer.to(check_url(url)?, secret, config.allow.clone()),
        None => deliverer,
    })
}

fn deliver(mut deliverer: Deliverer, wake: Arc<Notify>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut failing = false;
        loop {
            drop(tokio::time::timeout(DELIVERY_PAUSE, wake.notified()).await);
            match deliverer.round().await {
                Ok(_) => failing = false,
                Err(error) if !std::mem::replace(&mut failing, true) => {
                    tracing::error!(
                        error = format!("{:#}", anyhow::Error::from(error)),
                        "outbox failed, retrying"
                    );
                }
                Err(_) => {}
            }
        }
    })
}
