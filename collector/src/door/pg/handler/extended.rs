//! The extended protocol: prepared statements, parameters, portals.

use std::fmt::Debug;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use futures::{Sink, SinkExt as _};
use pgwire::api::portal::{Format, Portal, PortalExecutionState};
use pgwire::api::query::{
    ExtendedQueryHandler, send_execution_response, send_partial_query_response,
};
use pgwire::api::results::{
    DescribePortalResponse, DescribeStatementResponse, FieldInfo, QueryResponse, Response,
};
use pgwire::api::stmt::{QueryParser, StoredStatement};
use pgwire::api::store::{Entry, PortalStore};
use pgwire::api::{ClientInfo, ClientPortalStore, DEFAULT_NAME, PgWireConnectionState, Type};
use pgwire::error::{PgWireError, PgWireResult};
use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::extendedquery::{
    Bind, BindComplete, Close, CloseComplete, Execute, Parse, ParseComplete,
};
use pgwire::messages::response::EmptyQueryResponse;
use tokio::sync::OnceCell;

use super::{Handler, cancellable, cancelled};
use crate::door::pg::{answer, error, parameters};
use crate::query::postgres::{self, Command, Parameter};

/// Results formats and parameters of one Bind.
const FORMATS: usize = 4096;

/// A prepared statement.
#[derive(Clone, Debug)]
pub struct Prepared {
    command: Arc<Command>,
    /// Its columns, once somebody asked.
    shape: Arc<OnceCell<SchemaRef>>,
}

/// pgwire asks for a parser; statements are read by [`Handler::prepare`].
pub struct Unused;

#[async_trait]
impl QueryParser for Unused {
    type Statement = Prepared;

    async fn parse_sql<C>(
        &self,
        _: &C,
        _: &str,
        _: &[Option<Type>],
    ) -> PgWireResult<Option<Prepared>>
    where
        C: ClientInfo + Unpin + Send + Sync,
    {
        Err(error::error("XX000", "parsed by on_parse"))
    }

    fn get_parameter_types(&self, _: &Prepared) -> PgWireResult<Vec<Type>> {
        Ok(Vec::new())
    }

    fn get_result_schema(&self, _: &Prepared, _: Option<&Format>) -> PgWireResult<Vec<FieldInfo>> {
        Ok(Vec::new())
    }
}

#[async_trait]
impl ExtendedQueryHandler for Handler {
    type Statement = Prepared;
    type QueryParser = Unused;

    fn query_parser(&self) -> Arc<Unused> {
        Arc::new(Unused)
    }

