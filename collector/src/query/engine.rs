//! Running a query within its limits.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::DataFusionError;
use datafusion::common::tree_node::{Transformed, TreeNode as _};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::prelude::SessionConfig;
use futures::StreamExt as _;
use tokio::runtime::Runtime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use super::children::{Children, Program, Question};
use super::error::may_be_a_bad_file;
use super::gate::{self, Passed};
use super::{QueryError, Rows, session, verify};
use crate::Error;

/// Stack of the query threads: an OR of 2000 terms (19 kB of text) overflowed
/// 2 MiB.
pub const STACK_BYTES: usize = 32 << 20;
/// Threads that read files at most. Tokio's own limit of 512 would have 16 GiB
/// of stacks, more than the address space of a query process.
const READERS: usize = 8;
/// Queries that run at the same time, each with a thread to plan on; further
/// ones wait.
const CONCURRENT: usize = 8;
/// Batches on their way to a reader that is slower than the query.
const IN_FLIGHT: usize = 4;

/// What a query may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Memory of all queries together, bytes.
    pub memory: u64,
    /// Run time of one query.
    pub timeout: Duration,
}

/// The SQL engine.
pub struct QueryEngine {
    runs: Runs,
    timeout: Duration,
    permits: Arc<Semaphore>,
}

/// Where queries run.
enum Runs {
    /// On threads of this process.
    Here {
        rows: Arc<dyn Rows>,
        config: SessionConfig,
        env: Arc<RuntimeEnv>,
        threads: Option<Runtime>,
    },
    /// In processes of their own.
    Apart(Arc<Children>),
}

/// The rows of an answer as they come.
pub struct Answer {
    /// Their columns.
    pub schema: SchemaRef,
    batches: mpsc::Receiver<Piece>,
    deadline: Instant,
    timeout: Duration,
}

/// Part of an answer on its way.
pub enum Piece {
    /// Some rows.
    Rows(RecordBatch),
    /// No more rows.
    End(Result<(), QueryError>),
}

impl QueryEngine {
    /// An engine over some rows that runs in processes of its own what comes
    /// from outside. To be called within a runtime.
    ///
    /// # Errors
    /// A process can't be started.
    pub(crate) fn apart(
        rows: Arc<dyn Rows>,
        limits: Limits,
        program: Program,
    ) -> Result<Self, Error> {
        let permits = Arc::new(Semaphore::new(program.count));
        let children = Children::start(rows, program, limits.memory);
        let children = children.map_err(|e| Error::Engine(e.into()))?;
        Ok(Self {
            runs: Runs::Apart(Arc::new(children)),
            timeout: limits.timeout,
            permits,
        })
    }

    /// An engine over some rows that runs on threads of this process.
    ///
    /// # Errors
    /// Threads or memory pool can't be set up.
    pub(crate) fn new(rows: Arc<dyn Rows>, limits: Limits) -> Result<Self, Error> {
        let env = RuntimeEnvBuilder::new()
            .with_memory_limit(usize::try_from(limits.memory).unwrap_or(usize::MAX), 1.0)
            // A query never writes to the disk that the log needs.
            .with_disk_manager_builder(
                DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled),
            )
            .build_arc()
            .map_err(|e| Error::Engine(e.into()))?;
        let threads = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(CONCURRENT)
            .thread_name("query")
            .thread_stack_size(STACK_BYTES)
            .max_blocking_threads(READERS)
            .enable_all()
            .build()
            .map_err(|e| Error::Engine(e.into()))?;
        let config = session::config().map_err(|e| Error::Engine(e.into()))?;
        let permits = Arc::new(Semaphore::new(CONCURRENT));
        let runs = Runs::Here {
            rows,
            config,
            env,
            threads: Some(threads),
        };
        Ok(Self {
            runs,
            timeout: limits.timeout,
            permits,
        })
    }

    /// Starts one statement that reads and gives its rows as they come.
    ///
    /// # Errors
    /// The text is no query over these tables, or one limit is passed before
    /// the first row.
    pub async fn sql(&self, text: &str) -> Result<Answer, QueryError> {
        gate::short_enough(text)?;
        let deadline = Instant::now() + self.timeout;
        let permit = tokio::time::timeout_at(deadline, Arc::clone(&self.permits).acquire_owned());
        let permit = permit
            .await
            .map_err(|_| QueryError::Busy)?
            .map_err(|_| QueryError::Busy)?;
        let (started, start) = oneshot::channel();
        let (to, batches) = mpsc::channel(IN_FLIGHT);
        let timeout = self.timeout;
        let question = Question {
            text: text.to_string(),
            deadline,
            timeout,
            started,
            to,
            permit,
        };
        self.runs.start(question)?;
        // A second clock on this side: planning has no await point at which
        // the one above could stop it.
        let schema = tokio::time::timeout_at(deadline, start)
            .await
            .map_err(|_| QueryError::Timeout(timeout))?;
        let schema = match schema {
            Ok(schema) => schema?,
            Err(_) if Instant::now() >= deadline => return Err(QueryError::Timeout(timeout)),
            Err(_) => {
                return Err(QueryError::Failed(
                    "the engine gave up on it; see the collector's log".into(),
                ));
            }
        };
        Ok(Answer {
            schema,
            batches,
            deadline,
            timeout,
        })
    }

    /// Runs one statement that reads to its end.
    ///
    /// # Errors
    /// As [`QueryEngine::sql`], or a limit is passed on the way.
    pub async fn collect(&self, text: &str) -> Result<(SchemaRef, Vec<RecordBatch>), QueryError> {
        let mut answer = self.sql(text).await?;
        let mut batches = Vec::new();
        while let Some(batch) = answer.next().await {
            batches.push(batch?);
        }
        Ok((answer.schema, batches))
    }
}

