//! The simple protocol: a text of statements.

use std::fmt::Debug;

use async_trait::async_trait;
use futures::{Sink, SinkExt as _};
use pgwire::api::portal::Format;
use pgwire::api::query::{
    SimpleQueryHandler, send_execution_response, send_query_response, send_ready_for_query,
};
use pgwire::api::results::Response;
use pgwire::api::store::PortalStore;
use pgwire::api::{ClientInfo, ClientPortalStore, PgWireConnectionState};
use pgwire::error::{PgWireError, PgWireResult};
use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::response::EmptyQueryResponse;
use pgwire::messages::simplequery::Query;

use super::{Handler, cancellable, cancelled};
use crate::door::pg::error;
use crate::query::postgres;

#[async_trait]
impl SimpleQueryHandler for Handler {
    /// As pgwire's own, but each answer is sent before the next statement
    /// begins, and a cancel request is heard between rows too.
    async fn on_query<C>(&self, client: &mut C, query: Query) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        if !matches!(client.state(), PgWireConnectionState::ReadyForQuery) {
            return Err(PgWireError::NotReadyForQuery);
        }
        client.set_state(PgWireConnectionState::QueryInProgress);
        let cancelled = cancelled(client).await;
        cancellable(cancelled, self.statements(client, &query.query)).await?;
        client.set_state(PgWireConnectionState::ReadyForQuery);
        let status = client.transaction_status();
        send_ready_for_query(client, status).await
    }

    async fn do_query<C>(&self, _: &mut C, _: &str) -> PgWireResult<Vec<Response>>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        Err(error::error("XX000", "answered by on_query"))
    }
}

impl Handler {
    async fn statements<C>(&self, client: &mut C, text: &str) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let settings = self.session.settings();
        // All are read before the first one runs: a text with a write in it
        // does nothing.
        let pieces = postgres::split(text).map_err(|e| error::refused(&e))?;
        let commands = pieces
            .iter()
            .map(|piece| postgres::read(piece, &settings))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| error::refused(&e))?;
        if commands.is_empty() {
            let empty = PgWireBackendMessage::EmptyQueryResponse(EmptyQueryResponse::new());
            client.feed(empty).await?;
        }
        for command in &commands {
            let status = client.transaction_status();
            match self.run(command, &[], &Format::UnifiedText, status).await? {
                Response::Query(rows) => send_query_response(client, rows, true).await?,
                Response::TransactionStart(tag) => {
                    send_execution_response(client, tag).await?;
                    client.set_transaction_status(status.to_in_transaction_state());
                }
                Response::TransactionEnd(tag) => {
                    send_execution_response(client, tag).await?;
                    client.set_transaction_status(status.to_idle_state());
                }
                Response::Execution(tag) => send_execution_response(client, tag).await?,
                _ => {
                    let empty = PgWireBackendMessage::EmptyQueryResponse(EmptyQueryResponse::new());
                    client.feed(empty).await?;
                }
            }
        }
        Ok(())
    }
}