    async fn on_parse<C>(&self, client: &mut C, message: Parse) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Prepared>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        self.note(b'S', message.name.as_deref())?;
        let name = message.name.as_deref().unwrap_or(DEFAULT_NAME);
        match self.prepare(&message.query)? {
            None => client.portal_store().put_empty_statement(name),
            Some(prepared) => {
                let types = message.type_oids.iter().map(|oid| Type::from_oid(*oid));
                // 0 and `unknown` leave it to us.
                let types = types.map(|t| t.filter(|t| *t != Type::UNKNOWN)).collect();
                let stored = StoredStatement::new(name.to_owned(), prepared, types);
                client.portal_store().put_statement(Arc::new(stored));
            }
        }
        client
            .feed(PgWireBackendMessage::ParseComplete(ParseComplete::new()))
            .await?;
        Ok(())
    }

    async fn on_bind<C>(&self, client: &mut C, message: Bind) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Prepared>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        self.note(b'P', message.portal_name.as_deref())?;
        let name = message.statement_name.as_deref().unwrap_or(DEFAULT_NAME);
        let portal_name = message.portal_name.as_deref().unwrap_or(DEFAULT_NAME);
        let given = message.parameters.len();
        let (wanted, portal) = match client.portal_store().get_statement(name) {
            Some(Entry::Value(statement)) => {
                let wanted = types(&statement).len();
                (wanted, Some(Portal::try_new(&message, statement)?))
            }
            Some(Entry::Empty) => (0, None),
            None => return Err(PgWireError::StatementNotFound(name.to_owned())),
        };
        let formats = message.parameter_format_codes.len();
        let result_formats = message.result_column_format_codes.len();
        if wanted != given || (formats > 1 && formats != given) || result_formats > FORMATS {
            let text = format!(
                "bind message supplies {given} parameters and {formats} formats, the statement requires {wanted}"
            );
            return Err(error::error("08P01", text));
        }
        match portal {
            Some(portal) => client.portal_store().put_portal(Arc::new(portal)),
            None => client.portal_store().put_empty_portal(portal_name),
        }
        client
            .feed(PgWireBackendMessage::BindComplete(BindComplete::new()))
            .await?;
        Ok(())
    }

    async fn on_close<C>(&self, client: &mut C, message: Close) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Prepared>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        self.forget(message.target_type, message.name.as_deref());
        let name = message.name.as_deref().unwrap_or(DEFAULT_NAME);
        match message.target_type {
            b'S' => client.portal_store().rm_statement(name),
            b'P' => client.portal_store().rm_portal(name),
            other => return Err(PgWireError::InvalidTargetType(other)),
        }
        client
            .feed(PgWireBackendMessage::CloseComplete(CloseComplete::new()))
            .await?;
        Ok(())
    }

    /// As pgwire's own, but rows go out as they come: that one gathers all
    /// rows of a portal before it sends the first.
    async fn on_execute<C>(&self, client: &mut C, message: Execute) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Prepared>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        if !matches!(client.state(), PgWireConnectionState::ReadyForQuery) {
            return Err(PgWireError::NotReadyForQuery);
        }
        let name = message.name.as_deref().unwrap_or(DEFAULT_NAME);
        let portal = match client.portal_store().get_portal(name) {
            Some(Entry::Value(portal)) => portal,
            Some(Entry::Empty) => {
                let empty = PgWireBackendMessage::EmptyQueryResponse(EmptyQueryResponse::new());
                client.feed(empty).await?;
                return Ok(());
            }
            None => return Err(PgWireError::PortalNotFound(name.to_owned())),
        };
        let max = usize::try_from(message.max_rows).unwrap_or(0);
        client.set_state(PgWireConnectionState::QueryInProgress);
        let cancelled = cancelled(client).await;
        cancellable(cancelled, self.execute(client, &portal, max)).await?;
        client.set_state(PgWireConnectionState::ReadyForQuery);
        Ok(())
    }

    async fn do_describe_statement<C>(
        &self,
        _: &mut C,
        target: &StoredStatement<Prepared>,
    ) -> PgWireResult<DescribeStatementResponse>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Prepared>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let types = types(target);
        let fields = self.described(target, &Format::UnifiedText).await?;
        Ok(DescribeStatementResponse::new(types, fields))
    }

    async fn do_describe_portal<C>(
        &self,
        _: &mut C,
        target: &Portal<Prepared>,
    ) -> PgWireResult<DescribePortalResponse>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Prepared>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let format = &target.result_column_format;
        let fields = self.described(&target.statement, format).await?;
        Ok(DescribePortalResponse::new(fields))
    }

    async fn do_query<C>(&self, _: &mut C, _: &Portal<Prepared>, _: usize) -> PgWireResult<Response>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Prepared>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        Err(error::error("XX000", "answered by on_execute"))
    }
}

impl Handler {
    fn prepare(&self, text: &str) -> PgWireResult<Option<Prepared>> {
        let pieces = postgres::split(text).map_err(|e| error::refused(&e))?;
        let piece = match pieces.as_slice() {
            [] => return Ok(None),
            [piece] => piece,
            _ => {
                return Err(error::error(
                    "42601",
                    "cannot insert multiple commands into a prepared statement",
                ));
            }
        };
        let command =
            postgres::read(piece, &self.session.settings()).map_err(|e| error::refused(&e))?;
        Ok(Some(Prepared {
            command: Arc::new(command),
            shape: Arc::new(OnceCell::new()),
        }))
    }

