//! Statements of one connection, by both protocols.

mod extended;
mod simple;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use futures::channel::oneshot;
use pgwire::api::portal::Format;
use pgwire::api::results::{Response, Tag};
use pgwire::api::{ClientInfo, ConnectionHandle};
use pgwire::error::{PgWireError, PgWireResult};
use pgwire::messages::response::TransactionStatus;

pub use extended::Prepared;

use super::session::Session;
use super::{answer, error};
use crate::query::postgres::{Command, Parameter};
use crate::query::{Answer, QueryEngine};

/// Prepared statements and portals of one connection.
const NAMES: usize = 1024;

/// One connection's statements.
pub struct Handler {
    engine: Arc<QueryEngine>,
    /// Its parameters.
    pub session: Session,
    names: Mutex<HashSet<(u8, String)>>,
}

impl Handler {
    /// A connection that has said nothing yet.
    pub fn new(engine: Arc<QueryEngine>) -> Self {
        Self {
            engine,
            session: Session::new(),
            names: Mutex::new(HashSet::new()),
        }
    }

    /// Does what a statement asks for, up to the first row.
    async fn run(
        &self,
        command: &Command,
        values: &[Parameter],
        format: &Format,
        status: TransactionStatus,
    ) -> PgWireResult<Response> {
        let ends = matches!(command, Command::Commit | Command::Rollback);
        if status == TransactionStatus::Error && !ends {
            return Err(error::error(
                "25P02",
                "current transaction is aborted, commands ignored until end of transaction block",
            ));
        }
        let done = |tag: &str| Response::Execution(Tag::new(tag));
        Ok(match command {
            Command::Read(read) => {
                let text = read.with(values).map_err(|e| error::refused(&e))?;
                Response::Query(answer::rows(self.ask(&text).await?, format)?)
            }
            Command::Show(name) => {
                let value = self.session.show(name)?;
                Response::Query(answer::texts(&[(name, &value)], format)?)
            }
            Command::Set(name, value) => {
                self.session.set(name, value.as_deref())?;
                done("SET")
            }
            Command::Reset(name) => {
                self.session.reset(name.as_deref())?;
                done("RESET")
            }
            Command::Begin => Response::TransactionStart(Tag::new("BEGIN")),
            Command::Commit if status == TransactionStatus::Error => {
                Response::TransactionEnd(Tag::new("ROLLBACK"))
            }
            Command::Commit => Response::TransactionEnd(Tag::new("COMMIT")),
            Command::Rollback => Response::TransactionEnd(Tag::new("ROLLBACK")),
            Command::Nothing("") => Response::EmptyQuery,
            Command::Nothing(tag) => done(tag),
        })
    }

    /// Asks the engine, within the client's own limit too.
    async fn ask(&self, text: &str) -> PgWireResult<Answer> {
        let answer = self.engine.sql(text);
        let answer = match self.session.timeout() {
            None => answer.await,
            Some(limit) => tokio::time::timeout(limit, answer).await.map_err(|_| {
                error::error("57014", "canceling statement due to statement timeout")
            })?,
        };
        answer.map_err(|e| error::failed(&e))
    }

    /// Notes a name of a statement (`S`) or portal (`P`).
    fn note(&self, kind: u8, name: Option<&str>) -> PgWireResult<()> {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.insert((kind, name.unwrap_or_default().to_owned()));
        if names.len() > NAMES {
            let text = format!(
                "more than {NAMES} prepared statements and portals; close some, or connect again"
            );
            return Err(error::fatal("53400", text));
        }
        Ok(())
    }

    fn forget(&self, kind: u8, name: Option<&str>) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.remove(&(kind, name.unwrap_or_default().to_owned()));
    }
}

/// Runs until the end, or until somebody cancels it.
async fn cancellable<T>(
    cancelled: Option<oneshot::Receiver<()>>,
    run: impl Future<Output = PgWireResult<T>>,
) -> PgWireResult<T> {
    let Some(cancelled) = cancelled else {
        return run.await;
    };
    tokio::select! {
        biased;
        done = run => done,
        Ok(()) = cancelled => Err(PgWireError::QueryCanceled),
    }
}

/// Where a cancel request for this client arrives.
async fn cancelled<C: ClientInfo + Sync>(client: &C) -> Option<oneshot::Receiver<()>> {
    let handle = client.session_extensions().get::<Arc<ConnectionHandle>>()?;
    Some(handle.start_query().await)
}
