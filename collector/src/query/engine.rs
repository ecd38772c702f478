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

use super::error::may_be_a_bad_file;
use super::{QueryError, Rows, session, verify};
use crate::Error;

/// Longest text of a query, bytes. The longest query shipped has 3 kB.
pub const MAX_SQL_BYTES: usize = 64 << 10;
/// Stack of the query threads: an OR of 2000 terms (19 kB of text) overflowed
/// 2 MiB.
const STACK_BYTES: usize = 32 << 20;
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
    rows: Arc<dyn Rows>,
    config: SessionConfig,
    env: Arc<RuntimeEnv>,
    timeout: Duration,
    permits: Arc<Semaphore>,
    threads: Option<Runtime>,
}

/// The rows of an answer as they come.
pub struct Answer {
    /// Their columns.
    pub schema: SchemaRef,
    batches: mpsc::Receiver<Piece>,
    deadline: Instant,
    timeout: Duration,
}

enum Piece {
    Rows(RecordBatch),
    End(Result<(), QueryError>),
}

impl QueryEngine {
    /// An engine over some rows.
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
            .enable_all()
            .build()
            .map_err(|e| Error::Engine(e.into()))?;
        let config = session::config().map_err(|e| Error::Engine(e.into()))?;
        let permits = Arc::new(Semaphore::new(CONCURRENT));
        Ok(Self {
            rows,
            config,
            env,
            timeout: limits.timeout,
            permits,
            threads: Some(threads),
        })
    }

    /// Starts one statement that reads and gives its rows as they come.
    ///
    /// # Errors
    /// The text is no query over these tables, or one limit is passed before
    /// the first row.
    pub async fn sql(&self, text: &str) -> Result<Answer, QueryError> {
        if text.len() > MAX_SQL_BYTES {
            return Err(QueryError::TooLong {
                bytes: text.len(),
                limit: MAX_SQL_BYTES,
            });
        }
        let deadline = Instant::now() + self.timeout;
        let permit = tokio::time::timeout_at(deadline, Arc::clone(&self.permits).acquire_owned());
        let permit = permit
            .await
            .map_err(|_| QueryError::Busy)?
            .map_err(|_| QueryError::Busy)?;
        let (started, start) = oneshot::channel();
        let (to, batches) = mpsc::channel(IN_FLIGHT);
        let job = Job {
            text: text.to_string(),
            rows: Arc::clone(&self.rows),
            config: self.config.clone(),
            env: Arc::clone(&self.env),
            to,
            _permit: permit,
        };
        let Some(threads) = &self.threads else {
            return Err(QueryError::Failed("the collector is stopping".into()));
        };
        let timeout = self.timeout;
        threads.spawn(async move {
            if tokio::time::timeout_at(deadline, job.run(started))
                .await
                .is_err()
            {
                tracing::info!(
                    seconds = timeout.as_secs_f64(),
                    "query stopped at its deadline"
                );
            }
        });
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

impl Drop for QueryEngine {
    fn drop(&mut self) {
        // Waiting for queries here would block a thread of the caller.
        if let Some(threads) = self.threads.take() {
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
        let first = match self.first().await {
            Err(error)
                if may_be_a_bad_file(&error)
                    && verify::set_aside_unreadable(self.rows.as_ref()).await > 0 =>
            {
                self.first().await
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
    ) -> Result<(Option<RecordBatch>, SendableRecordBatchStream), DataFusionError> {
        let context =
            session::context(self.config.clone(), Arc::clone(&self.env), &self.rows).await?;
        let reads = SQLOptions::new()
            .with_allow_ddl(false)
            .with_allow_dml(false)
            .with_allow_statements(false);
        let frame = context.sql_with_options(&self.text, reads).await?;
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
