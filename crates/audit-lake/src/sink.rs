//! The lake as a sink.

use std::sync::Arc;
use std::time::Instant;

use audit_core::batch::{Batch, Progress};
use audit_core::quarantine::Quarantine;
use audit_core::sink::{Action, Identity, Sink, SinkError, Stored};

use crate::compact::Compactor;
use crate::config::LakeConfig;
use crate::encode;
use crate::error::LakeError;
use crate::file::Limits;
use crate::place::Place;
use crate::session::roll::Compacting;
use crate::session::tenants::Waits;
use crate::session::{Session, Settings, WriteError, later};
use crate::store::Store;
use crate::table::fresh::Rolls;
use crate::tenants::Stores;

/// The lake as a sink. Versions are durable after their table's files are closed and committed, which happens because
/// of size, rows, age, or lack of memory.
#[derive(Debug)]
pub struct LakeSink {
    settings: Settings,
    config: Box<LakeConfig>,
    /// The stores, if they were given; otherwise the places in the configuration are opened.
    stores: Option<Stores>,
    quarantine: Arc<Quarantine>,
    session: Option<Session>,
    /// Of the session before, between two sessions.
    waits: Waits,
    durable: Progress,
}

impl LakeSink {
    /// Makes the sink. `memory` is about how many bytes versions may take before they are durable; if it is short, a
    /// row group is ended, and tables are closed early.
    ///
    /// # Errors
    /// Fails if home's place or the compression settings are invalid.
    pub fn new(name: impl Into<Arc<str>>, config: &LakeConfig, memory: usize) -> Result<LakeSink, SinkError> {
        Place::parse(config.home_url())?;
        Ok(LakeSink::with(name, config, memory, None)?)
    }

    /// A sink over any object store; `config.url` is only shown.
    ///
    /// # Errors
    /// Fails if the compression settings are invalid.
    pub fn over(
        name: impl Into<Arc<str>>,
        config: &LakeConfig,
        memory: usize,
        store: Store,
    ) -> Result<LakeSink, LakeError> {
        LakeSink::with(name, config, memory, Some(Stores::alone(store)))
    }

    fn with(
        name: impl Into<Arc<str>>,
        config: &LakeConfig,
        memory: usize,
        stores: Option<Stores>,
    ) -> Result<LakeSink, LakeError> {
        // An open row group is the least that a table under load holds. It may take a third of the memory, so that two
        // fit in addition to the rows that wait.
        let row_group_bytes = config.row_group_bytes.get().min(config.file_bytes.get());
        let row_group_bytes = usize::try_from(row_group_bytes).unwrap_or(usize::MAX).min((memory / 3).max(1 << 20));
        let files = encode::Settings::new(config, row_group_bytes).map_err(|source| LakeError::Settings { source })?;
        let limits = Limits { bytes: config.file_bytes.get(), rows: config.file_rows };
        let settings = Settings {
            name: name.into(),
            files,
            limits,
            file_age: config.file_age.get(),
            data: Limits { bytes: config.data_bytes.get(), rows: config.data_rows },
            rolls: Rolls { age: config.roll_age.get(), grace: config.grace.get(), full: limits },
            tenant_wait: config.tenant_wait.get(),
            listed: config.listing_readers,
            partitioning: config.partition_by,
            keep_before: config.keep_before,
            budget: memory,
        };
        let config = Box::new(config.clone());
        Ok(LakeSink {
            settings,
            config,
            stores,
            quarantine: Arc::default(),
            session: None,
            waits: Waits::default(),
            durable: Progress::default(),
        })
    }

    fn session(&mut self) -> Result<&mut Session, SinkError> {
        self.session.as_mut().ok_or_else(|| SinkError::not_taken(&self.settings.name))
    }

    /// Handles an error: after every error except `Retry` the sink holds nothing any more.
    fn failed(&mut self, error: impl Into<SinkError>) -> SinkError {
        let error = error.into();
        if error.action != Action::Retry {
            self.end();
        }
        error
    }
}

impl Sink for LakeSink {
    async fn take(&mut self, identity: &Identity) -> Result<Stored, SinkError> {
        self.end();
        let stores = match &self.stores {
            Some(stores) => stores.clone(),
            None => Stores::open(&self.config, true)?,
        };
        let compacting = match self.config.compact_every {
            Some(every) => {
                let memory = self.settings.budget / 3;
                let compactor = Compactor::of(&self.config, stores.clone(), &identity.source, memory)?;
                Some(Compacting::new(compactor, every.get()).await?)
            }
            None => None,
        };
        let (mut session, stored) = Session::take(stores, self.settings.clone(), compacting, identity).await?;
        session.tenants.waits = std::mem::take(&mut self.waits);
        self.durable = session.durable();
        self.session = Some(session);
        Ok(stored)
    }

    async fn begin(&mut self, start: Progress) -> Result<(), SinkError> {
        let begun = self.session()?.begin(start).await;
        self.settle(begun)
    }

    async fn write(&mut self, batches: &[&Batch]) -> Result<(), SinkError> {
        let Some(session) = &mut self.session else { return self.session().map(|_| ()) };
        let written = match session.write(batches, &self.quarantine).await {
            Err(WriteError::Lake(error)) => Err(WriteError::Lake(session.judged(error).await)),
            written => written,
        };
        self.settle(written)
    }

    async fn flush(&mut self, all: bool) -> Result<(), SinkError> {
        let session = self.session()?;
        let flushed = match session.flush(all).await {
            Err(error) => Err(session.judged(error).await),
            flushed => flushed,
        };
        self.settle(flushed)
    }

    fn due(&self) -> Option<Instant> {
        self.session.as_ref()?.due()
    }

    fn durable(&self) -> Progress {
        self.durable
    }

    fn quarantine(&mut self, quarantine: Arc<Quarantine>) {
        self.quarantine = quarantine;
    }

    fn held_bytes(&self) -> usize {
        self.session.as_ref().map_or(0, Session::held)
    }

    fn troubles(&self) -> Vec<String> {
        self.session.as_ref().map_or_else(Vec::new, Session::troubles)
    }
}

impl LakeSink {
    /// Ends the session. ⚠ How long a tenant's store was waited for is remembered, or sessions that end early would wait for ever.
    fn end(&mut self) {
        if let Some(session) = self.session.take() {
            self.waits = session.tenants.waits;
        }
    }

    fn settle<E: Into<SinkError>>(&mut self, done: Result<(), E>) -> Result<(), SinkError> {
        if let Some(session) = &self.session {
            // It falls where a table was put back: what was reported before was acknowledged.
            self.durable = later(self.durable, session.durable());
        }
        done.map_err(|error| self.failed(error))
    }
}

impl From<WriteError> for SinkError {
    fn from(error: WriteError) -> SinkError {
        match error {
            WriteError::Lake(error) => error.into(),
            WriteError::Refused(error) => error,
        }
    }
}
