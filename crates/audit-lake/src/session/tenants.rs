//! The tenants that rows come for. Each is noted before anything is put into its store. The sink waits for a store that
//! is missing, but only for a while; then the tenant's rows go to home. Otherwise anyone who may write a tenant's
//! column could stop the lake with a value for which nobody has made a bucket.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use audit_core::batch::Batch;
use audit_core::quarantine::Quarantine;
use futures::StreamExt;

use super::route::Route;
use super::{CONCURRENT, Session};
use crate::error::LakeError;
use crate::table::TableId;
use crate::tenants::Goes;

/// After a tenant was sent home, other tenants without a store are sent there at once for this long: many such values
/// must not add up to a long wait.
const NO_WAIT: Duration = Duration::from_secs(3600);

/// The tenants that this session has met.
#[derive(Debug, Default)]
pub struct Tenants {
    /// Tenants that are noted and have a store.
    noted: HashSet<Arc<str>>,
    /// Tenants without a store that rows came for lately: their rows go to home. Of others home's note says so.
    at_home: HashSet<Arc<str>>,
    pub(crate) waits: Waits,
}

/// How long stores were waited for. It outlives a session.
#[derive(Debug, Default)]
pub struct Waits {
    /// Tenants whose store is missing, and since when.
    missing: HashMap<Arc<str>, Instant>,
    /// When the last tenant was sent home.
    sent_at: Option<Instant>,
}

/// Bytes of names of tenants without a store that are remembered between two batches.
const AT_HOME_MAX: usize = 1 << 20;

impl Waits {
    /// Whether a store has been missing for long enough.
    fn is_lost(&mut self, tenant: &Arc<str>, wait: Duration) -> bool {
        let since = *self.missing.entry(tenant.clone()).or_insert_with(Instant::now);
        since.elapsed() >= wait || self.sent_at.is_some_and(|at| at.elapsed() < NO_WAIT)
    }
}

impl Session {
    /// Finds the table of each version, and notes the tenants among them.
    pub(super) async fn route(&mut self, batch: &Batch, quarantine: &Quarantine) -> Result<Route, LakeError> {
        // Anyone who may write a tenant's column can make up names.
        if self.tenants.at_home.iter().map(|tenant| tenant.len()).sum::<usize>() > AT_HOME_MAX {
            self.tenants.at_home.clear();
        }
        loop {
            let has_tenants = self.stores.has_tenants();
            let route = Route::of(batch, &self.settings.name, has_tenants, &self.tenants.at_home, quarantine);
            if self.meet(&route.ids).await? {
                return Ok(route);
            }
        }
    }

    /// Notes new tenants. Returns false if one of them has no store.
    async fn meet(&mut self, ids: &[TableId]) -> Result<bool, LakeError> {
        let tenants = ids.iter().filter_map(|id| id.tenant.clone());
        let new: HashSet<Arc<str>> = tenants.filter(|tenant| !self.tenants.noted.contains(tenant)).collect();
        let note = |tenant: Arc<str>| {
            let stores = self.stores.clone();
            async move { (stores.note(&tenant).await, tenant) }
        };
        let noted: Vec<_> = futures::stream::iter(new).map(note).buffer_unordered(CONCURRENT).collect().await;
        let (mut errors, mut all) = (Vec::new(), true);
        for (noted, tenant) in noted {
            let goes = match noted {
                Err(error) if error.has_no_store() => self.without_store(&tenant, error).await,
                noted => noted,
            };
            match goes {
                Ok(Goes::ToStore) => {
                    self.tenants.waits.missing.remove(&tenant);
                    self.tenants.noted.insert(tenant);
                }
                Ok(Goes::ToHome) => {
                    self.tenants.at_home.insert(tenant);
                    all = false;
                }
                Err(error) => errors.push(error),
            }
        }
        errors.sort_by_key(LakeError::is_retry);
        errors.into_iter().next().map_or(Ok(all), Err)
    }

    async fn without_store(&mut self, tenant: &Arc<str>, error: LakeError) -> Result<Goes, LakeError> {
        if !self.tenants.waits.is_lost(tenant, self.settings.tenant_wait) {
            return Err(error);
        }
        let goes = self.stores.send_home(tenant).await?;
        if goes == Goes::ToStore {
            return Err(error);
        }
        let cause = std::error::Error::source(&error).map(|source| source.to_string());
        tracing::warn!(%tenant, %error, cause, "a tenant has no store: its rows go to the home from now on");
        self.tenants.waits.missing.remove(tenant);
        self.tenants.waits.sent_at = Some(Instant::now());
        Ok(goes)
    }

    /// Messages about tenants whose rows go to home, among those that rows came for lately.
    pub(super) fn sent_home(&self) -> Vec<String> {
        let shown = |tenant: &Arc<str>| {
            let name: String = tenant.chars().take(NAME_MAX).collect();
            format!("tenant {name:?} has no store: its rows go to the home")
        };
        few(self.tenants.at_home.iter().map(shown).collect(), "tenants have no store")
    }
}

/// Characters of a tenant's name in a message.
const NAME_MAX: usize = 100;

/// Messages that are told one by one.
const TOLD: usize = 5;

/// The first messages, and one with the number of the others.
pub(super) fn few(mut messages: Vec<String>, others: &str) -> Vec<String> {
    messages.sort();
    let more = messages.len().saturating_sub(TOLD);
    messages.truncate(TOLD);
    messages.extend((more > 0).then(|| format!("{more} more {others}")));
    messages
}
