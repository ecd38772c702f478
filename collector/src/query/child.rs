//! A query process: runs the statements that its collector hands it, one at a
//! time, within limits that the kernel holds it to.
//!
//! Standard input is a socket to the collector. When it closes, however the
//! collector ended, this process ends at once: the parent death signal would
//! come already when the *thread* that started the process ends.

mod mirror;

use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::ipc::writer::StreamWriter;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::mpsc;

use self::mirror::Mirror;
use super::wire::{self, FromChild, ToChild};
use super::{Limits, QueryEngine, QueryError, Rows};
use crate::Error;

/// The collector keeps the time and kills this process.
const FOREVER: Duration = Duration::from_secs(24 * 3600);
/// Largest batch of an answer, bytes: the collector holds some of them.
pub const MAX_BATCH: usize = 16 << 20;

/// Serves until the collector is gone.
///
/// # Errors
/// Standard input is no socket of a collector, or a limit can't be set.
pub fn run() -> Result<(), Error> {
    serve().map_err(Error::Engine)
}

fn serve() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut from = socket.try_clone()?;
    let (wire::MESSAGE, content) = wire::read(&mut from)? else {
        return Err("the first frame is no message".into());
    };
    let ToChild::Setup(setup) = wire::decode(&content)? else {
        return Err("the first message is no setup".into());
    };
    confine(setup.space)?;
    let (asked, mut questions) = mpsc::channel(1);
    let (mirror, feed) = Mirror::new(socket, (setup.dirs, setup.keep), asked);
    let mirror = Arc::new(mirror);
    let limits = Limits {
        memory: setup.memory,
        timeout: FOREVER,
    };
    let engine = QueryEngine::new(Arc::clone(&mirror) as Arc<dyn Rows>, limits)?;
    std::thread::Builder::new()
        .name("frames".into())
        .spawn(move || {
            let ended = feed.run(&mut from);
            let code = i32::from(ended.is_err_and(|e| e.kind() != io::ErrorKind::UnexpectedEof));
            std::process::exit(code)
        })?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        while let Some(sql) = questions.recv().await {
            let end = answer(&engine, &mirror, &sql).await;
            mirror.tell(&FromChild::End(end))?;
        }
        Ok(())
    })
}

/// Limits for this process and its threads, for good.
fn confine(space: u64) -> io::Result<()> {
    // When the machine runs out of memory, this process goes first.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    for (resource, limit) in [
        (Resource::As, space),
        (Resource::Fsize, 0),
        (Resource::Core, 0),
    ] {
        let most = getrlimit(resource).maximum.unwrap_or(u64::MAX);
        let limit = Some(limit.min(most));
        let limit = Rlimit {
            current: limit,
            maximum: limit,
        };
        setrlimit(resource, limit)?;
    }
    Ok(())
}

async fn answer(engine: &QueryEngine, mirror: &Mirror, sql: &str) -> Result<(), QueryError> {
    let mut answer = engine.sql(sql).await?;
    let writer = StreamWriter::try_new(Vec::new(), &answer.schema);
    let mut writer = writer.map_err(unwritable)?;
    mirror.data(writer.get_mut()).map_err(unwritable)?;
    while let Some(rows) = answer.next().await {
        let mut waiting = vec![rows?];
        while let Some(rows) = waiting.pop() {
            writer.write(&rows).map_err(unwritable)?;
            let bytes = writer.get_ref().len();
            if bytes > MAX_BATCH {
                writer.get_mut().clear();
                let (first, second) = halves(&rows, bytes)?;
                waiting.extend([second, first]);
                continue;
            }
            mirror.data(writer.get_mut()).map_err(unwritable)?;
        }
    }
    // Without rows, the columns are only understood with what follows them.
    writer.finish().map_err(unwritable)?;
    mirror.data(writer.get_mut()).map_err(unwritable)
}

fn halves(rows: &RecordBatch, bytes: usize) -> Result<(RecordBatch, RecordBatch), QueryError> {
    let n = rows.num_rows();
    if n < 2 {
        return Err(QueryError::Memory(format!(
            "one row of the answer has {bytes} bytes, more than the {MAX_BATCH} allowed"
        )));
    }
    Ok((rows.slice(0, n / 2), rows.slice(n / 2, n - n / 2)))
}

fn unwritable(error: impl std::fmt::Display) -> QueryError {
    QueryError::Failed(format!("can't send the answer: {error}"))
}

#[cfg(test)]
pub mod tests {
    /// What the tests' own program is started with to be a query process.
    pub const ARGS: &[&str] = &["--exact", "query::child::tests::entry", "--nocapture"];

    #[test]
    fn entry() {
        if std::env::var_os(crate::query::children::MARK).is_some() {
            super::run().unwrap();
        }
    }
}
