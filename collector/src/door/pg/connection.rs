//! One connection from its first byte to its last.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::{SinkExt as _, StreamExt as _};
use pgwire::api::cancel::DefaultCancelHandler;
use pgwire::api::{ClientInfo as _, NoopHandler, PgWireConnectionState as State};
use pgwire::error::{ErrorInfo, PgWireError};
use pgwire::messages::{PgWireBackendMessage, PgWireFrontendMessage};
use pgwire::tokio::server::{
    MaybeTls, PgWireMessageServerCodec, negotiate_tls, process_error, process_message,
};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tokio_util::codec::{Framed, FramedParts};

use super::gauge::{Allowance, Gauge};
use super::handler::{Handler, Prepared};
use super::startup::Startup;
use super::{Shared, error};

/// From the first byte to the login's end.
const STARTUP: Duration = Duration::from_secs(10);
/// A client that asks nothing for so long is closed.
const IDLE: Duration = Duration::from_secs(3600);
/// What a message may take beyond the time of one query: its reader's slowness.
const SLOW: Duration = Duration::from_secs(60);
/// Longest message before the login: a name and the SCRAM texts.
const STRANGER: usize = 16 << 10;
/// Longest message after it: a query's text has at most 64 KiB, its parameters
/// as much, and what was read ahead of the next message counts too.
const LONGEST: usize = 1 << 20;

type Socket = Framed<Gauge<MaybeTls>, PgWireMessageServerCodec<Prepared>>;

/// Serves a connection; without a place it is only told that there is none.
pub async fn run(
    socket: TcpStream,
    shared: &Shared,
    place: Option<OwnedSemaphorePermit>,
) -> io::Result<()> {
    let mut stopping = shared.stopping.clone();
    tokio::select! {
        _ = stopping.wait_for(|s| *s) => Ok(()),
        done = serve(socket, shared, place) => done,
    }
}

async fn serve(
    socket: TcpStream,
    shared: &Shared,
    place: Option<OwnedSemaphorePermit>,
) -> io::Result<()> {
    let deadline = Instant::now() + STARTUP;
    let negotiated = tokio::time::timeout_at(deadline, negotiate_tls(socket, shared.tls.clone()));
    let Ok(Some(framed)) = negotiated.await.map_err(|_| timed_out())? else {
        return Ok(());
    };
    let allowance = Allowance::new(STRANGER);
    let mut socket = gauged(framed, &allowance)?;
    let connection = Connection {
        startup: Arc::new(Startup::new(shared)),
        handler: Arc::new(Handler::new(Arc::clone(&shared.engine))),
        cancel: Arc::new(DefaultCancelHandler::new(Arc::clone(&shared.cancels))),
        longest: shared.query_timeout.saturating_add(SLOW),
    };
    if !connection
        .log_in(&mut socket, &allowance, deadline, place.is_some())
        .await?
    {
        return Ok(());
    }
    connection.handler.session.adopt(socket.metadata());
    allowance.renew(LONGEST);
    connection.answer(&mut socket, &allowance).await
}

/// Puts the gauge under the frames. What came before TLS began and was read
/// along is no part of the encrypted stream: somebody else may have written it.
fn gauged(
    framed: Framed<MaybeTls, PgWireMessageServerCodec<Prepared>>,
    allowance: &Allowance,
) -> io::Result<Socket> {
    let old = framed.into_parts();
    if matches!(old.io, MaybeTls::Tls(_)) && !old.read_buf.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "plaintext after the request for TLS",
        ));
    }
    let mut parts: FramedParts<Gauge<MaybeTls>, _> =
        FramedParts::new(Gauge::new(old.io, allowance.clone()), old.codec);
    parts.read_buf = old.read_buf;
    parts.write_buf = old.write_buf;
    Ok(Framed::from_parts(parts))
}

struct Connection {
    startup: Arc<Startup>,
    handler: Arc<Handler>,
    cancel: Arc<DefaultCancelHandler>,
    longest: Duration,
}

impl Connection {
    /// Until the login went well (`true`) or the connection is done. pgwire's
    /// own loop goes on to queries after an error that is not fatal; here any
    /// error before the login's end closes the connection.
    async fn log_in(
        &self,
        socket: &mut Socket,
        allowance: &Allowance,
        deadline: Instant,
        has_place: bool,
    ) -> io::Result<bool> {
        loop {
            let next = tokio::time::timeout_at(deadline, socket.next());
            let message = match next.await.map_err(|_| timed_out())? {
                None => return Ok(false),
                Some(Ok(message)) => message,
                Some(Err(e)) => return farewell(socket, e).await.map(|()| false),
            };
            allowance.renew(STRANGER);
            let cancels = matches!(message, PgWireFrontendMessage::CancelRequest(_));
            if !has_place && !cancels {
                let text = "sorry, too many clients already";
                return farewell(socket, error::fatal("53300", text))
                    .await
                    .map(|()| false);
            }
            let done = tokio::time::timeout_at(deadline, self.process(socket, message));
            if let Err(e) = done.await.map_err(|_| timed_out())? {
                return farewell(socket, e).await.map(|()| false);
            }
            if cancels {
                return Ok(false);
            }
            if matches!(socket.state(), State::ReadyForQuery) {
                return Ok(true);
            }
        }
    }

    /// Answers statements until the client goes.
    async fn answer(&self, socket: &mut Socket, allowance: &Allowance) -> io::Result<()> {
        loop {
            let message = match tokio::time::timeout(IDLE, socket.next()).await {
                Err(_) => {
                    let text = "terminating connection due to idle-session timeout";
                    return farewell(socket, error::fatal("57P05", text)).await;
                }
                Ok(None) | Ok(Some(Ok(PgWireFrontendMessage::Terminate(_)))) => return Ok(()),
                Ok(Some(Ok(message))) => message,
                Ok(Some(Err(e))) => return farewell(socket, e).await,
            };
            allowance.renew(LONGEST);
            let extended = message.is_extended_query();
            // A reader that takes nothing holds no place for ever.
            let done = tokio::time::timeout(self.longest, self.process(socket, message));
            if let Err(e) = done.await.map_err(|_| timed_out())? {
                let info = ErrorInfo::from(e);
                if info.is_fatal() {
                    return farewell(socket, PgWireError::UserError(Box::new(info))).await;
                }
                let error = PgWireError::UserError(Box::new(info));
                tokio::time::timeout(SLOW, process_error(socket, error, extended))
                    .await
                    .map_err(|_| timed_out())??;
            }
        }
    }

    async fn process(
        &self,
        socket: &mut Socket,
        message: PgWireFrontendMessage,
    ) -> Result<(), PgWireError> {
        process_message(
            message,
            socket,
            Arc::clone(&self.startup),
            Arc::clone(&self.handler),
            Arc::clone(&self.handler),
            Arc::new(NoopHandler),
            Arc::clone(&self.cancel),
        )
        .await
    }
}

/// Says why, and closes.
async fn farewell(socket: &mut Socket, error: PgWireError) -> io::Result<()> {
    let mut info = ErrorInfo::from(error);
    info.severity = "FATAL".into();
    info.severity_nonlocalized = Some("FATAL".into());
    let message = PgWireBackendMessage::ErrorResponse(info.into());
    tokio::time::timeout(STARTUP, async {
        socket.send(message).await?;
        socket.close().await
    })
    .await
    .map_err(|_| timed_out())?
}

fn timed_out() -> io::Error {
    io::Error::from(io::ErrorKind::TimedOut)
}