impl Runs {
    fn start(&self, question: Question) -> Result<(), QueryError> {
        let (rows, config, env, threads) = match self {
            Self::Apart(children) => {
                let children = Arc::clone(children);
                tokio::spawn(async move { children.answer(question).await });
                return Ok(());
            }
            Self::Here {
                rows,
                config,
                env,
                threads,
            } => (rows, config, env, threads),
        };
        let Some(threads) = threads else {
            return Err(QueryError::Failed("the collector is stopping".into()));
        };
        let job = Job {
            text: question.text,
            rows: Arc::clone(rows),
            config: config.clone(),
            env: Arc::clone(env),
            to: question.to,
            _permit: question.permit,
        };
        let (deadline, started) = (question.deadline, question.started);
        let seconds = question.timeout.as_secs_f64();
        threads.spawn(async move {
            if tokio::time::timeout_at(deadline, job.run(started))
                .await
                .is_err()
            {
                tracing::info!(seconds, "query stopped at its deadline");
            }
        });
        Ok(())
    }
}

impl Drop for Runs {
    fn drop(&mut self) {
        // Waiting for queries here would block a thread of the caller.
        if let Self::Here { threads, .. } = self
            && let Some(threads) = threads.take()
        {
            threads.shutdown_background();
        }
    }
}

impl Answer {
    /// The next rows; `None` at the end.
    pub async fn next(&mut self) -> Option<Result<RecordBatch, QueryError>> {
        match tokio::time::timeout_at(self.deadline, self.batches.recv()).await {
            Ok(Some(Piece::Rows(rows))) => Some(Ok(rows)),
            Ok(Some(Piece::End(Ok(())))) => None,
            Ok(Some(Piece::End(Err(error)))) => Some(Err(error)),
            Err(_) => Some(Err(QueryError::Timeout(self.timeout))),
            Ok(None) if Instant::now() >= self.deadline => {
                Some(Err(QueryError::Timeout(self.timeout)))
            }
            Ok(None) => Some(Err(QueryError::Failed(
                "the engine gave up on it; see the collector's log".into(),
            ))),
        }
    }
}

struct Job {
    text: String,
    rows: Arc<dyn Rows>,
    config: SessionConfig,
    env: Arc<RuntimeEnv>,
    to: mpsc::Sender<Piece>,
    _permit: OwnedSemaphorePermit,
}

impl Job {
    async fn run(self, started: oneshot::Sender<Result<SchemaRef, QueryError>>) {
        let passed = match gate::check(&self.text, &self.config) {
            Ok(passed) => passed,
            Err(error) => {
                let _ = started.send(Err(error));
                return;
            }
        };
        let first = match self.first(&passed).await {
            Err(error)
                if may_be_a_bad_file(&error)
                    && verify::set_aside_unreadable(self.rows.as_ref()).await > 0 =>
            {
                self.first(&passed).await
            }
            other => other,
        };
        let (first, mut stream) = match first {
            Ok(start) => start,
            Err(error) => {
                let _ = started.send(Err(error.into()));
                return;
            }
        };
        if started.send(Ok(stream.schema())).is_err() {
            return;
        }
        let mut next = first.map(Ok);
        loop {
            let piece = match next {
                Some(Ok(rows)) => Piece::Rows(rows),
                Some(Err(error)) => Piece::End(Err(self.late(error).await)),
                None => Piece::End(Ok(())),
            };
            let last = matches!(piece, Piece::End(_));
            // An error here: nobody waits for the answer any more.
            if self.to.send(piece).await.is_err() || last {
                return;
            }
            next = stream.next().await;
        }
    }

    /// Plans and runs up to the first rows: errors up to here can be mended
    /// without the reader noticing.
    async fn first(
        &self,
        passed: &Passed,
    ) -> Result<(Option<RecordBatch>, SendableRecordBatchStream), DataFusionError> {
        let names = passed.tables.as_slice();
        let snapshot = self.rows.of(&session::behind(names)).await;
        let (config, env) = (self.config.clone(), Arc::clone(&self.env));
        let context = session::context(config, env, &self.rows, (snapshot, names)).await?;
        let reads = SQLOptions::new()
            .with_allow_ddl(false)
            .with_allow_dml(false)
            .with_allow_statements(false);
        let state = context.state();
        let plan = state.statement_to_plan(passed.statement.clone()).await?;
        reads.verify_plan(&plan)?;
        let frame = context.execute_logical_plan(plan).await?;
        let task = Arc::new(frame.task_ctx());
        let plan = interruptible(frame.create_physical_plan().await?)?;
        let mut stream = execute_stream(plan, task)?;
        let first = stream.next().await.transpose()?;
        Ok((first, stream))
    }

    /// An error after rows were sent.
    async fn late(&self, error: DataFusionError) -> QueryError {
        if may_be_a_bad_file(&error) {
            let bad = verify::set_aside_unreadable(self.rows.as_ref()).await;
            if bad > 0 {
                return QueryError::Failed(format!(
                    "{bad} unreadable files were set aside; ask again"
                ));
            }
        }
        error.into()
    }
}

/// The plan with a point at which it can be stopped above each operator that
/// makes more rows than it reads. Those of DataFusion sit at the leaves: a
/// product of 12 tables reads each leaf once and then held its thread for ever.
fn interruptible(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
    let multiplies = |name: &str| {
        ["Join", "Unnest", "Recursive"]
            .iter()
            .any(|part| name.contains(part))
    };
    let wrapped = plan.transform_up(|node| {
        Ok(if multiplies(node.name()) {
            Transformed::yes(Arc::new(CooperativeExec::new(node)) as _)
        } else {
            Transformed::no(node)
        })
    });
    wrapped.map(|t| t.data)
}
