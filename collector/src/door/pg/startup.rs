//! Who may in, and what a client is told first.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use futures::Sink;
use pgwire::api::auth::sasl::SASLAuthStartupHandler;
use pgwire::api::auth::{ServerParameterProvider, StartupHandler};
use pgwire::api::{ClientInfo, METADATA_APPLICATION_NAME, METADATA_DATABASE, METADATA_USER};
use pgwire::error::{PgWireError, PgWireResult};
use pgwire::messages::{PgWireBackendMessage, PgWireFrontendMessage};

use super::{NAME, Shared, error, session};

/// The login of one connection.
pub struct Startup {
    sasl: SASLAuthStartupHandler<Greeting>,
    needs_tls: bool,
}

/// The parameters that a client learns at the login.
pub struct Greeting;

impl Startup {
    pub(super) fn new(shared: &Shared) -> Self {
        Self {
            sasl: SASLAuthStartupHandler::new(Arc::new(Greeting))
                .with_scram(shared.scram())
                .with_pid_secret_key_generator(Arc::clone(&shared.keys))
                .with_connection_manager(Arc::clone(&shared.cancels)),
            needs_tls: shared.tls.is_some(),
        }
    }
}

#[async_trait]
impl StartupHandler for Startup {
    async fn on_startup<C>(
        &self,
        client: &mut C,
        message: PgWireFrontendMessage,
    ) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        if let PgWireFrontendMessage::Startup(startup) = &message {
            if self.needs_tls && !client.is_secure() {
                return Err(error::fatal(
                    "28000",
                    "this port speaks TLS only: sslmode=require",
                ));
            }
            let user = startup.parameters.get(METADATA_USER);
            let Some(user) = user.filter(|u| !u.is_empty()) else {
                return Err(error::fatal("28000", "the startup message names no user"));
            };
            let database = startup.parameters.get(METADATA_DATABASE).unwrap_or(user);
            if database != NAME && !database.is_empty() {
                let text = format!("database \"{database}\" does not exist; there is \"{NAME}\"");
                return Err(error::fatal("3D000", text));
            }
        }
        self.sasl.on_startup(client, message).await
    }
}

impl ServerParameterProvider for Greeting {
    fn server_parameters<C>(&self, client: &C) -> Option<HashMap<String, String>>
    where
        C: ClientInfo,
    {
        // Clients tell these by their capitals.
        const TOLD: &[&str] = &[
            "server_version",
            "server_encoding",
            "client_encoding",
            "DateStyle",
            "IntervalStyle",
            "TimeZone",
            "integer_datetimes",
            "standard_conforming_strings",
            "is_superuser",
            "session_authorization",
            "in_hot_standby",
            "default_transaction_read_only",
            "scram_iterations",
            "search_path",
        ];
        let settings = session::defaults();
        let told = TOLD.iter().filter_map(|name| {
            let value = settings.get(&name.to_lowercase())?;
            Some(((*name).to_owned(), value.clone()))
        });
        let mut told: HashMap<String, String> = told.collect();
        let own = client.metadata().get(METADATA_APPLICATION_NAME);
        told.insert(
            METADATA_APPLICATION_NAME.into(),
            own.cloned().unwrap_or_default(),
        );
        Some(told)
    }
}