    /// Columns of a statement, with NULLs for its parameters.
    async fn described(
        &self,
        statement: &StoredStatement<Prepared>,
        format: &Format,
    ) -> PgWireResult<Vec<FieldInfo>> {
        let schema = match &*statement.statement.command {
            Command::Show(name) => answer::text_schema(std::iter::once(name.as_str())),
            Command::Read(read) => {
                let shape = statement.statement.shape.get_or_try_init(|| async {
                    let nulls: Vec<Parameter> = types(statement)
                        .iter()
                        .map(|t| Parameter::Null(parameters::null(t)))
                        .collect();
                    let text = read.shape(&nulls).map_err(|e| error::refused(&e))?;
                    Ok::<_, PgWireError>(self.ask(&text).await?.schema)
                });
                Arc::clone(shape.await?)
            }
            _ => return Ok(Vec::new()),
        };
        answer::fields(&schema, format)
    }

    async fn execute<C>(
        &self,
        client: &mut C,
        portal: &Portal<Prepared>,
        max: usize,
    ) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Prepared>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let state = portal.state();
        let mut state = state.lock().await;
        // What fails on the way is finished.
        let before = std::mem::replace(&mut *state, PortalExecutionState::Finished);
        let mut rows = match before {
            PortalExecutionState::Suspended(rows) => rows,
            PortalExecutionState::Finished => {
                QueryResponse::new(Arc::default(), futures::stream::empty())
            }
            PortalExecutionState::Initial => match self.begin(client, portal).await? {
                Some(rows) => rows,
                None => return Ok(()),
            },
        };
        if send_partial_query_response(client, &mut rows, max).await? {
            *state = PortalExecutionState::Suspended(rows);
        }
        Ok(())
    }

    /// Starts a portal; its rows, if it has any.
    async fn begin<C>(
        &self,
        client: &mut C,
        portal: &Portal<Prepared>,
    ) -> PgWireResult<Option<QueryResponse>>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Prepared>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let prepared = &portal.statement.statement;
        let values = values(portal)?;
        let status = client.transaction_status();
        let format = &portal.result_column_format;
        match self.run(&prepared.command, &values, format, status).await? {
            Response::Query(rows) => {
                if let Some(shape) = prepared.shape.get() {
                    let told = answer::fields(shape, format)?;
                    let same = told.len() == rows.row_schema().len()
                        && told
                            .iter()
                            .zip(rows.row_schema().iter())
                            .all(|(a, b)| a.datatype() == b.datatype());
                    if !same {
                        let text = "cached plan must not change result type; prepare it again";
                        return Err(error::error("0A000", text));
                    }
                }
                return Ok(Some(rows));
            }
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
        Ok(None)
    }
}

/// Types of the parameters: the client's own, else what the statement says.
fn types(statement: &StoredStatement<Prepared>) -> Vec<Type> {
    let Command::Read(read) = &*statement.statement.command else {
        return Vec::new();
    };
    let typed = |i: usize| statement.parameter_types.get(i).cloned().flatten();
    let said = read.parameters.iter().enumerate();
    said.map(|(i, kind)| typed(i).unwrap_or_else(|| parameters::wire_type(*kind)))
        .collect()
}

fn values(portal: &Portal<Prepared>) -> PgWireResult<Vec<Parameter>> {
    let types = types(&portal.statement);
    let values = types.iter().zip(&portal.parameters).enumerate();
    values
        .map(|(i, (wire, bytes))| {
            let binary = portal.parameter_format.is_binary(i);
            parameters::decode(wire, binary, bytes.as_deref())
                .map_err(|e| error::error("22P02", format!("parameter ${}: {e}", i + 1)))
        })
        .collect()
}
