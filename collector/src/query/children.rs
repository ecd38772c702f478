//! The query processes of a collector.
//!
//! **Invariant:** a text from outside is parsed, planned and run in one of
//! them, never here. Each runs one statement at a time; at the deadline, or
//! when nobody waits for the answer any more, it is killed and another started.

mod process;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::Instant;

use self::process::{Process, Reply};
use super::engine::Piece;
use super::wire::Setup;
use super::{QueryError, Rows};
use headroom_core::rollup::stored;

/// Set in the environment of each query process, which has no other variable
/// of the collector's.
pub const MARK: &str = "HEADROOM_QUERY_CHILD";
/// Address space of a query process that does nothing: the program, stacks of
/// its threads, arenas of the allocator.
const IDLE_SPACE: u64 = 1 << 30;

/// How query processes are made.
#[derive(Clone, Debug)]
pub struct Program {
    /// What this program is started with again to be a query process.
    pub args: Vec<String>,
    /// Number of processes.
    pub count: usize,
    /// Bytes of rows in memory that a process may have a copy of.
    pub hot: u64,
}

/// A statement to run, and where its answer goes.
pub struct Question {
    /// The statement.
    pub text: String,
    /// When it must have ended.
    pub deadline: Instant,
    /// The run time that this is.
    pub timeout: Duration,
    /// Takes the columns, or why there is no answer.
    pub started: oneshot::Sender<Result<SchemaRef, QueryError>>,
    /// Takes the rows.
    pub to: mpsc::Sender<Piece>,
    /// Held until a process is free again.
    pub permit: OwnedSemaphorePermit,
}

/// The processes.
pub struct Children {
    rows: Arc<dyn Rows>,
    program: Program,
    setup: Setup,
    idle: Mutex<Vec<Process>>,
}

impl Children {
    /// Starts them. `memory`: of all running queries together, bytes.
    ///
    /// # Errors
    /// A process can't be started.
    pub fn start(rows: Arc<dyn Rows>, program: Program, memory: u64) -> std::io::Result<Self> {
        let share = memory / u64::try_from(program.count).unwrap_or(1).max(1);
        let setup = Setup {
            memory: share,
            // Twice the share: what DataFusion does not account for, and the
            // batch on its way out.
            space: IDLE_SPACE + program.hot + 2 * share,
            dirs: (0..stored().len()).map(|i| rows.table_dir(i)).collect(),
            keep: rows.keep(),
        };
        let idle = (0..program.count).map(|_| Process::start(&program.args, &setup));
        let idle = Mutex::new(idle.collect::<std::io::Result<_>>()?);
        Ok(Self {
            rows,
            program,
            setup,
            idle,
        })
    }

    /// Runs a statement to its end, its deadline, or until nobody waits.
    pub async fn answer(&self, question: Question) {
        let Question {
            text,
            deadline,
            timeout,
            started,
            to,
            permit,
        } = question;
        let mut process = match self.take() {
            Ok(process) => process,
            Err(error) => {
                tracing::error!(%error, "query process can't start");
                let problem = format!("no process to run it in: {error}");
                let _ = started.send(Err(QueryError::Failed(problem)));
                return;
            }
        };
        let mut reply = Reply::new(started, to.clone());
        let ask = process.ask(&*self.rows, &text, &mut reply);
        let ended = tokio::select! {
            biased;
            () = to.closed() => None,
            end = tokio::time::timeout_at(deadline, ask) => Some(end),
        };
        let end = match ended {
            // After a failure of the engine nothing is sure of the process.
            Some(Ok(Ok(end))) if !matches!(end, Err(QueryError::Failed(_))) => {
                self.put(process);
                drop(permit);
                return reply.end(end).await;
            }
            Some(Ok(Ok(end))) => {
                process.last_words().await;
                end
            }
            Some(Ok(Err(error))) => Err(process.obituary(&error).await),
            Some(Err(_)) => {
                let seconds = timeout.as_secs_f64();
                tracing::info!(seconds, "query stopped at its deadline, its process killed");
                Err(QueryError::Timeout(timeout))
            }
            None => {
                tracing::info!("nobody waits for the query any more, its process killed");
                Ok(())
            }
        };
        // Dropping kills it; another gets ready while no question is there.
        drop(process);
        match Process::start(&self.program.args, &self.setup) {
            Ok(process) => self.put(process),
            Err(error) => tracing::error!(%error, "query process can't start"),
        }
        drop(permit);
        reply.end(end).await;
    }

    fn take(&self) -> std::io::Result<Process> {
        loop {
            let idle = self.lock().pop();
            let Some(mut process) = idle else {
                return Process::start(&self.program.args, &self.setup);
            };
            if process.lives() {
                return Ok(process);
            }
            tracing::warn!("an idle query process ended; starting another");
        }
    }

    fn put(&self, process: Process) {
        self.lock().push(process);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Process>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
