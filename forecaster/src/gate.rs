//! From outlooks to recommendations: a limit that will be crossed becomes a
//! finding, a finding a plan, and a plan that passes the gate a recommendation.
//!
//! The gate lets a plan pass when the 80 % interval's upper end crosses the
//! limit within the horizon, the probability of that reaches the configured
//! confidence, the history is long enough and (subject, kind) had no
//! recommendation within the cooldown. A breach that vanishes is withdrawn.

pub mod effect;
mod finding;
pub mod payload;
mod plan;
mod state;

use std::collections::BTreeMap;
use std::path::Path;

pub use finding::{Finding, Outlook, Rule};
pub use plan::{Change, Kind, Plan};
pub use state::GateError;

use crate::clock::{Micros, SECOND, micros};
use crate::config::GateConfig;
use state::{Open, State};

/// Evaluations without the breach before a recommendation is withdrawn.
const CALM_EVALUATIONS: u32 = 2;
/// Shortest and longest time that a recommendation stays valid.
const VALID: (Micros, Micros) = (120 * SECOND, 3600 * SECOND);

/// What the gate decided.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Make this recommendation known.
    Propose(Recommendation),
    /// Take the recommendation of that id back.
    Withdraw {
        /// Id of the recommendation.
        id: String,
        /// Why, one sentence.
        reason: String,
    },
}

/// A plan that passed.
#[derive(Clone, Debug, PartialEq)]
pub struct Recommendation {
    /// ULID with prefix `rec_`.
    pub id: String,
    /// When it was made.
    pub made_at: Micros,
    /// When it stops being advice.
    pub expires_at: Micros,
    /// scale_up, migrate or capacity.
    pub kind: &'static str,
    /// `vm/ID` or `host/NAME`.
    pub subject: String,
    /// Probability of the breach.
    pub confidence: f64,
    /// CloudEvents JSON.
    pub body: String,
}

/// Remembers what was recommended, across restarts.
pub struct Gate {
    config: GateConfig,
    state: State,
}

impl Gate {
    /// Opens the gate with the memory in the directory, if there is one.
    ///
    /// # Errors
    /// A memory that cannot be read.
    pub fn open(config: GateConfig, dir: &Path) -> Result<Self, GateError> {
        Ok(Self {
            config,
            state: State::open(dir)?,
        })
    }

    /// Judges all outlooks of one moment.
    pub fn evaluate(&mut self, outlooks: &[Outlook], now: Micros) -> Vec<Decision> {
        let findings = finding::find(outlooks, &self.config);
        let mut plans: BTreeMap<String, Plan> = BTreeMap::new();
        for finding in findings {
            let plan = plan::plan(finding, outlooks, &self.config.limits);
            // The likeliest finding speaks for the others of the same plan.
            match plans.get(&plan.key()) {
                Some(other) if other.finding.p_breach >= plan.finding.p_breach => {}
                _ => drop(plans.insert(plan.key(), plan)),
            }
        }
        self.state.forget(now);
        let mut decisions = self.withdrawals(&plans, outlooks, now);
        for (key, plan) in plans {
            if self.passes(&key, &plan, now) {
                decisions.push(Decision::Propose(self.propose(key, &plan, outlooks, now)));
            }
        }
        decisions
    }

    /// Makes the memory durable.
    ///
    /// # Errors
    /// A directory that cannot be written.
    pub fn save(&self) -> Result<(), GateError> {
        self.state.save()
    }

    fn passes(&self, key: &str, plan: &Plan, now: Micros) -> bool {
        let finding = &plan.finding;
        finding.crosses
            && finding.p_breach >= self.config.confidence
            && finding.history >= micros(self.config.min_history)
            && !self.state.cooling(key, now)
    }

    fn propose(
        &mut self,
        key: String,
        plan: &Plan,
        outlooks: &[Outlook],
        now: Micros,
    ) -> Recommendation {
        let cooldown = micros(self.config.cooldown);
        let expires_at = now + (finding::lead(&plan.finding, now) * 2 / 3).clamp(VALID.0, VALID.1);
        let id = format!("rec_{}", ulid::Ulid::new());
        let event = payload::Event {
            id: &id,
            now,
            expires_at,
            cooldown_until: now + cooldown,
        };
        let body = payload::recommendation(&event, plan, outlooks, &self.config);
        let subject = plan.subject();
        let open = Open {
            id: id.clone(),
            expires_at,
            cool_until: now + cooldown,
            calm: 0,
            closed: false,
        };
        self.state.insert(key, open);
        Recommendation {
            id,
            made_at: now,
            expires_at,
            kind: plan.kind.name(),
            subject,
            confidence: plan.finding.p_breach,
            body,
        }
    }

    fn withdrawals(
        &mut self,
        plans: &BTreeMap<String, Plan>,
        outlooks: &[Outlook],
        now: Micros,
    ) -> Vec<Decision> {
        if outlooks.is_empty() {
            // Nothing was seen at all: no news is no good news.
            return Vec::new();
        }
        let mut decisions = Vec::new();
        let half = self.config.confidence / 2.0;
        for (key, open) in self.state.opened(now) {
            let still = plans
                .get(key)
                .is_some_and(|p| p.finding.crossed || p.finding.p_breach >= half);
            open.calm = if still { 0 } else { open.calm + 1 };
            if open.calm >= CALM_EVALUATIONS {
                open.closed = true;
                let reason = "The breach it warned of is no longer forecast.".into();
                decisions.push(Decision::Withdraw {
                    id: open.id.clone(),
                    reason,
                });
            }
        }
        decisions
    }
}

#[cfg(test)]
mod tests;
